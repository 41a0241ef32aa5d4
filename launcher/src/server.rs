//! The launcher in its pod: it takes commands from the node agent, tells it what happens, and ends after
//! its machine.
//!
//! ```text
//!   starting --folders, init socket, self-ping, rename--> ready --sync--> a machine runs
//!      signal before there is a machine: end                                   |
//!      no sync in time: failure                first signal: the agent is told, the grace period begins
//!                                              grace period over: kill         |
//!                       end <-- the agent has taken the final event, or 15 s <-- machine has ended
//! ```

mod commands;
mod guest;
mod stats;

use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use nix::sys::stat::{Mode, umask};
use proto::cmd::info::cmd_info_server::CmdInfoServer;
use proto::cmd::v1::EmptyRequest;
use proto::cmd::v1::cmd_client::CmdClient;
use proto::cmd::v1::cmd_server::CmdServer;
use tokio::net::UnixListener;
use tokio::runtime;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::{Endpoint, Server};

use self::commands::{Commands, Info};
use crate::agent::Intervals;
use crate::cli::{AgentArgs, Cli};
use crate::convert::Environment;
use crate::domain::{DomainHandle, Published, Setup, Stage};
use crate::host;
use crate::host_devices;
use crate::monitor::{self, EndSignals};
use crate::notify::Notifier;
use crate::pod::{PodError, PodPaths};

/// Seconds between the pod's end being asked for and the pulled plug, when the controller says nothing.
const DEFAULT_GRACE_SECONDS: u64 = 30;
/// How long the server may take until it answers.
const SELF_PING_TIMEOUT: Duration = Duration::from_secs(15);
/// How long the node agent has to take the final event.
const FINAL_EVENT_TIMEOUT: Duration = Duration::from_secs(15);
/// How long the node agent has to take note that the pod is to end, before the launcher presses the power
/// button itself.
const MARK_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the node agent has to forget the machine after that.
const DELETE_TIMEOUT: Duration = Duration::from_secs(1);
/// How long calls have that are under way at the end.
const STOP_TIMEOUT: Duration = Duration::from_secs(1);
/// A grace period that never ends: a century.
const ENDLESS: Duration = Duration::from_secs(100 * 365 * 86_400);
/// Threads for calls that wait for the guest's agent or for the machine.
const BLOCKING_THREADS_MAX: usize = 16;
/// How long such a thread outlives its call; idle threads are memory.
const BLOCKING_THREAD_LIFE: Duration = Duration::from_secs(1);

