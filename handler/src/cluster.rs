//! The API server: the client, what is watched, what is written.

mod events;
mod instances;
mod kubevirt;
mod pace;

use std::fmt::Debug;
use std::path::PathBuf;
use std::time::Duration;

use api::error_chain::chain;
use futures::{Stream, StreamExt};
use kube::api::Api;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::{ApiResource, GroupVersionKind};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Client, Config, Resource};
use serde::de::DeserializeOwned;
use tracing::{debug, warn};

pub use events::{Event, Recorder};
pub use instances::{InstanceApi, WriteError, watch as watch_instances};
pub use kubevirt::{ClusterConfiguration, watch as watch_kubevirt};
use pace::Pace;

/// Time for a connection to the API server.
const CONNECT: Duration = Duration::from_secs(10);
/// Objects that one answer to a list has at most.
const PAGE_SIZE: u32 = 100;

/// Why there is no client of the API server.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// The file of `--kubeconfig` is of no use.
    #[error("--kubeconfig: read {}", path.display())]
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: Box<kube::config::KubeconfigError>,
    },
    /// Neither a pod's service account nor a configuration of the user's was found.
    #[error(
        "find the API server: there is neither a service account nor a kubeconfig; give --kubeconfig"
    )]
    Nowhere(#[source] Box<kube::config::InferConfigError>),
    /// The client cannot be made.
    #[error("make the client of the API server")]
    Client(#[source] Box<kube::Error>),
}

/// Returns a client of the API server: of the kubeconfig's, or of the cluster that this process runs in.
///
/// # Errors
///
/// Fails when the file is of no use, or there is no cluster around.
pub async fn client(kubeconfig: Option<&PathBuf>) -> Result<Client, ClusterError> {
    let mut config = match kubeconfig {
        Some(path) => from_file(path).await?,
        None => {
            let inferred = Config::infer().await;
            inferred.map_err(|error| ClusterError::Nowhere(Box::new(error)))?
        }
    };
    config.connect_timeout = Some(CONNECT);
    let builder = kube::client::ClientBuilder::try_from(config);
    let builder = builder.map_err(|error| ClusterError::Client(Box::new(error)))?;
    Ok(builder.with_layer(&Pace::default()).build())
}

async fn from_file(path: &PathBuf) -> Result<Config, ClusterError> {
    let wrong = |source| ClusterError::Kubeconfig {
        path: path.clone(),
        source: Box::new(source),
    };
    let file = Kubeconfig::read_from(path).map_err(wrong)?;
    let options = KubeConfigOptions::default();
    Config::from_custom_kubeconfig(file, &options)
        .await
        .map_err(wrong)
}

/// Returns how a kind of KubeVirt's is addressed.
fn resource(kind: &str, plural: &str) -> ApiResource {
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk("kubevirt.io", "v1", kind), plural)
}

/// Returns what happens to objects. It never ends: what fails is tried again after a while, which grows until something
/// succeeds.
pub(crate) fn watched<K>(
    api: Api<K>,
    config: watcher::Config,
) -> impl Stream<Item = watcher::Result<watcher::Event<K>>> + Send
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    // That a list begins is no success: the wait would start over with each attempt.
    let is_news = |event: &watcher::Result<watcher::Event<K>>| {
        std::future::ready(!matches!(event, Ok(watcher::Event::Init)))
    };
    let config = config.page_size(PAGE_SIZE);
    watcher(api, config).filter(is_news).default_backoff()
}

/// Tells of a watch's errors once each, however often they are repeated.
#[derive(Debug, Default)]
pub(crate) struct Complaints {
    last: String,
}

impl Complaints {
    pub(crate) fn tell(&mut self, what: &'static str, error: &watcher::Error) {
        let text = chain(error);
        if text == self.last {
            debug!(what, error = text, "still cannot watch");
        } else {
            warn!(what, error = text, "cannot watch; will try again");
            self.last = text;
        }
    }

    pub(crate) fn all_is_well(&mut self) {
        self.last.clear();
    }
}
