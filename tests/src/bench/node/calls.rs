//! A client of a launcher's command service.

use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use proto::cmd::v1::cmd_client::CmdClient;
use proto::cmd::v1::{EmptyRequest, Vmi, VmiRequest};
use tokio::runtime::{Builder, Runtime};
use tonic::transport::{Channel, Endpoint};

use super::{BenchError, LOOK};
use crate::node::pod::Pod;

/// How long a launcher may take until it serves.
const READY: Duration = Duration::from_secs(60);

/// Lets time pass.
pub(super) fn wait(time: Duration) {
    let (_sender, receiver) = std::sync::mpsc::channel::<()>();
    let _over = receiver.recv_timeout(time);
}

/// A connection to a launcher.
pub(super) struct Calls {
    runtime: Runtime,
    client: CmdClient<Channel>,
}

impl Calls {
    /// Connects to the launcher of a pod as soon as it serves.
    pub(super) fn connect(pod: &Pod) -> Result<Self, BenchError> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let deadline = Instant::now() + READY;
        while Instant::now() < deadline {
            if let Some(pid) = pod.launcher_pid() {
                // The name on the node is too long for a socket's.
                let socket = format!("/proc/{pid}/root/run/kubevirt/sockets/launcher-sock");
                if Path::new(&socket).exists() {
                    let client = runtime.block_on(connect(&socket))?;
                    return Ok(Self { runtime, client });
                }
            }
            wait(LOOK);
        }
        Err(BenchError::Late("a launcher that serves"))
    }

    /// Asks for an instance and returns how long the answer took.
    pub(super) fn sync(&mut self, vmi_json: &[u8]) -> Result<Duration, BenchError> {
        let vmi_json = vmi_json.to_vec();
        let request = VmiRequest {
            vmi: Some(Vmi { vmi_json }),
            ..VmiRequest::default()
        };
        let began = Instant::now();
        let answer = self.client.sync_virtual_machine(request);
        let answer = self.runtime.block_on(answer).map_err(Box::new)?;
        let took = began.elapsed();
        let response = answer.into_inner();
        if response.success {
            Ok(took)
        } else {
            Err(BenchError::Refused(response.message))
        }
    }
}

async fn connect(socket: &str) -> Result<CmdClient<Channel>, BenchError> {
    let endpoint = Endpoint::from_shared(format!("unix://{socket}"))?;
    let mut client = CmdClient::new(endpoint.connect().await?);
    let answer = client.ping(EmptyRequest {}).await.map_err(Box::new)?;
    if answer.into_inner().success {
        Ok(client)
    } else {
        Err(io::Error::other("the launcher refuses a ping").into())
    }
}
