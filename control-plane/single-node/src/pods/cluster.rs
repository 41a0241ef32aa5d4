//! What the runner of pods needs of the API.

use std::fmt::Debug;

use api::error_chain::chain;
use futures::future::BoxFuture;
use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::core::v1::{
    ConfigMap, Event, PersistentVolume, PersistentVolumeClaim, Pod, Secret, ServiceAccount,
};
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Client, Resource};
use serde::de::DeserializeOwned;
use serde_json::Value;

/// Why the API did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// The object is not there, or is another of the same name.
    #[error("{what} is not there")]
    Gone {
        /// Which.
        what: String,
    },
    /// It refused or cannot be reached.
    #[error("{what}: {reason}")]
    Failed {
        /// What was asked for.
        what: String,
        /// The whole chain of reasons.
        reason: String,
    },
}

/// Answer of the API.
pub type Answer<T> = BoxFuture<'static, Result<T, ClusterError>>;

/// The API, as far as pods need it. Objects that are not there are `None`.
pub trait Cluster: Send + Sync + 'static {
    /// Reads a secret.
    fn secret(&self, namespace: &str, name: &str) -> Answer<Option<Secret>>;
    /// Reads a config map.
    fn config_map(&self, namespace: &str, name: &str) -> Answer<Option<ConfigMap>>;
    /// Reads a claim.
    fn claim(&self, namespace: &str, name: &str) -> Answer<Option<PersistentVolumeClaim>>;
    /// Reads a volume.
    fn volume(&self, name: &str) -> Answer<Option<PersistentVolume>>;
    /// Asks for a token of a service account.
    fn token(&self, namespace: &str, account: &str, request: TokenRequest) -> Answer<TokenRequest>;
    /// Changes a pod's status by a strategic merge patch that names the pod's uid.
    fn patch_status(&self, namespace: &str, name: &str, patch: Value) -> Answer<Pod>;
    /// Deletes a pod at once if it has this uid.
    fn delete(&self, namespace: &str, name: &str, uid: &str) -> Answer<()>;
    /// Writes an event.
    fn record(&self, namespace: &str, event: Event) -> Answer<()>;
}

/// The API through a client.
#[derive(Clone)]
pub struct KubeCluster {
    client: Client,
}

impl KubeCluster {
    /// The API that the client reaches.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self { client }
    }

    fn get<K>(&self, api: Api<K>, what: &str, name: &str) -> Answer<Option<K>>
    where
        K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
    {
        let (what, name) = (format!("read {what} {name}"), name.to_owned());
        Box::pin(async move {
            api.get_opt(&name)
                .await
                .map_err(|error| failed(what, &error))
        })
    }
}

fn failed(what: String, error: &kube::Error) -> ClusterError {
    match error {
        kube::Error::Api(status) if status.code == 404 || status.code == 409 => {
            ClusterError::Gone { what }
        }
        _ => ClusterError::Failed {
            what,
            reason: chain(error),
        },
    }
}

impl Cluster for KubeCluster {
    fn secret(&self, namespace: &str, name: &str) -> Answer<Option<Secret>> {
        self.get(
            Api::namespaced(self.client.clone(), namespace),
            "secret",
            name,
        )
    }

    fn config_map(&self, namespace: &str, name: &str) -> Answer<Option<ConfigMap>> {
        self.get(
            Api::namespaced(self.client.clone(), namespace),
            "config map",
            name,
        )
    }

    fn claim(&self, namespace: &str, name: &str) -> Answer<Option<PersistentVolumeClaim>> {
        let api = Api::namespaced(self.client.clone(), namespace);
        self.get(api, "persistent volume claim", name)
    }

    fn volume(&self, name: &str) -> Answer<Option<PersistentVolume>> {
        self.get(Api::all(self.client.clone()), "persistent volume", name)
    }

    fn token(&self, namespace: &str, account: &str, request: TokenRequest) -> Answer<TokenRequest> {
        let api: Api<ServiceAccount> = Api::namespaced(self.client.clone(), namespace);
        let account = account.to_owned();
        Box::pin(async move {
            let made = api
                .create_token_request(&account, &PostParams::default(), &request)
                .await;
            made.map_err(|error| {
                failed(
                    format!("ask for a token of service account {account}"),
                    &error,
                )
            })
        })
    }

    fn patch_status(&self, namespace: &str, name: &str, patch: Value) -> Answer<Pod> {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        let name = name.to_owned();
        Box::pin(async move {
            let patch = Patch::Strategic(&patch);
            let patched = api
                .patch_status(&name, &PatchParams::default(), &patch)
                .await;
            patched.map_err(|error| failed(format!("write the status of pod {name}"), &error))
        })
    }

    fn delete(&self, namespace: &str, name: &str, uid: &str) -> Answer<()> {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        let (name, uid) = (name.to_owned(), uid.to_owned());
        Box::pin(async move {
            let preconditions = Preconditions {
                uid: Some(uid),
                resource_version: None,
            };
            let parameters = DeleteParams::default()
                .grace_period(0)
                .preconditions(preconditions);
            let deleted = api.delete(&name, &parameters).await;
            deleted
                .map(|_| ())
                .map_err(|error| failed(format!("delete pod {name}"), &error))
        })
    }

    fn record(&self, namespace: &str, event: Event) -> Answer<()> {
        let api: Api<Event> = Api::namespaced(self.client.clone(), namespace);
        Box::pin(async move {
            let written = api.create(&PostParams::default(), &event).await;
            written
                .map(|_| ())
                .map_err(|error| failed("write an event".to_owned(), &error))
        })
    }
}
