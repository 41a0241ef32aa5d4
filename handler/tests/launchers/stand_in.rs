//! A stand-in for a launcher: it serves the command wire as it is told to and runs no machine.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use handler::config::{HostPaths, Patience};
use handler::key::VmiKey;
use handler::launchers::VmiIdentity;
use proto::cmd::info::cmd_info_server::{CmdInfo, CmdInfoServer};
use proto::cmd::info::{CmdInfoRequest, CmdInfoResponse};
use proto::cmd::v1::cmd_server::{Cmd, CmdServer};
use proto::cmd::v1::*;
use proto::domain::{Domain, LifeCycle};
use proto::notify::v1::notify_client::NotifyClient;
use proto::notify::v1::{DomainEventRequest, K8sEventRequest, Response as Taken};
use std::time::Duration;
use tokio::net::UnixListener;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Request, Response as Answer, Status};

/// A host's folders.
pub(crate) struct Host {
    dir: tempfile::TempDir,
}

impl Host {
    pub(crate) fn new() -> Self {
        let host = Self {
            dir: tempfile::tempdir().unwrap(),
        };
        fs::create_dir(host.paths().pods_dir).unwrap();
        host
    }

    pub(crate) fn paths(&self) -> HostPaths {
        paths(self.dir.path())
    }

    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    /// Makes the folders of a pod.
    pub(crate) fn pod(&self, uid: &str) -> Pod {
        let pod = Pod::at(&self.paths(), uid);
        for volume in ["sockets", "public"] {
            fs::create_dir_all(pod.volume(volume)).unwrap();
        }
        pod
    }
}

pub(crate) fn paths(dir: &Path) -> HostPaths {
    HostPaths {
        pods_dir: dir.join("p"),
        share_dir: dir.join("s"),
        private_dir: dir.join("v"),
        ..HostPaths::default()
    }
}

/// Short times, for tests that wait for them to pass.
pub(crate) fn impatience() -> Patience {
    Patience {
        watchdog: Duration::from_millis(600),
        ..Patience::default()
    }
}

/// A pod's folders.
pub(crate) struct Pod {
    dir: PathBuf,
}

impl Pod {
    /// Returns how many connections to the command socket are open (`/proc/net/unix`).
    pub(crate) fn command_connections(&self) -> usize {
        const LISTENS: &str = "00010000";
        let path = self.command_socket().display().to_string();
        let sockets = fs::read_to_string("/proc/self/net/unix").unwrap();
        let ours = sockets.lines().filter(|line| line.ends_with(&path));
        ours.filter(|line| line.split_whitespace().nth(3) != Some(LISTENS))
            .count()
    }

    pub(crate) fn at(paths: &HostPaths, uid: &str) -> Self {
        Self {
            dir: paths.pods_dir.join(uid),
        }
    }

    pub(crate) fn volume(&self, name: &str) -> PathBuf {
        self.dir.join("volumes/kubernetes.io~empty-dir").join(name)
    }

    pub(crate) fn command_socket(&self) -> PathBuf {
        self.volume("sockets").join("launcher-sock")
    }

    pub(crate) fn notify_socket(&self) -> PathBuf {
        self.volume("public").join("domain-notify-pipe.sock")
    }

    /// Tells the handler of a domain, as a launcher in this pod does.
    pub(crate) async fn tell(&self, domain_json: Vec<u8>) -> Taken {
        let event = DomainEventRequest {
            domain_json,
            status_json: Vec::new(),
            event_type: "MODIFIED".to_owned(),
        };
        self.tell_event(event).await
    }

    pub(crate) async fn tell_event(&self, event: DomainEventRequest) -> Taken {
        let answer = self.handler().await.handle_domain_event(event).await;
        answer.unwrap().into_inner()
    }

    /// Asks the handler to record an event.
    pub(crate) async fn tell_k8s(&self, event: &serde_json::Value) -> Taken {
        let event_json = event.to_string().into_bytes();
        let request = K8sEventRequest { event_json };
        let answer = self.handler().await.handle_k8s_event(request).await;
        answer.unwrap().into_inner()
    }

