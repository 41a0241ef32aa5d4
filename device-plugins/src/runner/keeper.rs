//! Keeps a plugin served and registered.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use proto::deviceplugin::v1beta1::device_plugin_server::DevicePluginServer;
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep_until, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tonic::transport::Server;

use super::backoff::{Backoff, LONGEST};
use super::connection::{Acceptor, Connection};
use super::fault::Fault;
use super::register::register;
use super::service::Service;
use super::socket::{Mark, OwnSocket, socket_name};
use super::step::{Past, Seen, Step, Taken, plan};
use super::streams::Streams;
use super::{PluginSetup, Registration};
use crate::resource::ResourceName;

/// Calls of one connection at a time: the list, and as many allocations as pods may start at once.
const STREAMS_MAX: u32 = 32;
/// Time for the empty list to go out.
const LAST_LIST: Duration = Duration::from_secs(1);

/// Runs a plugin.
pub(super) async fn run(setup: PluginSetup) {
    let (streams, seen_streams) = watch::channel(Streams::default());
    let (acceptor, accepted) = Acceptor::new();
    let mut keeper = Keeper {
        socket: socket_name(&setup.resource),
        resource: setup.resource.clone(),
        folder: setup.plugin_dir,
        folder_changed: setup.folder_changed,
        registration: setup.registration,
        streams: seen_streams,
        acceptor,
        own: None,
        served_at: None,
        past: Past::default(),
        serving: Backoff::default(),
        asking: Backoff::default(),
        state: None,
        told: None,
    };
    let service = Service {
        resource: setup.resource,
        offer: setup.offer,
        giver: setup.giver,
        streams,
        stop: setup.stop.clone(),
    };
    let mut server = serve(service, accepted, setup.stop.clone());
    setup.stop.run_until_cancelled(keeper.keep()).await;
    drop(timeout(LAST_LIST, &mut server).await);
    keeper.leave();
}

/// Serves connections until stopped, and then until their calls have ended.
fn serve(
    service: Service,
    accepted: mpsc::Receiver<Connection>,
    stop: CancellationToken,
) -> AbortOnDropHandle<()> {
    let resource = service.resource.clone();
    let connections = ReceiverStream::new(accepted);
    let server = Server::builder()
        .max_concurrent_streams(STREAMS_MAX)
        .add_service(DevicePluginServer::new(service));
    AbortOnDropHandle::new(tokio::spawn(async move {
        let served = server.serve_with_incoming_shutdown(
            futures::StreamExt::map(connections, Ok::<_, io::Error>),
            stop.cancelled_owned(),
        );
        if let Err(error) = Box::pin(served).await {
            tracing::error!(%resource, %error, "a device plugin is not served any more");
        }
    }))
}