/// Why the launcher did not serve to its machine's end.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The pod's folders cannot be used.
    #[error(transparent)]
    Pod(#[from] PodError),
    /// The host has no threads, signals or runtime to give.
    #[error("start the launcher")]
    Host(#[from] io::Error),
    /// The command socket cannot be used.
    #[error("listen on {}", path.display())]
    Socket {
        /// The socket.
        path: PathBuf,
        /// The host's answer.
        source: io::Error,
    },
    /// The server does not answer.
    #[error("serve commands on {}: no answer within {} s", .0.display(), SELF_PING_TIMEOUT.as_secs())]
    Silent(PathBuf),
    /// Nobody wants a machine.
    #[error("wait for an instance: none was asked for within {} s (--qemu-timeout): is virt-handler running on this node?", .0.as_secs())]
    NoInstance(Duration),
    /// The server has ended by itself.
    #[error("serve commands")]
    Serve(#[from] tonic::transport::Error),
}

/// Serves until the machine has ended, or the launcher is told to end before there was one.
///
/// # Errors
///
/// Fails when the pod cannot be served in, or no instance came in time. With `--keep-after-failure` a
/// failed launcher waits for a signal first.
pub fn run(cli: &Cli) -> Result<(), ServerError> {
    let args = &cli.cluster;
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    let (ns, name, uid) = (text(&args.namespace), text(&args.name), text(&args.uid));
    let _span = tracing::info_span!("vmi", ns, name, uid).entered();
    let paths = args.dirs.paths();
    monitor::release_on_panic(&paths);
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS_MAX)
        .thread_keep_alive(BLOCKING_THREAD_LIFE)
        .build()?;
    let done = runtime.block_on(async {
        let mut signals = EndSignals::catch()?;
        monitor::reap_orphans()?;
        let done = serve(cli, &paths, &mut signals).await;
        if let Err(error) = &done
            && args.keep_after_failure
        {
            let error = vmm::error_chain(error);
            tracing::error!(
                error,
                "launcher has failed and stays until it gets a signal"
            );
            signals.next().await;
        }
        done
    });
    // A call that waits for the guest must not hold the end up.
    runtime.shutdown_background();
    paths.release_container_disks();
    done
}

async fn serve(cli: &Cli, paths: &PodPaths, signals: &mut EndSignals) -> Result<(), ServerError> {
    let args = &cli.cluster;
    // Sockets and disks are for the node agent too, which may be another user.
    umask(Mode::empty());
    paths.make()?;
    if let Some(uid) = args.uid.as_deref().filter(|uid| !uid.is_empty()) {
        paths.make_console_dir(uid)?;
    }
    let (domain, warnings) = DomainHandle::start(Setup {
        paths: paths.clone(),
        image_volume: args.image_volume,
        environment: Environment {
            accel: cli.accel,
            bios: cli.bios.clone().or_else(host::bios_image),
            memory_bytes: host::memory_bytes(),
            agent_socket: None,
            strict: true,
            device_variables: host_devices::variables(std::env::vars_os()),
        },
        intervals: intervals(&args.agent),
    })?;
    let (notifier, acknowledged) = Notifier::new(paths.notify_socket(), domain.watch(), warnings);
    let notifying = tokio::spawn(notifier.run());
    let mut server = CommandServer::start(paths, domain.clone()).await?;
    tracing::info!(socket = %paths.command_socket().display(), "launcher is ready");
    let grace = Duration::from_secs(args.grace_period_seconds.unwrap_or(DEFAULT_GRACE_SECONDS));
    let life = Life {
        domain: &domain,
        acknowledged: &acknowledged,
        grace,
        sync_timeout: args.qemu_timeout,
    };
    life.watch_over(&mut server, signals).await?;
    let final_revision = domain.published().revision;
    take_leave(&domain, acknowledged, final_revision).await;
    notifying.abort();
    server.stop().await;
    Ok(())
}

fn intervals(args: &AgentArgs) -> Intervals {
    Intervals {
        sys: args.qemu_agent_sys_interval,
        filesystem: args.qemu_agent_file_interval,
        users: args.qemu_agent_user_interval,
        version: args.qemu_agent_version_interval,
        fsfreeze: args.qemu_fsfreeze_status_interval,
    }
}

/// Waits until the node agent knows how the machine ended and has forgotten it, for as long as is sane.
async fn take_leave(
    domain: &DomainHandle,
    mut acknowledged: watch::Receiver<u64>,
    final_revision: u64,
) {
    let known = acknowledged.wait_for(|taken| *taken >= final_revision);
    if final_revision > 0 && timeout(FINAL_EVENT_TIMEOUT, known).await.is_err() {
        tracing::warn!("node agent was not told of the machine's end");
        return;
    }
    let mut published = domain.watch();
    let deleted = published.wait_for(|published| published.stage != Stage::Ended);
    drop(timeout(DELETE_TIMEOUT, deleted).await);
}

/// The command socket and who answers on it.
struct CommandServer {
    stop: oneshot::Sender<()>,
    serving: JoinHandle<Result<(), tonic::transport::Error>>,
    /// Becomes true with the first instance that is asked for, whether it can run or not.
    synced: watch::Receiver<bool>,
}

impl CommandServer {
    /// Serves, and tells by renaming the socket that it does.
    async fn start(paths: &PodPaths, domain: DomainHandle) -> Result<Self, ServerError> {
        let (starting, ready) = (paths.init_command_socket(), paths.command_socket());
        let failed = |path: PathBuf| move |source| ServerError::Socket { path, source };
        for path in [&starting, &ready] {
            match fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(failed(path.clone())(error));
                }
                _ => {}
            }
        }
        let listener = UnixListener::bind(&starting).map_err(failed(starting.clone()))?;
        let (first_sync, synced) = watch::channel(false);
        let (stop, stopped) = oneshot::channel();
        let serving = Server::builder()
            .add_service(CmdServer::new(Commands::new(domain, first_sync)))
            .add_service(CmdInfoServer::new(Info))
            .serve_with_incoming_shutdown(UnixListenerStream::new(listener), async {
                // A server that is dropped stops too.
                drop(stopped.await);
            });
        let serving = tokio::spawn(serving);
        let ping = timeout(SELF_PING_TIMEOUT, self_ping(&starting)).await;
        if !matches!(ping, Ok(true)) {
            return Err(ServerError::Silent(starting));
        }
        fs::rename(&starting, &ready).map_err(failed(ready))?;
        Ok(Self {
            stop,
            serving,
            synced,
        })
    }

    async fn stop(self) {
        // A server that has ended needs no stopping.
        let _ended_already = self.stop.send(());
        drop(timeout(STOP_TIMEOUT, self.serving).await);
    }
}

