//! The domain: the one machine of this launcher, or its absence, and what is known of it.
//!
//! ```text
//!          sync                       guest, kill or failure           delete
//!   absent -----> running <--> paused -----------------------> ended ---------> deleted
//! ```
//!
//! The thread `domain` owns this state. [`DomainHandle`]s give it tasks through a bounded channel; what it
//! publishes is read without waiting for it. A machine that has ended is never started again.

mod build;
mod change;
mod credentials;
mod dump;
mod metrics;
mod owner;
mod panic;
mod state;
mod view;

use std::io;
use std::path::PathBuf;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use api::{FieldError, Vmi};
use jiff::Timestamp;
use proto::cmd::v1::SmBios;
use proto::domain::Domain;
use tokio::sync::{mpsc, oneshot, watch};
use tracing::Span;
use vmm::machine::{MachineError, MachineHandle};

use self::owner::Owner;
use crate::agent::{Agent, Intervals};
use crate::convert::Environment;
use crate::pod::{PodError, PodPaths};
use crate::state_dir::StateDirError;
use crate::volumes::{Place, VolumeError};

/// Tasks that wait for the owner: many times what one node agent asks at once.
const TASKS_MAX: usize = 64;
/// Warnings that wait for the node agent: more than a manifest has fields that we don't honour.
const WARNINGS_MAX: usize = 64;

/// What every machine of this launcher is made with.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Where its files lie.
    pub paths: PodPaths,
    /// Whether the kubelet mounts the images of container disks.
    pub image_volume: bool,
    /// What the host has.
    pub environment: Environment,
    /// How often the guest agent is asked.
    pub intervals: Intervals,
}

impl Setup {
    /// Where volumes are found.
    fn place(&self) -> Place {
        Place::Pod {
            paths: self.paths.clone(),
            image_volume: self.image_volume,
        }
    }
}

/// A machine as it is wanted.
#[derive(Clone, Debug, Default)]
pub struct Wish {
    /// The instance.
    pub vmi: Box<Vmi>,
    /// The cluster's SMBIOS strings.
    pub smbios: Option<SmBios>,
    /// Whether the cluster keeps a log of serial consoles.
    pub log_console: bool,
}

/// What is known of the domain.
#[derive(Clone, Debug, Default)]
pub struct Published {
    /// Counts the changes.
    pub revision: u64,
    /// The domain, from its start on; a domain that was deleted stays, for those who have not seen its end.
    pub domain: Option<Arc<Domain>>,
    /// Where its life is.
    pub stage: Stage,
}

impl Published {
    /// Returns the domain if it has begun and was not deleted.
    pub fn existing(self) -> Option<Arc<Domain>> {
        self.domain.filter(|_| self.stage != Stage::Deleted)
    }
}

/// Where a domain's life is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stage {
    /// It has not begun.
    #[default]
    Absent,
    /// There is a machine.
    Alive,
    /// The machine has ended.
    Ended,
    /// The machine has ended and is forgotten.
    Deleted,
}

/// Something that the instance's user should know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// Namespace, name and uid of the instance.
    pub instance: [String; 3],
    /// Why, in one word.
    pub reason: &'static str,
    /// What.
    pub message: String,
}

