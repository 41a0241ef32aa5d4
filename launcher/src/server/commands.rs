//! The calls of the command service (`kubevirt.cmd.v1.Cmd`): what each means for the domain.
//!
//! A call that cannot be done is answered with `success: false` and the reason; one that no machine of
//! ours can ever do, with the gRPC status `Unimplemented`, which clients take for an older launcher.

mod vm_stats;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use api::Vmi;
use proto::cmd::info::cmd_info_server::CmdInfo;
use proto::cmd::info::{CmdInfoRequest, CmdInfoResponse};
use proto::cmd::v1 as wire;
use proto::cmd::v1::cmd_server::Cmd;
use proto::cmd::v1::{EmptyRequest, VmiRequest};
use proto::domain::StateChangeReason;
use tokio::sync::watch;
use tonic::{Request, Response, Status};

use super::guest;
use super::stats::domain_stats;
use crate::agent::{Agent, AgentError, AgentReport, ExecOutcome};
use crate::domain::{DomainError, DomainHandle, Wish};

/// The only version of the command service there is.
const COMMAND_VERSION: u32 = 1;
/// Longest time that a caller may let a program in the guest, or a sign of life, take.
const GUEST_CALL_MAX: Duration = Duration::from_secs(3600);
/// Time for a sign of life when the caller says nothing.
const GUEST_PING_DEFAULT: Duration = Duration::from_secs(5);

/// Answers commands.
#[derive(Clone)]
pub(super) struct Commands {
    domain: DomainHandle,
    /// Becomes true with the first instance that is asked for.
    first_sync: watch::Sender<bool>,
}

