//! Tasks that wait for what happens to containers.

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::process::Child;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::LifecycleHandler;
use rustix::process::Signal;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use crate::pods::observed::Probed;
use crate::pods::probes::{self, Subject};
use crate::pods::volumes::on_disk;
use crate::sandbox::container::Container;
use crate::sandbox::process::ProcessId;

/// Longest time that a hook after the start may take.
const HOOK_MAX: Duration = Duration::from_secs(3600);
/// After this time notes that could not be read are read again.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Something that a worker hears of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Happening {
    /// A container's run has ended.
    Ended { container: String, run: u32 },
    /// Probes have changed their mind.
    Probed {
        container: String,
        run: u32,
        probed: Probed,
    },
}

/// The tasks of a pod. They end with it.
pub(super) struct Minders {
    tell: mpsc::Sender<Happening>,
    probing: HashMap<String, AbortHandle>,
    all: Vec<AbortHandle>,
}

impl Minders {
    pub(super) fn new(tell: mpsc::Sender<Happening>) -> Self {
        Self {
            tell,
            probing: HashMap::new(),
            all: Vec::new(),
        }
    }

    /// Waits for the end of a run, whose keeper may be our child.
    pub(super) fn wait_for_end(
        &mut self,
        container: &str,
        run: u32,
        keeper: ProcessId,
        child: Option<Child>,
    ) {
        let tell = self.tell.clone();
        let container = container.to_owned();
        // Not aborted with the others: a child must be waited for whatever becomes of the pod.
        tokio::spawn(async move {
            if let Err(error) = gone(&keeper).await {
                tracing::warn!(container, %error, "cannot wait for the container's keeper");
            }
            if let Some(mut child) = child {
                drop(on_disk(move || child.wait()).await);
            }
            drop(tell.send(Happening::Ended { container, run }).await);
        });
    }

    /// Probes a run until it is stopped.
    pub(super) fn probe(&mut self, run: u32, subject: Subject) {
        let tell = self.tell.clone();
        let container = subject.container.name.clone();
        let name = container.clone();
        let task = tokio::spawn(probes::watch(subject, move |probed| {
            let (tell, container) = (tell.clone(), name.clone());
            let told = async move {
                let happening = Happening::Probed {
                    container,
                    run,
                    probed,
                };
                drop(tell.send(happening).await);
            };
            Box::pin(told) as Pin<Box<dyn Future<Output = ()> + Send>>
        }));
        self.probing.insert(container, task.abort_handle());
    }

    /// Probes a container no more.
    pub(super) fn stop_probing(&mut self, container: &str) {
        if let Some(task) = self.probing.remove(container) {
            task.abort();
        }
    }

    /// Tells something again a little later.
    pub(super) fn look_again(&mut self, happening: Happening) {
        let tell = self.tell.clone();
        tokio::spawn(async move {
            tokio::time::sleep(LOOK_AGAIN).await;
            drop(tell.send(happening).await);
        });
    }

    /// Runs a hook in a container, then asks it to end.
    pub(super) fn stop_after(
        &mut self,
        container: &str,
        hook: LifecycleHandler,
        ferrovirt: PathBuf,
        folder: PathBuf,
        kill_at: Timestamp,
    ) {
        let container = container.to_owned();
        let left = kill_at.duration_since(Timestamp::now());
        let left = Duration::try_from(left).unwrap_or_default();
        self.all.retain(|task| !task.is_finished());
        let task = tokio::spawn(async move {
            run_hook(&container, hook, ferrovirt, folder.clone(), left).await;
            signal(folder, Signal::TERM).await;
        });
        self.all.push(task.abort_handle());
    }
}

impl Minders {
    /// Runs a hook in a container that has just started. One that fails ends the container.
    pub(super) fn run_after_start(
        &mut self,
        container: &str,
        hook: LifecycleHandler,
        ferrovirt: PathBuf,
        folder: PathBuf,
    ) {
        let container = container.to_owned();
        self.all.retain(|task| !task.is_finished());
        let task = tokio::spawn(async move {
            if !run_hook(&container, hook, ferrovirt, folder.clone(), HOOK_MAX).await {
                signal(folder, Signal::KILL).await;
            }
        });
        self.all.push(task.abort_handle());
    }
}

/// Runs a hook, no longer than this, and returns whether it did what it should. Hooks that ask web servers are left out.
async fn run_hook(
    container: &str,
    hook: LifecycleHandler,
    ferrovirt: PathBuf,
    folder: PathBuf,
    limit: Duration,
) -> bool {
    if let Some(sleep) = hook.sleep {
        let seconds = u64::try_from(sleep.seconds).unwrap_or(0);
        tokio::time::sleep(Duration::from_secs(seconds).min(limit)).await;
    }
    let Some(exec) = hook.exec else {
        if hook.http_get.is_some() || hook.tcp_socket.is_some() {
            tracing::warn!(
                container,
                "only exec and sleep hooks are run; another is left out"
            );
        }
        return true;
    };
    let run = probes::run_in(ferrovirt, folder, exec.command.unwrap_or_default(), limit).await;
    let is_fine = run.as_ref().is_ok_and(std::process::ExitStatus::success);
    if !is_fine {
        tracing::warn!(container, ?run, "hook failed");
    }
    is_fine
}

impl Drop for Minders {
    fn drop(&mut self) {
        for task in self.probing.values().chain(&self.all) {
            task.abort();
        }
    }
}

/// Sends a container a signal.
pub(super) async fn signal(folder: PathBuf, signal: Signal) {
    let at = folder.clone();
    let sent = on_disk(move || Container::at(folder).signal(signal)).await;
    if let Err(error) = sent {
        tracing::warn!(container = %at.display(), ?signal, %error, "cannot signal the container");
    }
}

/// Returns once a process has ended.
#[expect(
    deprecated,
    reason = "the new constructor is unsafe for descriptors that may be closed by others; this one is owned"
)]
async fn gone(process: &ProcessId) -> io::Result<()> {
    let Ok(held) = process.hold() else {
        return Ok(());
    };
    let end = AsyncFd::with_interest(held, Interest::READABLE)?;
    end.readable().await.map(drop)
}
