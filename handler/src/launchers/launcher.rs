//! One launcher and what can be asked of it (`kubevirt.cmd.v1`).

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use proto::cmd::info::CmdInfoRequest;
use proto::cmd::info::cmd_info_client::CmdInfoClient;
use proto::cmd::v1::cmd_client::CmdClient;
use proto::cmd::v1::{
    EmptyRequest, FreezeRequest, MemoryDumpRequest, Response, VirtualMachineOptions, Vmi,
    VmiRequest,
};
use proto::domain::Domain;
use proto::stats::DomainStats;
use tokio::net::UnixStream;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

use super::call::CommandError;
use super::records::Ghost;
use super::socket;
use crate::config::HostPaths;
use crate::key::VmiKey;
use crate::pod_files;

/// Time for what a launcher knows without doing anything.
pub(super) const SHORT: Duration = Duration::from_secs(5);
/// Time for what changes the machine.
const LONG: Duration = Duration::from_secs(20);
/// Time for what waits for the guest's file systems.
const FREEZE: Duration = Duration::from_secs(60);

const GET_DOMAIN: &str = "GetDomain";

/// What a launcher tells when it is asked for its domain.
#[derive(Debug)]
pub(super) enum Told {
    /// It has none.
    Nothing,
    /// This one, which is its instance's.
    Own(Box<Domain>),
    /// That of the instance that is named here.
    Foreign(String),
}

impl Told {
    /// Returns the domain unless it is another instance's.
    pub(super) fn own(self, launcher: &Launcher) -> Result<Option<Domain>, CommandError> {
        match self {
            Self::Nothing => Ok(None),
            Self::Own(domain) => Ok(Some(*domain)),
            Self::Foreign(found) => {
                let reason = format!("the domain is that of {found}, not of {}", launcher.key);
                Err(CommandError::bad(GET_DOMAIN, reason))
            }
        }
    }
}

/// A launcher that is attached to. Each command has a connection of its own: connecting costs a fraction of a
/// millisecond, and one that lies idle tens of KiB here and as many in the launcher.
#[derive(Clone, Debug)]
pub struct Launcher {
    /// Whose launcher it is.
    pub key: VmiKey,
    /// UID of the VirtualMachineInstance.
    pub uid: String,
    /// UID of the pod it runs in.
    pub pod_uid: String,
    /// Its process as the handler sees it: who listens on the command socket.
    pub pid: i32,
    line: Arc<Line>,
}

/// The way to a launcher.
#[derive(Debug)]
struct Line {
    paths: HostPaths,
    pod_uid: String,
    pid: i32,
    /// Cancelled when the process is gone or the launcher was given up or forgotten.
    ended: CancellationToken,
}

impl Line {
    /// Connects to the process that was there when the launcher was attached to, and to no other.
    async fn connect(self: Arc<Self>) -> io::Result<UnixStream> {
        if self.ended.is_cancelled() {
            return Err(io::Error::other("the launcher has ended"));
        }
        let socket = socket::open_command_socket(&self.paths, &self.pod_uid)?;
        let socket = socket.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        let stream = pod_files::connect(&socket).await?;
        let peer = stream.peer_cred()?.pid();
        if peer != Some(self.pid) {
            return Err(io::Error::other(
                "another process listens on the socket now",
            ));
        }
        Ok(stream)
    }
}

