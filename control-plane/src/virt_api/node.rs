//! Node agents: where they are, and requests to them (KubeVirt's `virt-handler` REST API on port 8186).

mod identity;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use api::error_chain::chain;
use axum::body::Body;
use http::{HeaderValue, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tracing::debug;

pub(crate) use self::identity::common_name;
pub use self::identity::{Identity, IdentityError, Pem};
use super::answer::Refusal;
use super::objects::{Kind, Objects, text};

/// Port of node agents for consoles and lifecycle requests, unless they are told another.
pub const HANDLER_PORT: u16 = 8186;
/// Time to connect to a node agent and to agree on keys.
const CONNECT: Duration = Duration::from_secs(10);
/// Time for a node agent to answer: a guest may take a while to let its file systems stand still.
const ANSWER: Duration = Duration::from_secs(60);

/// Where node agents are reached.
#[derive(Clone, Debug)]
pub enum HandlerPlace {
    /// At the address of the pod with the label `kubevirt.io=virt-handler` that is on the node, on a port.
    Pods {
        /// The port, [`HANDLER_PORT`] by default.
        port: u16,
    },
    /// At one address, whatever the node is: a single node.
    Fixed(SocketAddr),
}

/// How node agents are reached.
#[derive(Clone, Debug)]
pub struct HandlerAddress {
    /// Where they are.
    pub place: HandlerPlace,
    /// What this side shows them, and whom it believes.
    pub identity: Identity,
}

/// The node agents of a cluster.
#[derive(Clone, Debug)]
pub(crate) struct Nodes {
    objects: Objects,
    namespace: Arc<str>,
    handler: Arc<HandlerAddress>,
}

impl Nodes {
    pub(crate) fn new(objects: Objects, namespace: Arc<str>, handler: HandlerAddress) -> Self {
        Self {
            objects,
            namespace,
            handler: Arc::new(handler),
        }
    }

    /// Sends a request to the agent of a node and returns its answer, which may be a switch of protocols.
    pub(crate) async fn send(
        &self,
        node: &str,
        mut request: Request<Body>,
    ) -> Result<Response<Incoming>, Refusal> {
        let address = self.address(node).await?;
        let unreachable = |why: String| {
            let message = format!("the agent of node {node:?} at {address} is not reached: {why}");
            Refusal::new(StatusCode::SERVICE_UNAVAILABLE, message)
        };
        let stream = self.connect(address).await.map_err(unreachable)?;
        let host = HeaderValue::from_str(&address.to_string());
        let host = host.map_err(|error| unreachable(error.to_string()))?;
        request.headers_mut().insert(header::HOST, host);
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| unreachable(chain(&error)))?;
        tokio::spawn(async move {
            if let Err(error) = connection.with_upgrades().await {
                debug!(error = chain(&error), "connection to a node agent ended");
            }
        });
        match timeout(ANSWER, sender.send_request(request)).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => Err(unreachable(chain(&error))),
            Err(_) => Err(Refusal::new(
                StatusCode::GATEWAY_TIMEOUT,
                format!(
                    "the agent of node {node:?} gave no answer within {} s",
                    ANSWER.as_secs()
                ),
            )),
        }
    }

    async fn connect(&self, address: SocketAddr) -> Result<TlsStream<TcpStream>, String> {
        let identity = &self.handler.identity;
        let config = identity.config(&self.objects, &self.namespace).await;
        let config = config.map_err(|error| chain(&error))?;
        let connecting = async {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            let name = ServerName::from(address.ip());
            TlsConnector::from(config).connect(name, stream).await
        };
        match timeout(CONNECT, connecting).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(error)) => Err(chain(&error)),
            Err(_) => Err(format!("no connection within {} s", CONNECT.as_secs())),
        }
    }

    async fn address(&self, node: &str) -> Result<SocketAddr, Refusal> {
        let port = match self.handler.place {
            HandlerPlace::Fixed(address) => return Ok(address),
            HandlerPlace::Pods { port } => port,
        };
        let query = format!(
            "labelSelector={}%3D{}&fieldSelector=spec.nodeName%3D{node}",
            api::labels::APP,
            api::components::VIRT_HANDLER
        );
        let pods = self
            .objects
            .list(Kind::Pod, &self.namespace, &query)
            .await?;
        let ip = agent_ip(&pods, node).ok_or_else(|| {
            let message = format!(
                "node {node:?} has no running pod of {}: see whether its daemon set covers the node",
                api::components::VIRT_HANDLER
            );
            Refusal::new(StatusCode::SERVICE_UNAVAILABLE, message)
        })?;
        Ok(SocketAddr::new(ip, port))
    }
}

/// Returns the address of the agent of a node, of several the one that is ready.
fn agent_ip(pods: &[Value], node: &str) -> Option<IpAddr> {
    let here = pods.iter().filter(|pod| {
        text(pod, "/spec/nodeName") == node && pod.pointer("/metadata/deletionTimestamp").is_none()
    });
    let mut addresses: Vec<(bool, IpAddr)> = here
        .filter_map(|pod| {
            let ready = super::objects::condition(pod, "Ready") == Some("True");
            Some((ready, text(pod, "/status/podIP").parse().ok()?))
        })
        .collect();
    addresses.sort_by_key(|(ready, _)| !ready);
    addresses.first().map(|(_, ip)| *ip)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::agent_ip;

    #[test]
    fn the_ready_agent_of_the_node_is_asked() {
        let pod = |node: &str, ip: &str, ready: &str| {
            json!({
                "spec": {"nodeName": node},
                "status": {"podIP": ip, "conditions": [{"type": "Ready", "status": ready}]},
            })
        };
        let pods = [
            pod("other", "10.0.0.1", "True"),
            pod("here", "10.0.0.2", "False"),
            pod("here", "10.0.0.3", "True"),
            pod("here", "", "True"),
        ];
        assert_eq!(agent_ip(&pods, "here"), Some([10, 0, 0, 3].into()));
        assert_eq!(agent_ip(&pods[..2], "here"), Some([10, 0, 0, 2].into()));
        assert_eq!(agent_ip(&pods, "elsewhere"), None);
    }
}