/// Waits for a change; for ever, when nobody is left to make one.
async fn changed<T>(of: &mut watch::Receiver<T>) {
    if of.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Keeps one plugin.
struct Keeper {
    resource: ResourceName,
    folder: PathBuf,
    socket: String,
    folder_changed: watch::Receiver<u64>,
    registration: watch::Sender<Registration>,
    streams: watch::Receiver<Streams>,
    acceptor: Acceptor,
    own: Option<OwnSocket>,
    served_at: Option<Instant>,
    past: Past,
    /// Waits between two makings of the socket.
    serving: Backoff,
    /// Waits between two questions to the same kubelet.
    asking: Backoff,
    /// What was told last.
    state: Option<Registration>,
    /// The fault that was logged and lasts.
    told: Option<String>,
}

impl Keeper {
    async fn keep(&mut self) {
        loop {
            let seen = self.look();
            match plan(&seen, &self.past) {
                Step::Serve => self.serve(&seen).await,
                Step::Register(kubelet) => self.register(kubelet, seen.streams).await,
                Step::Doubt => self.doubt(seen),
                Step::AwaitKubelet => self.await_kubelet().await,
                Step::Wait(until) => self.wait(until).await,
            }
        }
    }

    /// Looks at the folder. What changes after this wakes [`wait`](Self::wait).
    fn look(&mut self) -> Seen {
        self.folder_changed.mark_unchanged();
        Seen {
            is_served: self.own.as_ref().is_some_and(OwnSocket::is_there),
            kubelet: Mark::of_kubelet(&self.folder),
            streams: *self.streams.borrow_and_update(),
            now: Instant::now(),
        }
    }

    async fn wait(&mut self, until: Option<Instant>) {
        let time = async {
            match until {
                Some(until) => sleep_until(until.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = changed(&mut self.folder_changed) => {}
            () = changed(&mut self.streams) => {}
            () = time => {}
        }
    }

    /// Makes the own socket. One that is taken away again and again is made again ever more slowly.
    async fn serve(&mut self, seen: &Seen) {
        let now = seen.now;
        let served_at = self.served_at.take();
        if served_at.is_some_and(|at| now - at > LONGEST) {
            self.serving.reset();
        }
        self.own = None;
        let bound = OwnSocket::bind(&self.folder, &self.socket, self.acceptor.clone());
        self.past.serve_at = Some(now + self.serving.next());
        self.past.served_beside = seen.kubelet;
        match bound {
            Ok(own) => {
                self.own = Some(own);
                self.served_at = Some(now);
            }
            Err(_) if !self.folder.is_dir() => self.await_folder().await,
            Err(source) => self.fail(&Fault::Serve {
                path: self.folder.join(&self.socket),
                source,
            }),
        }
    }

    async fn await_kubelet(&mut self) {
        self.past = Past {
            serve_at: self.past.serve_at,
            served_beside: self.past.served_beside,
            ..Past::default()
        };
        self.tell(Registration::Waiting);
        self.wait(None).await;
    }

    /// There is no folder: whoever tells of changes tells when there is.
    async fn await_folder(&mut self) {
        self.past.serve_at = None;
        self.tell(Registration::Waiting);
        self.wait(None).await;
    }

    async fn register(&mut self, kubelet: Mark, streams: Streams) {
        if self.past.asked != Some(kubelet) {
            self.asking.reset();
        }
        self.past.asked = Some(kubelet);
        self.past.taken = None;
        let answer = tokio::select! {
            answer = register(&self.folder, &self.resource, &self.socket) => answer,
            // Whoever was asked is not there any more.
            () = replaced(&mut self.folder_changed, &self.folder, kubelet) => return,
        };
        let now = Instant::now();
        self.past.ask_at = Some(now + self.asking.next());
        match answer {
            Ok(()) => {
                self.past.taken = Some(Taken {
                    opened_before: streams.opened,
                    at: now,
                });
                self.tell(Registration::Registered);
            }
            Err(fault) => self.fail(&fault),
        }
    }

    /// Takes it that the kubelet has forgotten the plugin, and asks again soon.
    fn doubt(&mut self, seen: Seen) {
        let Some(taken) = self.past.taken.take() else {
            return;
        };
        let was_asked = seen.streams.opened > taken.opened_before;
        if was_asked && seen.now - taken.at > LONGEST {
            self.asking.reset();
        }
        self.past.ask_at = Some(seen.now + self.asking.next());
        if was_asked {
            tracing::debug!(resource = %self.resource, "the kubelet does not follow the device plugin any more");
        } else {
            self.fail(&Fault::Unasked);
        }
    }

    /// Tells of a fault unless it may pass by itself or was told.
    fn fail(&mut self, fault: &Fault) {
        if fault.may_pass() && self.asking.is_young() {
            return;
        }
        let reason = fault.to_string();
        if self.told.as_ref() != Some(&reason) {
            let resource = &self.resource;
            tracing::warn!(%resource, reason, "device plugin is not registered; it is tried again");
            self.told = Some(reason.clone());
        }
        self.tell(Registration::Failed(reason));
    }

    fn tell(&mut self, state: Registration) {
        if self.state.as_ref() == Some(&state) {
            return;
        }
        let resource = &self.resource;
        match state {
            Registration::Waiting => {
                let folder = self.folder.display();
                tracing::info!(%resource, %folder, "no kubelet.sock: the device plugin waits for the kubelet to run");
            }
            Registration::Registered if self.told.take().is_some() => {
                tracing::info!(%resource, "device plugin is registered: all is well again");
            }
            Registration::Registered => tracing::info!(%resource, "device plugin is registered"),
            Registration::Failed(_) => {}
        }
        self.registration.send_replace(state.clone());
        self.state = Some(state);
    }

    /// Removes the own socket.
    fn leave(&mut self) {
        let removed = self.own.take().map_or(Ok(()), OwnSocket::remove);
        if let Err(error) = removed {
            let (resource, socket) = (&self.resource, &self.socket);
            tracing::warn!(%resource, socket, %error, "cannot remove the socket of a device plugin");
        }
    }
}

/// Waits until the kubelet's socket is another or gone.
async fn replaced(folder_changed: &mut watch::Receiver<u64>, folder: &Path, kubelet: Mark) {
    while Mark::of_kubelet(folder) == Some(kubelet) {
        changed(folder_changed).await;
    }
}