/// Makes the methods for commands that carry an instance and answer nothing.
macro_rules! commands {
    ($($(#[$doc:meta])* $name:ident = $call:ident as $label:literal within $limit:ident;)*) => {
        impl Launcher {
            $(
                $(#[$doc])*
                ///
                /// # Errors
                ///
                /// Fails when the launcher is not there, says no, or does not know the command.
                pub async fn $name(&self, vmi: Vec<u8>) -> Result<(), CommandError> {
                    let request = vmi_request(vmi, None);
                    let answer = self
                        .call($label, $limit, |mut client| async move {
                            client.$call(request).await
                        })
                        .await?;
                    done($label, Some(answer))
                }
            )*
        }
    };
}

commands! {
    /// Stops the vCPUs at the user's wish.
    pause = pause_virtual_machine as "PauseVirtualMachine" within LONG;
    /// Lets the vCPUs run again.
    unpause = unpause_virtual_machine as "UnpauseVirtualMachine" within LONG;
    /// Resets the machine without asking the guest.
    reset = reset_virtual_machine as "ResetVirtualMachine" within LONG;
    /// Asks the guest to reboot.
    soft_reboot = soft_reboot_virtual_machine as "SoftRebootVirtualMachine" within LONG;
    /// Asks the guest to power off.
    shutdown = shutdown_virtual_machine as "ShutdownVirtualMachine" within LONG;
    /// Ends the machine without asking the guest.
    kill = kill_virtual_machine as "KillVirtualMachine" within LONG;
    /// Makes the launcher forget its ended domain.
    delete = delete_virtual_machine as "DeleteVirtualMachine" within LONG;
    /// Thaws the guest's file systems.
    unfreeze = unfreeze_virtual_machine as "UnfreezeVirtualMachine" within FREEZE;
    /// Plugs or unplugs vCPUs to the number that the instance has.
    sync_cpus = sync_virtual_machine_cp_us as "SyncVirtualMachineCPUs" within LONG;
    /// Grows or shrinks memory to what the instance has.
    sync_memory = sync_virtual_machine_memory as "SyncVirtualMachineMemory" within LONG;
}

/// Makes the methods that ask for a guest agent's report, which is JSON in the field of the answer.
macro_rules! reports {
    ($($(#[$doc:meta])* $name:ident = $call:ident as $label:literal in $field:ident;)*) => {
        impl Launcher {
            $(
                $(#[$doc])*
                ///
                /// # Errors
                ///
                /// Fails when the launcher is not there, has no report, or answers no JSON.
                pub async fn $name(&self) -> Result<serde_json::Value, CommandError> {
                    let answer = self
                        .call($label, SHORT, |mut client| async move {
                            client.$call(EmptyRequest {}).await
                        })
                        .await?;
                    done($label, answer.response)?;
                    serde_json::from_str(&answer.$field)
                        .map_err(|error| CommandError::bad($label, error))
                }
            )*
        }
    };
}

reports! {
    /// Returns what the guest's agent told of the guest (`VirtualMachineInstanceGuestAgentInfo`).
    guest_info = get_guest_info as "GetGuestInfo" in guest_info_response;
    /// Returns who is logged in to the guest.
    users = get_users as "GetUsers" in guest_user_list_response;
    /// Returns the file systems that are mounted in the guest.
    filesystems = get_filesystems as "GetFilesystems" in guest_filesystems_response;
}

impl Launcher {
    /// Names a launcher without connecting to it.
    #[must_use]
    pub fn at(paths: &HostPaths, key: VmiKey, uid: &str, pod_uid: &str, pid: i32) -> Self {
        let ghost = Ghost {
            key,
            uid: uid.to_owned(),
            pod_uid: pod_uid.to_owned(),
        };
        Self::new(paths, &ghost, pid, CancellationToken::new())
    }

    /// Names a launcher, whose commands reach nobody any more once `ended` is cancelled.
    pub(super) fn new(
        paths: &HostPaths,
        ghost: &Ghost,
        pid: i32,
        ended: CancellationToken,
    ) -> Self {
        let line = Line {
            paths: paths.clone(),
            pod_uid: ghost.pod_uid.clone(),
            pid,
            ended,
        };
        Self {
            key: ghost.key.clone(),
            uid: ghost.uid.clone(),
            pod_uid: ghost.pod_uid.clone(),
            pid,
            line: Arc::new(line),
        }
    }

    /// Returns the root of the launcher's file systems: `<proc>/<pid>/root`. What lies below is in the hands of the
    /// pod; open it without leaving it.
    #[must_use]
    pub fn root(&self) -> PathBuf {
        self.line
            .paths
            .proc_dir
            .join(self.pid.to_string())
            .join("root")
    }

    /// Returns where an emptyDir volume of the launcher's pod is on the host. What lies below is in the hands of
    /// the pod.
    #[must_use]
    pub fn emptydir(&self, volume: &str) -> PathBuf {
        socket::emptydir_on_host(&self.line.paths, &self.pod_uid, volume)
    }

    /// Returns the command socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        socket::command_socket(&self.line.paths, &self.pod_uid)
    }

    /// Whether the process is gone, or the launcher was given up or forgotten: no command reaches it any more.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.line.ended.is_cancelled()
    }

    /// Brings the machine to what the instance asks for; the instance is Kubernetes JSON.
    ///
    /// # Errors
    ///
    /// Fails when the launcher is not there, or cannot run such a machine.
    pub async fn sync(
        &self,
        vmi: Vec<u8>,
        options: VirtualMachineOptions,
    ) -> Result<(), CommandError> {
        let call = "SyncVirtualMachine";
        let request = vmi_request(vmi, Some(options));
        let answer = self
            .call(call, LONG, |mut client| async move {
                client.sync_virtual_machine(request).await
            })
            .await?;
        done(call, Some(answer))
    }

    /// Freezes the guest's file systems; after `unfreeze_timeout` they thaw by themselves.
    ///
    /// # Errors
    ///
    /// Fails when the launcher is not there, or the guest's agent cannot freeze.
    pub async fn freeze(
        &self,
        vmi: Vec<u8>,
        unfreeze_timeout: Duration,
    ) -> Result<(), CommandError> {
        let call = "FreezeVirtualMachine";
        let seconds = i32::try_from(unfreeze_timeout.as_secs()).unwrap_or(i32::MAX);
        let request = FreezeRequest {
            vmi: Some(Vmi { vmi_json: vmi }),
            unfreeze_timeout_seconds: seconds,
        };
        let answer = self
            .call(call, FREEZE, |mut client| async move {
                client.freeze_virtual_machine(request).await
            })
            .await?;
        done(call, Some(answer))
    }

    /// Starts a dump of the guest's memory to `path`, as the launcher sees it. The domain tells how it goes.
    ///
    /// # Errors
    ///
    /// Fails when the launcher is not there, or cannot begin.
    pub async fn memory_dump(&self, vmi: Vec<u8>, path: &str) -> Result<(), CommandError> {
        let call = "VirtualMachineMemoryDump";
        let request = MemoryDumpRequest {
            vmi: Some(Vmi { vmi_json: vmi }),
            dump_path: path.to_owned(),
        };
        let answer = self
            .call(call, LONG, |mut client| async move {
                client.virtual_machine_memory_dump(request).await
            })
            .await?;
        done(call, Some(answer))
    }

    /// Returns the domain; `None` when the launcher has none.
    ///
    /// # Errors
    ///
    /// Fails when the launcher is not there, or tells of no domain of its own instance.
    pub async fn domain(&self) -> Result<Option<Domain>, CommandError> {
        self.tell_domain().await?.own(self)
    }

    /// Returns the domain that the launcher tells of.
    pub(super) async fn tell_domain(&self) -> Result<Told, CommandError> {
        let answer = self
            .call(GET_DOMAIN, SHORT, |mut client| async move {
                client.get_domain(EmptyRequest {}).await
            })
            .await?;
        done(GET_DOMAIN, answer.response)?;
        let domain = Domain::from_json(answer.domain.as_bytes());
        match domain.map_err(|error| CommandError::bad(GET_DOMAIN, error))? {
            None => Ok(Told::Nothing),
            Some(domain) => Ok(match self.foreign(&domain) {
                None => Told::Own(Box::new(domain)),
                Some(found) => Told::Foreign(found),
            }),
        }
    }

    /// Returns the machine's counters; `None` when the launcher has none.
    ///
    /// # Errors
    ///
    /// Fails when the launcher is not there, or answers no JSON.
    pub async fn domain_stats(&self) -> Result<Option<DomainStats>, CommandError> {
        let call = "GetDomainStats";
        let answer = self
            .call(call, SHORT, |mut client| async move {
                client.get_domain_stats(EmptyRequest {}).await
            })
            .await?;
        done(call, answer.response)?;
        if answer.domain_stats.is_empty() {
            return Ok(None);
        }
        serde_json::from_str(&answer.domain_stats).map_err(|error| CommandError::bad(call, error))
    }

    /// Returns once the launcher has given a sign of life.
    ///
    /// # Errors
    ///
    /// Fails when it gives none.
    pub async fn ping(&self) -> Result<(), CommandError> {
        self.ping_within(SHORT).await
    }

    /// Returns once the launcher has given a sign of life, but waits no longer than `limit`.
    pub(super) async fn ping_within(&self, limit: Duration) -> Result<(), CommandError> {
        let call = "Ping";
        let answer = self
            .call(call, limit, |mut client| async move {
                client.ping(EmptyRequest {}).await
            })
            .await?;
        done(call, Some(answer))
    }

    /// Returns the version of what runs the guest.
    ///
    /// # Errors
    ///
    /// Fails when the launcher is not there, or does not know.
    pub async fn version(&self) -> Result<String, CommandError> {
        let call = "GetQemuVersion";
        let answer = self
            .call(call, SHORT, |mut client| async move {
                client.get_qemu_version(EmptyRequest {}).await
            })
            .await?;
        done(call, answer.response)?;
        Ok(answer.version)
    }

    /// Returns the versions of the command protocol that the launcher speaks (`kubevirt.cmd.info`).
    pub(super) async fn command_versions(&self, limit: Duration) -> Result<Vec<u32>, CommandError> {
        let call = "Info";
        let mut client = CmdInfoClient::new(self.channel());
        let answer = answered(call, limit, client.info(CmdInfoRequest {})).await?;
        Ok(answer.supported_cmd_versions)
    }

    /// Returns whose domain it is when it is not this launcher's.
    pub(super) fn foreign(&self, domain: &Domain) -> Option<String> {
        let meta = &domain.meta;
        let is_ours = meta.namespace == self.key.namespace
            && meta.name == self.key.name
            && (meta.uid.is_empty() || meta.uid == self.uid);
        (!is_ours).then(|| {
            super::call::bounded(&format!("{}/{} ({})", meta.namespace, meta.name, meta.uid))
        })
    }

    /// Returns what ends with the launcher.
    pub(super) fn ended(&self) -> &CancellationToken {
        &self.line.ended
    }

    async fn call<R, F>(
        &self,
        call: &'static str,
        limit: Duration,
        send: impl FnOnce(CmdClient<Channel>) -> F,
    ) -> Result<R, CommandError>
    where
        F: Future<Output = Result<tonic::Response<R>, Status>>,
    {
        if self.has_ended() {
            let reason = "the launcher has ended".to_owned();
            return Err(CommandError::Unreachable { call, reason });
        }
        answered(call, limit, send(CmdClient::new(self.channel()))).await
    }

    /// Returns what connects when it is first used, and disconnects when it is dropped.
    fn channel(&self) -> Channel {
        let line = Arc::clone(&self.line);
        let connector = service_fn(move |_| {
            let line = Arc::clone(&line);
            async move { line.connect().await.map(TokioIo::new) }
        });
        // The address is not used, but must look like one.
        Endpoint::from_static("http://launcher").connect_with_connector_lazy(connector)
    }
}

fn vmi_request(vmi: Vec<u8>, options: Option<VirtualMachineOptions>) -> VmiRequest {
    VmiRequest {
        vmi: Some(Vmi { vmi_json: vmi }),
        options,
    }
}

async fn answered<R>(
    call: &'static str,
    limit: Duration,
    answer: impl Future<Output = Result<tonic::Response<R>, Status>>,
) -> Result<R, CommandError> {
    match timeout(limit, answer).await {
        Ok(Ok(answer)) => Ok(answer.into_inner()),
        Ok(Err(status)) => Err(CommandError::from_status(call, limit, &status)),
        Err(_) => Err(CommandError::TimedOut { call, after: limit }),
    }
}

/// Checks the part of an answer that says whether it is one.
fn done(call: &'static str, response: Option<Response>) -> Result<(), CommandError> {
    match response {
        Some(Response { success: true, .. }) => Ok(()),
        Some(Response { message, .. }) => Err(CommandError::refused(call, &message)),
        None => Err(CommandError::bad(
            call,
            "it does not say whether it succeeded",
        )),
    }
}