async fn self_ping(socket: &std::path::Path) -> bool {
    let uri = format!("unix://{}", socket.display());
    let Ok(endpoint) = Endpoint::from_shared(uri) else {
        return false;
    };
    let Ok(channel) = endpoint.connect().await else {
        return false;
    };
    let answer = CmdClient::new(channel).ping(EmptyRequest {}).await;
    answer.is_ok_and(|answer| answer.into_inner().success)
}

/// What the launcher's life depends on.
struct Life<'a> {
    domain: &'a DomainHandle,
    acknowledged: &'a watch::Receiver<u64>,
    grace: Duration,
    sync_timeout: Duration,
}

impl Life<'_> {
    /// Returns once there is nothing left to serve: the machine has ended, or there will be none.
    async fn watch_over(
        &self,
        server: &mut CommandServer,
        signals: &mut EndSignals,
    ) -> Result<(), ServerError> {
        let mut published = self.domain.watch();
        let sync_deadline = Instant::now() + self.sync_timeout;
        let mut kill_at: Option<Instant> = None;
        loop {
            let is_wanted = *server.synced.borrow();
            tokio::select! {
                ended = published.wait_for(has_ended) => {
                    if ended.is_err() {
                        tracing::error!("the thread that owns the machine is gone");
                    }
                    return Ok(());
                }
                () = signals.next(), if kill_at.is_none() => match self.asked_to_end().await {
                    Some(deadline) => kill_at = Some(deadline),
                    None => return Ok(()),
                },
                () = sleep_until(kill_at.unwrap_or(sync_deadline)), if kill_at.is_some() => {
                    tracing::warn!("guest did not power off in its grace period");
                    self.kill().await;
                    return Ok(());
                }
                () = sleep_until(sync_deadline), if !is_wanted && kill_at.is_none() => {
                    return Err(ServerError::NoInstance(self.sync_timeout));
                }
                _ = server.synced.changed(), if !is_wanted => {}
                served = &mut server.serving => {
                    return match served {
                        Ok(Err(error)) => Err(ServerError::Serve(error)),
                        _ => Ok(()),
                    };
                }
            }
        }
    }

    /// Returns when the guest's time is up; `None` when there is nothing to wait for.
    async fn asked_to_end(&self) -> Option<Instant> {
        let Published { domain, stage, .. } = self.domain.published();
        tracing::info!(grace_s = self.grace.as_secs(), "launcher is asked to end");
        if stage != Stage::Alive {
            return None;
        }
        let wanted_grace = domain
            .and_then(|domain| domain.spec.metadata.kubevirt.grace_period.clone())
            .map_or(0, |grace| grace.deletion_grace_period_seconds);
        if self.grace.is_zero() || wanted_grace == 0 {
            self.kill().await;
            return None;
        }
        if let Err(error) = self.domain.mark_for_shutdown().await {
            tracing::warn!(%error, "node agent is not told that the pod is to end");
        }
        self.press_button_unless_noted();
        let now = Instant::now();
        now.checked_add(self.grace)
            .or_else(|| now.checked_add(ENDLESS))
    }

    /// A node agent that is away cannot have the guest shut down in its grace period.
    fn press_button_unless_noted(&self) {
        let domain = self.domain.clone();
        let revision = domain.published().revision;
        let mut acknowledged = self.acknowledged.clone();
        tokio::spawn(async move {
            let noted = acknowledged.wait_for(|taken| *taken >= revision);
            if timeout(MARK_TIMEOUT, noted).await.is_err() {
                tracing::warn!("node agent is away: the launcher presses the power button");
                if let Err(error) = domain.shutdown().await {
                    tracing::warn!(%error, "guest is not asked to power off");
                }
            }
        });
    }

    async fn kill(&self) {
        if let Err(error) = self.domain.kill().await {
            tracing::error!(%error, "machine could not be killed");
        }
    }
}

fn has_ended(published: &Published) -> bool {
    matches!(published.stage, Stage::Ended | Stage::Deleted)
}
