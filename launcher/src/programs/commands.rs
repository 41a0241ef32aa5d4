//! Calls to a launcher's command socket.

use std::path::{Path, PathBuf};
use std::time::Duration;

use proto::cmd::v1::Response;
use proto::cmd::v1::cmd_client::CmdClient;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

/// Where a launcher listens in its pod.
pub(super) const COMMAND_SOCKET: &str = "/var/run/kubevirt/sockets/launcher-sock";

/// Time for a launcher to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// What a call is made with.
pub(super) type Client = CmdClient<Channel>;

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum CommandError {
    #[error("start the client")]
    Runtime(#[source] std::io::Error),
    #[error("reach the launcher at {}", socket.display())]
    Connect {
        socket: PathBuf,
        source: tonic::transport::Error,
    },
    #[error("call {call}: the launcher did not answer within {} s", after.as_secs())]
    Timeout { call: &'static str, after: Duration },
    #[error("call {call}: the launcher answered {code}: {message}")]
    Status {
        call: &'static str,
        code: Code,
        message: String,
    },
    #[error("{call}: {message}")]
    Refused { call: &'static str, message: String },
}

/// A client whose calls block.
pub(super) struct Commands {
    runtime: tokio::runtime::Runtime,
    client: Client,
}

impl Commands {
    /// Connects to a launcher.
    pub(super) fn connect(socket: &Path) -> Result<Self, CommandError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(CommandError::Runtime)?;
        let failed = |source| CommandError::Connect {
            socket: socket.to_owned(),
            source,
        };
        let endpoint = Endpoint::from_shared(format!("unix://{}", socket.display()));
        let endpoint = endpoint.map_err(failed)?.connect_timeout(CONNECT_TIMEOUT);
        let channel = runtime.block_on(endpoint.connect()).map_err(failed)?;
        Ok(Self {
            runtime,
            client: CmdClient::new(channel),
        })
    }

    /// Makes a call and waits for its answer, at most `timeout`.
    pub(super) fn call<T>(
        &self,
        name: &'static str,
        timeout: Duration,
        call: impl AsyncFnOnce(Client) -> Result<tonic::Response<T>, Status>,
    ) -> Result<T, CommandError> {
        let answer = self.runtime.block_on(async {
            let answer = call(self.client.clone());
            tokio::time::timeout(timeout, answer).await
        });
        match answer {
            Ok(Ok(answer)) => Ok(answer.into_inner()),
            Ok(Err(status)) => Err(CommandError::Status {
                call: name,
                code: status.code(),
                message: status.message().to_owned(),
            }),
            Err(_) => Err(CommandError::Timeout {
                call: name,
                after: timeout,
            }),
        }
    }
}

/// Turns the refusal that an answer may hold into an error.
pub(super) fn accepted(call: &'static str, response: Option<Response>) -> Result<(), CommandError> {
    match response {
        Some(Response {
            success: false,
            message,
        }) => Err(CommandError::Refused { call, message }),
        _ => Ok(()),
    }
}