/// Why something could not be done with the domain.
#[derive(Debug, thiserror::Error)]
pub enum DomainError {
    /// There is no machine.
    #[error("find the machine: it does not run")]
    NoMachine,
    /// Too much is asked at once.
    #[error("ask the machine: more than {TASKS_MAX} requests wait")]
    Busy,
    /// The launcher ends.
    #[error("ask the machine: the launcher ends")]
    Ending,
    /// The launcher has another instance.
    #[error("run the instance {wanted}: this launcher runs {running}")]
    OtherInstance {
        /// Uid of the instance that was asked for.
        wanted: String,
        /// Uid of the instance that runs.
        running: String,
    },
    /// Fields of the instance are wrong.
    #[error("{}", list(.0))]
    Fields(Vec<FieldError>),
    /// A volume cannot be prepared.
    #[error(transparent)]
    Volume(#[from] VolumeError),
    /// The pod's folders cannot be used.
    #[error(transparent)]
    Pod(#[from] PodError),
    /// A file of the machine's cannot be made.
    #[error(transparent)]
    File(#[from] StateDirError),
    /// The console cannot be made.
    #[error("make the console {}", path.display())]
    Console {
        /// Socket or log.
        path: PathBuf,
        /// The host's answer.
        source: io::Error,
    },
    /// The host has no thread to give.
    #[error("watch over the machine")]
    Host(#[from] io::Error),
    /// The machine cannot do it.
    #[error("{what}")]
    Machine {
        /// What was asked.
        what: &'static str,
        /// Why not.
        source: Box<MachineError>,
    },
    /// Memory would be dumped to where nothing may be written.
    #[error("dump memory to {}: it is not below {}", path.display(), folder.display())]
    DumpPath {
        /// The file.
        path: PathBuf,
        /// The only folder for dumps.
        folder: PathBuf,
    },
    /// A running machine cannot be changed so.
    #[error("{0}")]
    Unsupported(FieldError),
}

/// Errors of fields in one line; a VMI's condition needs no more than the first few.
fn list(errors: &[FieldError]) -> String {
    const SHOWN_MAX: usize = 4;
    let shown: Vec<String> = errors
        .iter()
        .take(SHOWN_MAX)
        .map(FieldError::to_string)
        .collect();
    match errors.len().saturating_sub(SHOWN_MAX) {
        0 => shown.join("; "),
        more => format!("{} (and {more} more)", shown.join("; ")),
    }
}

/// Work for the owner.
type Task = Box<dyn FnOnce(&mut Owner) + Send>;

/// What the owner publishes beside the domain, and others read without asking it.
#[derive(Default)]
struct Shared {
    machine: Mutex<Option<MachineHandle>>,
    agent: Mutex<Option<Agent>>,
}

impl Shared {
    fn machine(&self) -> MutexGuard<'_, Option<MachineHandle>> {
        self.machine.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn agent(&self) -> MutexGuard<'_, Option<Agent>> {
        self.agent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Commands the domain.
#[derive(Clone)]
pub struct DomainHandle {
    tasks: SyncSender<Task>,
    published: watch::Receiver<Published>,
    shared: Arc<Shared>,
}

impl DomainHandle {
    /// Starts the thread that owns the domain. Warnings come through the returned channel.
    ///
    /// # Errors
    ///
    /// Fails when the host refuses a thread.
    pub fn start(setup: Setup) -> io::Result<(Self, mpsc::Receiver<Warning>)> {
        let (tasks, inbox) = sync_channel::<Task>(TASKS_MAX);
        let (publisher, published) = watch::channel(Published::default());
        let (warnings, warned) = mpsc::channel(WARNINGS_MAX);
        let shared = Arc::new(Shared::default());
        let span = Span::current();
        let handle = Self {
            tasks: tasks.clone(),
            published,
            shared: Arc::clone(&shared),
        };
        thread::Builder::new()
            .name("domain".to_owned())
            .spawn(move || {
                let mut owner = Owner::new(setup, tasks, publisher, warnings, shared);
                span.in_scope(|| inbox.iter().for_each(|task| task(&mut owner)));
            })?;
        Ok((handle, warned))
    }

    /// Returns what is known now; never waits for the owner.
    pub fn published(&self) -> Published {
        self.published.borrow().clone()
    }

    /// Returns a receiver of what becomes known.
    pub fn watch(&self) -> watch::Receiver<Published> {
        self.published.clone()
    }

    /// Returns the machine, if one runs; never waits for the owner.
    pub fn machine(&self) -> Option<MachineHandle> {
        self.shared.machine().clone()
    }

    /// Returns the guest's agent, if a machine runs; never waits for the owner.
    pub fn agent(&self) -> Option<Agent> {
        self.shared.agent().clone()
    }

    async fn ask<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Owner) -> Result<T, DomainError> + Send + 'static,
    ) -> Result<T, DomainError> {
        let (answer, answered) = oneshot::channel();
        let task: Task = Box::new(move |owner| {
            // A caller who went away needs no answer.
            drop(answer.send(work(owner)));
        });
        self.tasks.try_send(task).map_err(|_| DomainError::Busy)?;
        answered.await.map_err(|_| DomainError::Ending)?
    }

    /// Brings the machine to what is wanted: starts it when there was none, lets it go on when it was
    /// stopped by an error. A machine that has ended stays ended.
    ///
    /// # Errors
    ///
    /// Fails when the instance cannot run; nothing is left behind, and another try may follow.
    pub async fn sync(&self, wish: Wish) -> Result<(), DomainError> {
        self.ask(move |owner| owner.sync(&wish)).await
    }

    /// Pauses the machine at the user's wish.
    ///
    /// # Errors
    ///
    /// Fails when there is no machine.
    pub async fn pause(&self) -> Result<(), DomainError> {
        self.ask(Owner::pause).await
    }

    /// Lets a paused machine go on.
    ///
    /// # Errors
    ///
    /// Fails when there is no machine.
    pub async fn unpause(&self) -> Result<(), DomainError> {
        self.ask(Owner::unpause).await
    }

    /// Resets the machine without asking the guest.
    ///
    /// # Errors
    ///
    /// Fails when there is no machine.
    pub async fn reset(&self) -> Result<(), DomainError> {
        self.ask(Owner::reset).await
    }

    /// Asks the guest to reboot.
    ///
    /// # Errors
    ///
    /// Fails when there is no machine.
    pub async fn soft_reboot(&self) -> Result<(), DomainError> {
        self.ask(Owner::soft_reboot).await
    }

    /// Presses the power button; the first time, the grace period begins.
    ///
    /// # Errors
    ///
    /// Fails when there is no machine.
    pub async fn shutdown(&self) -> Result<(), DomainError> {
        self.ask(Owner::shutdown).await
    }

    /// Ends the machine without asking the guest; succeeds when there is none.
    ///
    /// # Errors
    ///
    /// Fails when the launcher ends.
    pub async fn kill(&self) -> Result<(), DomainError> {
        // The owner may be waiting for a machine that cannot come to rest.
        if let Some(machine) = self.machine() {
            drop(tokio::task::spawn_blocking(move || machine.kill()).await);
        }
        self.ask(Owner::kill).await
    }

    /// Forgets a machine, ending it first when it still runs.
    ///
    /// # Errors
    ///
    /// Fails when the launcher ends.
    pub async fn delete(&self) -> Result<(), DomainError> {
        self.kill().await?;
        self.ask(Owner::delete).await
    }

    /// Tells the node agent that the pod is to end, so that it shuts the guest down.
    ///
    /// # Errors
    ///
    /// Fails when the launcher ends.
    pub async fn mark_for_shutdown(&self) -> Result<(), DomainError> {
        self.ask(Owner::mark_for_shutdown).await
    }

    /// Begins to dump the guest's memory to a file below the folder of hotplugged volumes. How it went
    /// is published; asking again for the same file changes nothing.
    ///
    /// # Errors
    ///
    /// Fails when there is no machine, or the file lies elsewhere.
    pub async fn dump_memory(&self, path: PathBuf) -> Result<(), DomainError> {
        self.ask(|owner| owner.dump_memory(path)).await
    }

    /// Checks that a change of the processors or the memory is none.
    ///
    /// # Errors
    ///
    /// Fails when there is no machine, or something would change.
    pub async fn sync_size(&self, vmi: Box<Vmi>) -> Result<(), DomainError> {
        self.ask(move |owner| owner.sync_size(&vmi)).await
    }
}

/// Returns a time as Kubernetes writes it: RFC 3339 with whole seconds.
pub(crate) fn rfc3339(time: Timestamp) -> String {
    Timestamp::from_second(time.as_second())
        .map_or_else(|_| String::new(), |whole| whole.to_string())
}