/// Why a call could not be done.
#[derive(Debug, thiserror::Error)]
enum CallError {
    /// The machine did not do it.
    #[error(transparent)]
    Domain(#[from] DomainError),
    /// The guest's agent did not do it.
    #[error(transparent)]
    Agent(#[from] AgentError),
    /// The guest's agent did not say it.
    #[error(transparent)]
    Figure(#[from] Arc<AgentError>),
    /// There is no agent to ask.
    #[error("ask the guest agent: the machine does not run")]
    NoAgent,
    /// The instance cannot be read.
    #[error("read the instance")]
    Instance(#[from] serde_json::Error),
    /// The call carries no instance.
    #[error("read the instance: the call carries none")]
    NoInstance,
    /// The guest does not react because it is paused.
    #[error("ask the guest agent: the machine is paused ({0})")]
    Stopped(StateChangeReason),
    /// The launcher ends.
    #[error("ask the guest agent: the launcher ends")]
    Ending,
}

type Answer<T> = Result<Response<T>, Status>;

/// The result of a call as clients expect it.
fn outcome(done: Result<(), CallError>) -> wire::Response {
    match done {
        Ok(()) => wire::Response {
            success: true,
            message: String::new(),
        },
        Err(error) => wire::Response {
            success: false,
            message: vmm::error_chain(&error),
        },
    }
}

fn answer(what: &'static str, done: Result<(), impl Into<CallError>>) -> Answer<wire::Response> {
    let response = outcome(done.map_err(Into::into));
    if !response.success {
        tracing::warn!(call = what, reason = response.message, "call failed");
    }
    Ok(Response::new(response))
}

/// JSON, where there is something to tell.
type Shown = Result<Option<String>, CallError>;

/// Nothing to tell is a success with an empty text.
fn split(shown: Shown) -> (wire::Response, String) {
    match shown {
        Ok(text) => (outcome(Ok(())), text.unwrap_or_default()),
        Err(error) => (outcome(Err(error)), String::new()),
    }
}

/// What no machine of ours does.
fn unsupported(what: &str) -> Status {
    Status::unimplemented(format!("{what} is not supported by this launcher"))
}

fn instance(vmi: Option<wire::Vmi>) -> Result<Box<Vmi>, CallError> {
    let vmi = vmi.ok_or(CallError::NoInstance)?;
    Ok(serde_json::from_slice(&vmi.vmi_json)?)
}

fn wish(request: VmiRequest) -> Result<Wish, CallError> {
    let options = request.options.unwrap_or_default();
    let cluster = options.cluster_config.unwrap_or_default();
    Ok(Wish {
        vmi: instance(request.vmi)?,
        smbios: options.virtual_machine_sm_bios,
        log_console: !cluster.serial_console_log_disabled,
    })
}

/// A caller's seconds, within reason.
fn seconds(given: i32) -> Option<Duration> {
    let seconds = u64::try_from(given).ok().filter(|&seconds| seconds > 0)?;
    Some(Duration::from_secs(seconds).min(GUEST_CALL_MAX))
}

impl Commands {
    pub(super) fn new(domain: DomainHandle, first_sync: watch::Sender<bool>) -> Self {
        Self { domain, first_sync }
    }

    /// Asks the guest's agent, on a thread that may wait.
    async fn ask_agent<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&Agent) -> Result<T, AgentError> + Send + 'static,
    ) -> Result<T, CallError> {
        let agent = self.domain.agent().ok_or(CallError::NoAgent)?;
        let asked = tokio::task::spawn_blocking(move || ask(&agent)).await;
        Ok(asked.map_err(|_| CallError::Ending)??)
    }

    /// Why the guest stands still, if it does.
    fn paused(&self) -> Option<StateChangeReason> {
        let status = &self.domain.published().domain?.status;
        (status.status == proto::domain::LifeCycle::Paused).then(|| status.reason.clone())
    }

    /// Whether the guest lives: a paused one lives too, unless it was an error that paused it.
    async fn ping_guest(&self, timeout: Duration) -> Result<(), CallError> {
        match self.paused() {
            None => self.ask_agent(move |agent| agent.ping(timeout)).await,
            Some(
                reason @ (StateChangeReason::IoError
                | StateChangeReason::Crashed
                | StateChangeReason::PostcopyFailed),
            ) => Err(CallError::Stopped(reason)),
            Some(_) => Ok(()),
        }
    }

    /// What the guest's agent told of the guest, as JSON.
    fn guest(&self, show: fn(&AgentReport) -> serde_json::Result<String>) -> Shown {
        let agent = self.domain.agent().ok_or(CallError::NoAgent)?;
        Ok(Some(show(&agent.report())?))
    }

    fn stats(&self) -> wire::DomainStatsResponse {
        let (done, domain_stats) = split(self.stats_json());
        wire::DomainStatsResponse {
            response: Some(done),
            domain_stats,
        }
    }

    fn stats_json(&self) -> Shown {
        let domain = self.domain.published().existing();
        let Some((machine, domain)) = self.domain.machine().zip(domain) else {
            return Ok(None);
        };
        let load = self.domain.agent().and_then(|agent| agent.report().load);
        let stats = domain_stats(&domain, &machine.stats(), load);
        Ok(Some(serde_json::to_string(&stats)?))
    }

    async fn sync_size(
        &self,
        call: &'static str,
        request: Request<VmiRequest>,
    ) -> Answer<wire::Response> {
        let done = match instance(request.into_inner().vmi) {
            Ok(vmi) => self.domain.sync_size(vmi).await.map_err(CallError::from),
            Err(error) => Err(error),
        };
        answer(call, done)
    }
}

#[tonic::async_trait]
impl Cmd for Commands {
    async fn sync_virtual_machine(&self, request: Request<VmiRequest>) -> Answer<wire::Response> {
        self.first_sync.send_replace(true);
        let done = match wish(request.into_inner()) {
            Ok(wish) => self.domain.sync(wish).await.map_err(CallError::from),
            Err(error) => Err(error),
        };
        answer("SyncVirtualMachine", done)
    }

    async fn pause_virtual_machine(&self, _: Request<VmiRequest>) -> Answer<wire::Response> {
        answer("PauseVirtualMachine", self.domain.pause().await)
    }

    async fn unpause_virtual_machine(&self, _: Request<VmiRequest>) -> Answer<wire::Response> {
        answer("UnpauseVirtualMachine", self.domain.unpause().await)
    }

    async fn freeze_virtual_machine(
        &self,
        request: Request<wire::FreezeRequest>,
    ) -> Answer<wire::Response> {
        let unfreeze_after = seconds(request.into_inner().unfreeze_timeout_seconds);
        let done = self.ask_agent(move |agent| agent.freeze(unfreeze_after));
        answer("FreezeVirtualMachine", done.await.map(drop))
    }

    async fn unfreeze_virtual_machine(&self, _: Request<VmiRequest>) -> Answer<wire::Response> {
        let done = self.ask_agent(Agent::thaw).await;
        answer("UnfreezeVirtualMachine", done.map(drop))
    }

    async fn reset_virtual_machine(&self, _: Request<VmiRequest>) -> Answer<wire::Response> {
        answer("ResetVirtualMachine", self.domain.reset().await)
    }

    async fn soft_reboot_virtual_machine(&self, _: Request<VmiRequest>) -> Answer<wire::Response> {
        answer("SoftRebootVirtualMachine", self.domain.soft_reboot().await)
    }

    async fn shutdown_virtual_machine(&self, _: Request<VmiRequest>) -> Answer<wire::Response> {
        answer("ShutdownVirtualMachine", self.domain.shutdown().await)
    }

    async fn kill_virtual_machine(&self, _: Request<VmiRequest>) -> Answer<wire::Response> {
        answer("KillVirtualMachine", self.domain.kill().await)
    }

    async fn delete_virtual_machine(&self, _: Request<VmiRequest>) -> Answer<wire::Response> {
        answer("DeleteVirtualMachine", self.domain.delete().await)
    }

    async fn migrate_virtual_machine(
        &self,
        _: Request<wire::MigrationRequest>,
    ) -> Answer<wire::Response> {
        Err(unsupported("live migration"))
    }

    async fn sync_migration_target(&self, _: Request<VmiRequest>) -> Answer<wire::Response> {
        Err(unsupported("live migration"))
    }

    async fn cancel_virtual_machine_migration(
        &self,
        _: Request<VmiRequest>,
    ) -> Answer<wire::Response> {
        Err(unsupported("live migration"))
    }

    async fn signal_target_pod_cleanup(&self, _: Request<VmiRequest>) -> Answer<wire::Response> {
        Err(unsupported("live migration"))
    }

    async fn finalize_virtual_machine_migration(
        &self,
        _: Request<VmiRequest>,
    ) -> Answer<wire::Response> {
        Err(unsupported("live migration"))
    }

    async fn hotplug_host_devices(&self, _: Request<VmiRequest>) -> Answer<wire::Response> {
        Err(unsupported("attaching host devices"))
    }

    async fn get_domain(&self, _: Request<EmptyRequest>) -> Answer<wire::DomainResponse> {
        let domain = self.domain.published().existing();
        let json = domain.map(|domain| serde_json::to_string(&*domain));
        let (done, domain) = split(json.transpose().map_err(CallError::from));
        Ok(Response::new(wire::DomainResponse {
            response: Some(done),
            domain,
        }))
    }

    async fn get_domain_stats(
        &self,
        _: Request<EmptyRequest>,
    ) -> Answer<wire::DomainStatsResponse> {
        Ok(Response::new(self.stats()))
    }

    async fn get_guest_info(&self, _: Request<EmptyRequest>) -> Answer<wire::GuestInfoResponse> {
        let (done, guest_info_response) = split(self.guest(guest::info));
        Ok(Response::new(wire::GuestInfoResponse {
            response: Some(done),
            guest_info_response,
        }))
    }

    async fn get_users(&self, _: Request<EmptyRequest>) -> Answer<wire::GuestUserListResponse> {
        let (done, guest_user_list_response) = split(self.guest(guest::users));
        Ok(Response::new(wire::GuestUserListResponse {
            response: Some(done),
            guest_user_list_response,
        }))
    }

    async fn get_filesystems(
        &self,
        _: Request<EmptyRequest>,
    ) -> Answer<wire::GuestFilesystemsResponse> {
        let (done, guest_filesystems_response) = split(self.guest(guest::filesystems));
        Ok(Response::new(wire::GuestFilesystemsResponse {
            response: Some(done),
            guest_filesystems_response,
        }))
    }

    async fn ping(&self, _: Request<EmptyRequest>) -> Answer<wire::Response> {
        Ok(Response::new(outcome(Ok(()))))
    }

    async fn exec(&self, request: Request<wire::ExecRequest>) -> Answer<wire::ExecResponse> {
        let wire::ExecRequest {
            command,
            args,
            timeout_seconds,
            ..
        } = request.into_inner();
        let timeout = seconds(timeout_seconds).unwrap_or(GUEST_PING_DEFAULT);
        let done = self.ask_agent(move |agent| agent.exec(&command, &args, timeout));
        let (done, program) = match done.await {
            Ok(program) => (Ok(()), program),
            Err(error) => (Err(error), ExecOutcome::default()),
        };
        Ok(Response::new(wire::ExecResponse {
            response: Some(outcome(done)),
            exit_code: program.exit_code,
            std_out: String::from_utf8_lossy(&program.stdout).into_owned(),
        }))
    }

    async fn guest_ping(
        &self,
        request: Request<wire::GuestPingRequest>,
    ) -> Answer<wire::GuestPingResponse> {
        let timeout = seconds(request.into_inner().timeout_seconds);
        let done = self.ping_guest(timeout.unwrap_or(GUEST_PING_DEFAULT)).await;
        Ok(Response::new(wire::GuestPingResponse {
            response: Some(outcome(done)),
        }))
    }

    async fn virtual_machine_memory_dump(
        &self,
        request: Request<wire::MemoryDumpRequest>,
    ) -> Answer<wire::Response> {
        let path = PathBuf::from(request.into_inner().dump_path);
        answer(
            "VirtualMachineMemoryDump",
            self.domain.dump_memory(path).await,
        )
    }

    async fn get_qemu_version(
        &self,
        _: Request<EmptyRequest>,
    ) -> Answer<wire::QemuVersionResponse> {
        Ok(Response::new(wire::QemuVersionResponse {
            response: Some(outcome(Ok(()))),
            version: concat!("ferrovirt ", env!("CARGO_PKG_VERSION")).to_owned(),
        }))
    }

    async fn sync_virtual_machine_cp_us(
        &self,
        request: Request<VmiRequest>,
    ) -> Answer<wire::Response> {
        self.sync_size("SyncVirtualMachineCPUs", request).await
    }

    async fn sync_virtual_machine_memory(
        &self,
        request: Request<VmiRequest>,
    ) -> Answer<wire::Response> {
        self.sync_size("SyncVirtualMachineMemory", request).await
    }

    async fn get_sev_info(&self, _: Request<EmptyRequest>) -> Answer<wire::SevInfoResponse> {
        Err(unsupported("memory encryption"))
    }

    async fn get_launch_measurement(
        &self,
        _: Request<VmiRequest>,
    ) -> Answer<wire::LaunchMeasurementResponse> {
        Err(unsupported("memory encryption"))
    }

    async fn inject_launch_secret(
        &self,
        _: Request<wire::InjectLaunchSecretRequest>,
    ) -> Answer<wire::Response> {
        Err(unsupported("memory encryption"))
    }

    async fn get_domain_dirty_rate_stats(
        &self,
        _: Request<EmptyRequest>,
    ) -> Answer<wire::DirtyRateStatsResponse> {
        Err(unsupported("measuring the rate of memory writes"))
    }

    async fn get_screenshot(&self, _: Request<VmiRequest>) -> Answer<wire::ScreenshotResponse> {
        Err(unsupported("a picture of the screen"))
    }

    async fn backup_virtual_machine(
        &self,
        _: Request<wire::BackupRequest>,
    ) -> Answer<wire::Response> {
        Err(unsupported("backup"))
    }

    async fn redefine_checkpoint(
        &self,
        _: Request<wire::RedefineCheckpointRequest>,
    ) -> Answer<wire::RedefineCheckpointResponse> {
        Err(unsupported("backup"))
    }

    async fn get_vm_stats(
        &self,
        request: Request<wire::VmStatsRequest>,
    ) -> Answer<wire::VmStatsResponse> {
        Ok(Response::new(
            vm_stats::answer(self, &request.into_inner()).await,
        ))
    }
}

/// Says which versions of the command service there are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Info;

#[tonic::async_trait]
impl CmdInfo for Info {
    async fn info(&self, _: Request<CmdInfoRequest>) -> Answer<CmdInfoResponse> {
        Ok(Response::new(CmdInfoResponse {
            supported_cmd_versions: vec![COMMAND_VERSION],
        }))
    }
}
