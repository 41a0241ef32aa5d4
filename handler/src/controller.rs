//! The loop: for each instance whose time has come, look, plan, act, and write the status.
//!
//! Everything is decided from what is there, not from what happened: an event of a launcher or of the API server only
//! says whose turn it is. An instance is never looked at twice at once; ten may be at a time.

mod act;
mod memory;
mod node;
mod observe;
mod publish;
mod queue;

use std::sync::Arc;

use api::error_chain::chain;
use jiff::Timestamp;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Duration, Instant, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, debug, info_span, warn};

use self::memory::Memory;
pub use self::queue::Queue;
use crate::cluster::{ClusterConfiguration, InstanceApi, Recorder, WriteError};
use crate::config::{HostPaths, Patience};
use crate::key::VmiKey;
use crate::launchers::{Launchers, Seen};
use crate::plan::{Action, Desired, Instance, Observed, plan};
use crate::status::Emulation;
use crate::store::VmiStore;

/// Instances that are looked at at a time.
const WORKERS: usize = 10;
/// Time after which a step that failed is tried again when the plan doesn't say.
const RETRY: Duration = Duration::from_secs(10);

/// What the controller works with.
#[derive(Clone, Debug)]
pub struct Parts {
    /// Name of this node.
    pub node: String,
    /// Folders of the host.
    pub paths: HostPaths,
    /// How patient it is.
    pub patience: Patience,
    /// The instances.
    pub store: VmiStore,
    /// Which of them to look at.
    pub queue: Queue,
    /// Their launchers.
    pub launchers: Launchers,
    /// Where statuses are written.
    pub instances: InstanceApi,
    /// Where events are written.
    pub recorder: Recorder,
    /// How the cluster's machines are run.
    pub cluster: watch::Receiver<ClusterConfiguration>,
    /// Why machines of this node are emulated, apart from the cluster's wish.
    pub emulation: Emulation,
    /// Time that work under way is given to end when the handler stops.
    pub farewell: Duration,
}

/// The controller.
#[derive(Debug)]
struct Controller {
    parts: Parts,
    memory: Arc<Memory>,
    /// Images are read one after the other.
    reading: Arc<Semaphore>,
}

/// Works until `stop`, then lets what is under way come to its end.
pub async fn run(parts: Parts, mut seen: mpsc::Receiver<Seen>, stop: CancellationToken) {
    let queue = parts.queue.clone();
    for launcher in parts.launchers.all() {
        queue.add(&launcher.key);
    }
    let (mut cluster, patience) = (parts.cluster.clone(), parts.farewell);
    let controller = Arc::new(Controller {
        parts,
        memory: Arc::default(),
        reading: Arc::new(Semaphore::new(1)),
    });
    let mut tasks = JoinSet::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            Some(told) = seen.recv() => controller.hear(told),
            Ok(()) = cluster.changed() => controller.look_at_all(),
            Some(ended) = tasks.join_next(), if !tasks.is_empty() => report(ended),
            key = queue.next(), if tasks.len() < WORKERS => {
                tasks.spawn(Arc::clone(&controller).turn(key));
            }
        }
    }
    let farewell = async { while tasks.join_next().await.is_some() {} };
    if timeout(patience, farewell).await.is_err() {
        warn!("work on instances is left unfinished");
    }
}

fn report(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "work on an instance ended badly");
    }
}

impl Controller {
    /// Takes note of what a launcher tells.
    fn hear(&self, told: Seen) {
        if let Some(key) = self.memory.hear(told, &self.parts.recorder) {
            self.parts.queue.add(&key);
        }
    }

    fn look_at_all(&self) {
        for key in self.parts.store.keys() {
            self.parts.queue.add(&key);
        }
    }

    /// Gives an instance its turn.
    async fn turn(self: Arc<Self>, key: VmiKey) {
        let uid = self
            .parts
            .store
            .get(&key)
            .map(|stored| stored.uid().to_owned());
        let uid = uid.unwrap_or_default();
        let span = info_span!("vmi", ns = key.namespace, name = key.name, uid);
        self.turn_in_span(&key).instrument(span).await;
    }

    async fn turn_in_span(&self, key: &VmiKey) {
        match self.look(key).await {
            Ok(next) => {
                self.parts.queue.done(key);
                if let Some(at) = next {
                    self.parts.queue.add_at(key, instant(at));
                }
            }
            Err(WriteError::Outdated(_)) => {
                debug!("the instance changed meanwhile; deciding anew");
                self.reread(key).await;
            }
            Err(error) => {
                warn!(
                    error = chain(&error),
                    "cannot bring the instance forward; will try again"
                );
                self.parts.queue.failed(key);
            }
        }
    }

    /// Reads an instance anew, which the watch may be late with.
    async fn reread(&self, key: &VmiKey) {
        match self.parts.instances.get(key).await {
            Ok(Some(raw)) if self.is_ours(&raw) => {
                self.parts.store.put(raw);
            }
            Ok(_) => {}
            Err(error) => debug!(error = chain(&error), "cannot read the instance"),
        }
        // It counts as a failure: two writers that undo each other's work must not race.
        self.parts.queue.failed(key);
    }

    /// Looks, plans, acts and writes the status; returns when to look again.
    async fn look(&self, key: &VmiKey) -> Result<Option<Timestamp>, WriteError> {
        let mut record = self.memory.take(key);
        let mut sight = self.observe(key, &mut record).await;
        if let Some(error) = sight.error.take() {
            self.memory.put(key, record);
            return Err(error);
        }
        let now = Timestamp::now();
        let digest = sight.digest;
        record.past.follow(&sight.uid);
        let instance = sight.instance();
        let vmi = match instance {
            Instance::Here(vmi) => Some(vmi),
            Instance::Unsure | Instance::Elsewhere | Instance::Gone => None,
        };
        record
            .past
            .observe(now, sight.launcher_view(), sight.domain_view(), vmi);
        let planned = plan(
            now,
            &Observed {
                launcher: sight.launcher_view(),
                domain: sight.domain_view(),
                past: &record.past,
            },
            &Desired {
                instance,
                digest,
                patience: self.parts.patience,
            },
        );
        debug!(actions = ?planned.actions, death = ?planned.death, "planned");
        let next = planned.requeue_at;
        let is_done = self.act(key, &sight, &mut record, &planned).await;
        self.want_checksums(key, &sight, &mut record);
        let written = self.publish(key, &sight, &record, &planned).await;
        let is_over = sight.attached().is_none() || planned.actions.iter().any(is_clean_up);
        if sight.is_gone() && is_done && is_over {
            self.memory.forget(key, &sight.uid);
        } else {
            self.memory.put(key, record);
        }
        written?;
        Ok(next.or_else(|| (!is_done).then(|| now + RETRY)))
    }
}

fn is_clean_up(action: &Action) -> bool {
    matches!(action, Action::CleanUp { .. })
}

/// Returns a time of the calendar as one of the machine's clock.
fn instant(at: Timestamp) -> Instant {
    let wait = at.duration_since(Timestamp::now());
    Instant::now() + Duration::try_from(wait).unwrap_or_default()
}