    pub(crate) async fn handler(&self) -> NotifyClient<Channel> {
        let uri = format!("unix://{}", self.notify_socket().display());
        let channel = Endpoint::from_shared(uri).unwrap().connect().await;
        NotifyClient::new(channel.unwrap())
    }
}

/// Returns the identity of the instance `name` with one pod.
pub(crate) fn vmi(name: &str, pod_uids: &[&str]) -> VmiIdentity {
    VmiIdentity {
        key: VmiKey::new("default", name),
        uid: format!("u-{name}"),
        pod_uids: pod_uids.iter().map(|&uid| uid.to_owned()).collect(),
    }
}

/// Returns a running domain of the instance `name`.
pub(crate) fn running(name: &str) -> Domain {
    let mut domain = Domain::new("default", name, &format!("u-{name}"));
    domain.status.status = LifeCycle::from("Running".to_owned());
    domain
}

/// Returns a domain of the instance `name` that has ended.
pub(crate) fn ended(name: &str) -> Domain {
    let mut domain = running(name);
    domain.status.status = LifeCycle::from("Shutoff".to_owned());
    domain.meta.deletion_timestamp = Some("2026-01-02T03:04:05Z".to_owned());
    domain
}

pub(crate) fn json(domain: &Domain) -> Vec<u8> {
    serde_json::to_vec(domain).unwrap()
}

/// What the stand-in answers, and what it was asked.
#[derive(Debug)]
pub(crate) struct Script {
    pub(crate) versions: Mutex<Vec<u32>>,
    pub(crate) domain: Mutex<String>,
    /// Refuses instances with this message.
    pub(crate) refusal: Mutex<Option<String>>,
    pub(crate) synced: Mutex<Vec<Vec<u8>>>,
}

impl Script {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            versions: Mutex::new(vec![1]),
            domain: Mutex::default(),
            refusal: Mutex::default(),
            synced: Mutex::default(),
        })
    }

    pub(crate) fn with_domain(domain: &Domain) -> Arc<Self> {
        let script = Self::new();
        script.set_domain(domain);
        script
    }

    pub(crate) fn set_domain(&self, domain: &Domain) {
        *self.domain.lock().unwrap() = serde_json::to_string(domain).unwrap();
    }

    pub(crate) fn synced(&self) -> Vec<Vec<u8>> {
        self.synced.lock().unwrap().clone()
    }
}

/// Serves; ends when it is dropped.
pub(crate) struct StandIn {
    serving: JoinHandle<()>,
}

impl StandIn {
    pub(crate) fn serve(pod: &Pod, script: &Arc<Script>) -> Self {
        let listener = UnixListener::bind(pod.command_socket()).unwrap();
        let everybody = fs::Permissions::from_mode(0o777);
        fs::set_permissions(pod.command_socket(), everybody).unwrap();
        let serving = Server::builder()
            .add_service(CmdServer::new(Calls(Arc::clone(script))))
            .add_service(CmdInfoServer::new(Calls(Arc::clone(script))))
            .serve_with_incoming(UnixListenerStream::new(listener));
        Self {
            serving: tokio::spawn(async move { serving.await.unwrap() }),
        }
    }

