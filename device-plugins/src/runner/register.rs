//! Asks the kubelet to take a plugin (`v1beta1.Registration`).

use std::io;
use std::path::Path;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use proto::deviceplugin::v1beta1::RegisterRequest;
use proto::deviceplugin::v1beta1::registration_client::RegistrationClient;
use tokio::net::UnixStream;
use tokio::time::timeout;
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

use super::fault::Fault;
use super::service::OPTIONS;
use super::socket::connect;
use crate::resource::ResourceName;

/// The version that is spoken.
const VERSION: &str = "v1beta1";
/// Time for the kubelet's answer. It connects to the plugin and asks for its options before it answers.
pub(super) const ANSWER_LIMIT: Duration = Duration::from_secs(5);
/// Characters of the kubelet's answer that are told.
const REASON_LEN_MAX: usize = 300;

/// Registers a plugin whose socket is served.
pub(super) async fn register(
    folder: &Path,
    resource: &ResourceName,
    socket: &str,
) -> Result<(), Fault> {
    let stream = connect(folder).await;
    let stream = stream.map_err(|source| Fault::Connect { source })?;
    let request = RegisterRequest {
        version: VERSION.to_owned(),
        endpoint: socket.to_owned(),
        resource_name: resource.as_str().to_owned(),
        options: Some(OPTIONS),
    };
    match timeout(ANSWER_LIMIT, Box::pin(ask(stream, request))).await {
        Ok(answer) => answer,
        Err(_) => Err(Fault::Silent),
    }
}

async fn ask(stream: UnixStream, request: RegisterRequest) -> Result<(), Fault> {
    let channel = channel(stream).await.map_err(|error| Fault::Connect {
        source: io::Error::other(error),
    })?;
    let answer = RegistrationClient::new(channel).register(request).await;
    answer.map(drop).map_err(|status| Fault::Refused {
        reason: status.message().chars().take(REASON_LEN_MAX).collect(),
    })
}

async fn channel(stream: UnixStream) -> Result<Channel, tonic::transport::Error> {
    let mut stream = Some(stream);
    let connector = service_fn(move |_| {
        let stream = stream.take().map(TokioIo::new);
        // Whoever calls on another connection begins with a new channel.
        std::future::ready(stream.ok_or_else(|| io::Error::from(io::ErrorKind::ConnectionReset)))
    });
    // The address is not used, but must look like one.
    let endpoint = Endpoint::from_static("http://kubelet");
    endpoint.connect_with_connector(connector).await
}
