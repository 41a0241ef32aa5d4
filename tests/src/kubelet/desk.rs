//! Where plugins register.

use std::sync::Arc;
use std::time::Instant;

use proto::deviceplugin::v1beta1::registration_server::{Registration, RegistrationServer};
use proto::deviceplugin::v1beta1::{Empty, RegisterRequest};
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tonic::{Request, Response, Status};

use super::plugin::{hold, short_path};
use super::{KubeletError, Mode, SOCKET, State};

/// The version that is spoken.
const VERSION: &str = "v1beta1";

/// Takes registrations.
struct Desk {
    state: Arc<State>,
    refusal: Option<String>,
    stop: CancellationToken,
}

/// Opens the socket and takes registrations until stopped. Returns the time at which the socket appeared.
pub(super) fn open(
    state: &Arc<State>,
    mode: Mode,
    stop: &CancellationToken,
) -> Result<Instant, KubeletError> {
    let folder = state.plugin_dir();
    let bound = hold(&folder).and_then(|held| UnixListener::bind(short_path(&held, SOCKET)));
    let appeared = Instant::now();
    let listener = bound.map_err(|source| KubeletError::File {
        path: folder.join(SOCKET),
        source,
    })?;
    let refusal = match mode {
        Mode::Takes => None,
        Mode::Refuses(reason) => Some(reason),
        Mode::Hangs => {
            tokio::spawn(stop.clone().run_until_cancelled_owned(hang(listener)));
            return Ok(appeared);
        }
    };
    let desk = Desk {
        state: Arc::clone(state),
        refusal,
        stop: stop.clone(),
    };
    tokio::spawn(
        stop.clone()
            .run_until_cancelled_owned(serve(listener, desk)),
    );
    Ok(appeared)
}

/// Accepts connections and says nothing.
async fn hang(listener: UnixListener) {
    let mut silent = Vec::new();
    while let Ok((connection, _)) = listener.accept().await {
        silent.push(connection);
    }
}

async fn serve(listener: UnixListener, desk: Desk) {
    let server = Server::builder().add_service(RegistrationServer::new(desk));
    // It ends with the stand-in; there is nobody to tell of an error.
    let _ended = server
        .serve_with_incoming(UnixListenerStream::new(listener))
        .await;
}

impl Desk {
    fn check(&self, wanted: &RegisterRequest) -> Result<(), Status> {
        if let Some(reason) = &self.refusal {
            return Err(Status::unknown(reason.clone()));
        }
        if wanted.version != VERSION {
            let text = format!("unsupported plugin API version {:?}", wanted.version);
            return Err(Status::unknown(text));
        }
        let is_extended = wanted
            .resource_name
            .split_once('/')
            .is_some_and(|(domain, _)| !domain.ends_with("kubernetes.io"));
        if !is_extended {
            let text = format!("{:?} is no extended resource", wanted.resource_name);
            return Err(Status::unknown(text));
        }
        Ok(())
    }
}

#[tonic::async_trait]
impl Registration for Desk {
    async fn register(&self, request: Request<RegisterRequest>) -> Result<Response<Empty>, Status> {
        let wanted = request.into_inner();
        self.check(&wanted)?;
        let resource = wanted.resource_name;
        // The kubelet connects before it answers: the plugin must be serving by now.
        let plugin = Box::pin(self.state.meet(&resource, &wanted.endpoint)).await?;
        let following = Box::pin(Arc::clone(&self.state).follow(resource, plugin));
        tokio::spawn(self.stop.clone().run_until_cancelled_owned(following));
        Ok(Response::new(Empty {}))
    }
}