    pub(crate) async fn wait(&mut self) {
        (&mut self.serving).await.unwrap();
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

struct Calls(Arc<Script>);

#[tonic::async_trait]
impl CmdInfo for Calls {
    async fn info(
        &self,
        _request: Request<CmdInfoRequest>,
    ) -> Result<Answer<CmdInfoResponse>, Status> {
        Ok(Answer::new(CmdInfoResponse {
            supported_cmd_versions: self.0.versions.lock().unwrap().clone(),
        }))
    }
}

fn yes() -> Response {
    Response {
        success: true,
        message: String::new(),
    }
}

/// Makes the service, in which the listed calls are not known, as in a launcher that is older than them.
macro_rules! service {
    ($($unknown:ident($request:ident) -> $answer:ident;)*) => {
        #[tonic::async_trait]
        impl Cmd for Calls {
            $(
                async fn $unknown(
                    &self,
                    _request: Request<$request>,
                ) -> Result<Answer<$answer>, Status> {
                    Err(Status::unimplemented("unknown method"))
                }
            )*

            async fn sync_virtual_machine(
                &self,
                request: Request<VmiRequest>,
            ) -> Result<Answer<Response>, Status> {
                let vmi = request.into_inner().vmi.unwrap_or_default();
                self.0.synced.lock().unwrap().push(vmi.vmi_json);
                Ok(Answer::new(match self.0.refusal.lock().unwrap().clone() {
                    None => yes(),
                    Some(message) => Response { success: false, message },
                }))
            }

            async fn pause_virtual_machine(
                &self,
                _request: Request<VmiRequest>,
            ) -> Result<Answer<Response>, Status> {
                Err(Status::failed_precondition("there is no machine"))
            }

            async fn get_domain(
                &self,
                _request: Request<EmptyRequest>,
            ) -> Result<Answer<DomainResponse>, Status> {
                Ok(Answer::new(DomainResponse {
                    response: Some(yes()),
                    domain: self.0.domain.lock().unwrap().clone(),
                }))
            }

            async fn get_guest_info(
                &self,
                _request: Request<EmptyRequest>,
            ) -> Result<Answer<GuestInfoResponse>, Status> {
                Ok(Answer::new(GuestInfoResponse {
                    response: Some(yes()),
                    guest_info_response: r#"{"guestAgentVersion":"#.to_owned(),
                }))
            }

            async fn ping(
                &self,
                _request: Request<EmptyRequest>,
            ) -> Result<Answer<Response>, Status> {
                Ok(Answer::new(yes()))
            }
        }
    };
}

service! {
    unpause_virtual_machine(VmiRequest) -> Response;
    freeze_virtual_machine(FreezeRequest) -> Response;
    unfreeze_virtual_machine(VmiRequest) -> Response;
    reset_virtual_machine(VmiRequest) -> Response;
    soft_reboot_virtual_machine(VmiRequest) -> Response;
    shutdown_virtual_machine(VmiRequest) -> Response;
    kill_virtual_machine(VmiRequest) -> Response;
    delete_virtual_machine(VmiRequest) -> Response;
    migrate_virtual_machine(MigrationRequest) -> Response;
    sync_migration_target(VmiRequest) -> Response;
    cancel_virtual_machine_migration(VmiRequest) -> Response;
    signal_target_pod_cleanup(VmiRequest) -> Response;
    finalize_virtual_machine_migration(VmiRequest) -> Response;
    hotplug_host_devices(VmiRequest) -> Response;
    get_domain_stats(EmptyRequest) -> DomainStatsResponse;
    get_users(EmptyRequest) -> GuestUserListResponse;
    get_filesystems(EmptyRequest) -> GuestFilesystemsResponse;
    exec(ExecRequest) -> ExecResponse;
    guest_ping(GuestPingRequest) -> GuestPingResponse;
    virtual_machine_memory_dump(MemoryDumpRequest) -> Response;
    get_qemu_version(EmptyRequest) -> QemuVersionResponse;
    sync_virtual_machine_cp_us(VmiRequest) -> Response;
    sync_virtual_machine_memory(VmiRequest) -> Response;
    get_sev_info(EmptyRequest) -> SevInfoResponse;
    get_launch_measurement(VmiRequest) -> LaunchMeasurementResponse;
    inject_launch_secret(InjectLaunchSecretRequest) -> Response;
    get_domain_dirty_rate_stats(EmptyRequest) -> DirtyRateStatsResponse;
    get_screenshot(VmiRequest) -> ScreenshotResponse;
    backup_virtual_machine(BackupRequest) -> Response;
    redefine_checkpoint(RedefineCheckpointRequest) -> RedefineCheckpointResponse;
    get_vm_stats(VmStatsRequest) -> VmStatsResponse;
}
