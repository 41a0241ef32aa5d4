//! A stand-in for a launcher: it serves commands as it is told to and runs no machine.

use std::path::Path;
use std::sync::{Arc, Mutex};

use proto::cmd::info::cmd_info_server::{CmdInfo, CmdInfoServer};
use proto::cmd::info::{CmdInfoRequest, CmdInfoResponse};
use proto::cmd::v1::cmd_server::{Cmd, CmdServer};
use proto::cmd::v1::*;
use tokio::net::UnixListener;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::Server;
use tonic::{Request, Response as Answer, Status};

/// What the stand-in answers, and what it was asked.
#[derive(Debug, Default)]
pub(crate) struct Script {
    pub(crate) domain: String,
    /// Says no to every change with this message.
    pub(crate) refusal: Option<String>,
    /// Does not know soft reboots.
    pub(crate) is_old: bool,
    /// Gives no answer to questions for counters and file systems.
    pub(crate) is_silent: bool,
    pub(crate) stats: String,
    pub(crate) filesystems: String,
    pub(crate) asked: Mutex<Vec<String>>,
}

/// Serves; ends when it is dropped.
#[derive(Debug)]
pub(crate) struct StandIn(JoinHandle<()>);

impl StandIn {
    pub(crate) fn serve(socket: &Path, script: &Arc<Script>) -> Self {
        let listener = UnixListener::bind(socket).unwrap();
        let serving = Server::builder()
            .add_service(CmdServer::new(Calls(Arc::clone(script))))
            .add_service(CmdInfoServer::new(Calls(Arc::clone(script))))
            .serve_with_incoming(UnixListenerStream::new(listener));
        Self(tokio::spawn(async move { serving.await.unwrap() }))
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        self.0.abort();
    }
}

struct Calls(Arc<Script>);

impl Calls {
    fn change(&self, call: String) -> Result<Answer<Response>, Status> {
        self.0.asked.lock().unwrap().push(call);
        Ok(Answer::new(match &self.0.refusal {
            None => yes(),
            Some(message) => Response {
                success: false,
                message: message.clone(),
            },
        }))
    }

    /// The domain as the changes so far have left it.
    fn domain(&self) -> String {
        let asked = self.0.asked.lock().unwrap();
        let mut asked = asked.iter().rev();
        let domain = &self.0.domain;
        let last = asked.find(|call| call.ends_with("pause_virtual_machine"));
        match last.map(String::as_str) {
            None => domain.clone(),
            Some("pause_virtual_machine") => domain.replace("Running", "Paused"),
            Some(_) => domain.replace("Paused", "Running"),
        }
    }

    async fn speak(&self) {
        if self.0.is_silent {
            std::future::pending::<()>().await;
        }
    }
}

fn yes() -> Response {
    Response {
        success: true,
        message: String::new(),
    }
}

#[tonic::async_trait]
impl CmdInfo for Calls {
    async fn info(
        &self,
        _request: Request<CmdInfoRequest>,
    ) -> Result<Answer<CmdInfoResponse>, Status> {
        Ok(Answer::new(CmdInfoResponse {
            supported_cmd_versions: vec![1],
        }))
    }
}

/// Makes the service from the changes that are written down, and the calls that are not known.
macro_rules! service {
    (
        changes { $($change:ident;)* }
        unknown { $($unknown:ident($request:ident) -> $answer:ident;)* }
    ) => {
        #[tonic::async_trait]
        impl Cmd for Calls {
            $(
                async fn $change(
                    &self,
                    _request: Request<VmiRequest>,
                ) -> Result<Answer<Response>, Status> {
                    self.change(stringify!($change).to_owned())
                }
            )*

            $(
                async fn $unknown(
                    &self,
                    _request: Request<$request>,
                ) -> Result<Answer<$answer>, Status> {
                    Err(Status::unimplemented("unknown method"))
                }
            )*

            async fn soft_reboot_virtual_machine(
                &self,
                _request: Request<VmiRequest>,
            ) -> Result<Answer<Response>, Status> {
                if self.0.is_old {
                    return Err(Status::unimplemented("unknown method"));
                }
                self.change("soft_reboot_virtual_machine".to_owned())
            }

            async fn freeze_virtual_machine(
                &self,
                request: Request<FreezeRequest>,
            ) -> Result<Answer<Response>, Status> {
                let seconds = request.into_inner().unfreeze_timeout_seconds;
                self.change(format!("freeze for {seconds}"))
            }

            async fn get_domain(
                &self,
                _request: Request<EmptyRequest>,
            ) -> Result<Answer<DomainResponse>, Status> {
                Ok(Answer::new(DomainResponse {
                    response: Some(yes()),
                    domain: self.domain(),
                }))
            }

            async fn get_domain_stats(
                &self,
                _request: Request<EmptyRequest>,
            ) -> Result<Answer<DomainStatsResponse>, Status> {
                self.speak().await;
                Ok(Answer::new(DomainStatsResponse {
                    response: Some(yes()),
                    domain_stats: self.0.stats.clone(),
                }))
            }

            async fn get_filesystems(
                &self,
                _request: Request<EmptyRequest>,
            ) -> Result<Answer<GuestFilesystemsResponse>, Status> {
                self.speak().await;
                Ok(Answer::new(GuestFilesystemsResponse {
                    response: Some(yes()),
                    guest_filesystems_response: self.0.filesystems.clone(),
                }))
            }

            async fn get_users(
                &self,
                _request: Request<EmptyRequest>,
            ) -> Result<Answer<GuestUserListResponse>, Status> {
                Ok(Answer::new(GuestUserListResponse {
                    response: Some(yes()),
                    guest_user_list_response: r#"[{"userName":"ada"}]"#.to_owned(),
                }))
            }

            async fn get_guest_info(
                &self,
                _request: Request<EmptyRequest>,
            ) -> Result<Answer<GuestInfoResponse>, Status> {
                Ok(Answer::new(GuestInfoResponse {
                    response: Some(yes()),
                    guest_info_response: r#"{"hostname":"engine"}"#.to_owned(),
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
    changes {
        pause_virtual_machine;
        unpause_virtual_machine;
        unfreeze_virtual_machine;
        reset_virtual_machine;
        sync_virtual_machine;
        shutdown_virtual_machine;
        kill_virtual_machine;
        delete_virtual_machine;
        sync_migration_target;
        cancel_virtual_machine_migration;
        signal_target_pod_cleanup;
        finalize_virtual_machine_migration;
        hotplug_host_devices;
        sync_virtual_machine_cp_us;
        sync_virtual_machine_memory;
    }
    unknown {
        migrate_virtual_machine(MigrationRequest) -> Response;
        exec(ExecRequest) -> ExecResponse;
        guest_ping(GuestPingRequest) -> GuestPingResponse;
        virtual_machine_memory_dump(MemoryDumpRequest) -> Response;
        get_qemu_version(EmptyRequest) -> QemuVersionResponse;
        get_sev_info(EmptyRequest) -> SevInfoResponse;
        get_launch_measurement(VmiRequest) -> LaunchMeasurementResponse;
        inject_launch_secret(InjectLaunchSecretRequest) -> Response;
        get_domain_dirty_rate_stats(EmptyRequest) -> DirtyRateStatsResponse;
        get_screenshot(VmiRequest) -> ScreenshotResponse;
        backup_virtual_machine(BackupRequest) -> Response;
        redefine_checkpoint(RedefineCheckpointRequest) -> RedefineCheckpointResponse;
        get_vm_stats(VmStatsRequest) -> VmStatsResponse;
    }
}
