//! The instances of this node: watching them, reading one, patching one.

use std::fmt;
use std::time::Duration;

use api::labels;
use futures::{StreamExt, pin_mut};
use json_patch::Patch as JsonPatch;
use kube::api::{Api, DynamicObject, Patch, PatchParams};
use kube::runtime::watcher::{self, Event};
use kube::{Client, ResourceExt};
use serde_json::Value;
use tokio::time::timeout;
use tracing::debug;

use super::{Complaints, resource, watched};
use crate::controller::Queue;
use crate::key::VmiKey;
use crate::store::VmiStore;

/// Time for an answer of the API server; admission by webhooks takes up to 10 s.
const ANSWER: Duration = Duration::from_secs(20);

/// Reads and patches instances.
#[derive(Clone)]
pub struct InstanceApi {
    client: Client,
}

impl fmt::Debug for InstanceApi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InstanceApi").finish_non_exhaustive()
    }
}

/// Why an instance could not be read or patched.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// Somebody else wrote in between.
    #[error("patch {0}: it is no longer what the patch was made from")]
    Outdated(VmiKey),
    /// There is no such instance any more.
    #[error("patch {0}: there is no such instance")]
    Gone(VmiKey),
    /// The API server says no, or nothing.
    #[error("ask the API server for {key}")]
    Refused {
        /// The instance.
        key: VmiKey,
        /// What it says.
        source: Box<kube::Error>,
    },
    /// The API server takes too long.
    #[error("ask the API server for {key}: no answer within {} s", ANSWER.as_secs())]
    TimedOut {
        /// The instance.
        key: VmiKey,
    },
}

impl InstanceApi {
    /// Makes the API from a client.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self { client }
    }

    fn of(&self, key: &VmiKey) -> Api<DynamicObject> {
        let resource = resource("VirtualMachineInstance", "virtualmachineinstances");
        Api::namespaced_with(self.client.clone(), &key.namespace, &resource)
    }

    /// Reads an instance; `None` when there is none.
    ///
    /// # Errors
    ///
    /// Fails when the API server doesn't tell.
    pub async fn get(&self, key: &VmiKey) -> Result<Option<Value>, WriteError> {
        let api = self.of(key);
        let answer = timeout(ANSWER, api.get_opt(&key.name)).await;
        let answer = answer.map_err(|_| WriteError::TimedOut { key: key.clone() })?;
        let found = answer.map_err(|error| refused(key, error))?;
        Ok(found.map(value))
    }

    /// Patches an instance, and returns it as it is then.
    ///
    /// # Errors
    ///
    /// Fails when the instance is not what the patch expects, is gone, or the API server doesn't do it.
    pub async fn patch(&self, key: &VmiKey, patch: JsonPatch) -> Result<Value, WriteError> {
        let api = self.of(key);
        let parameters = PatchParams {
            field_manager: Some(api::components::VIRT_HANDLER.to_owned()),
            ..PatchParams::default()
        };
        let patch = Patch::Json::<()>(patch);
        let answer = timeout(ANSWER, api.patch(&key.name, &parameters, &patch)).await;
        let answer = answer.map_err(|_| WriteError::TimedOut { key: key.clone() })?;
        answer.map(value).map_err(|error| refused(key, error))
    }
}

fn refused(key: &VmiKey, error: kube::Error) -> WriteError {
    match &error {
        kube::Error::Api(status) if status.code == 404 => WriteError::Gone(key.clone()),
        // A test operation that doesn't hold is "invalid", a racing write a "conflict".
        kube::Error::Api(status) if matches!(status.code, 409 | 422) => {
            WriteError::Outdated(key.clone())
        }
        _ => WriteError::Refused {
            key: key.clone(),
            source: Box::new(error),
        },
    }
}

fn value(object: DynamicObject) -> Value {
    serde_json::to_value(object).unwrap_or_default()
}

/// Keeps `store` as the API server has the instances of `node`, and queues those that changed. Never returns.
pub async fn watch(client: Client, node: String, store: VmiStore, queue: Queue) {
    let resource = resource("VirtualMachineInstance", "virtualmachineinstances");
    let api = Api::<DynamicObject>::all_with(client, &resource);
    let config = watcher::Config::default().labels(&format!("{}={node}", labels::NODE_NAME));
    let events = watched(api, config);
    pin_mut!(events);
    let mut complaints = Complaints::default();
    while let Some(event) = events.next().await {
        match event {
            Ok(event) => {
                complaints.all_is_well();
                follow(&store, &queue, event);
            }
            Err(error) => {
                complaints.tell("instances", &error);
                store.begin_list();
            }
        }
    }
}

fn follow(store: &VmiStore, queue: &Queue, event: Event<DynamicObject>) {
    match event {
        Event::Init => store.begin_list(),
        Event::InitApply(object) => {
            if let Some(key) = store.put_listed(value(object)) {
                queue.add(&key);
            }
        }
        Event::Apply(object) => {
            if let Some(key) = store.put(value(object)) {
                queue.add(&key);
            }
        }
        Event::Delete(object) => {
            let key = VmiKey::new(object.namespace().unwrap_or_default(), object.name_any());
            store.remove(&key, &object.uid().unwrap_or_default());
            queue.add(&key);
        }
        Event::InitDone => {
            debug!("instances are listed");
            let gone = store.end_list();
            // Whatever waited for the API server to come back need wait no longer.
            queue.hurry();
            gone.iter()
                .chain(&store.keys())
                .for_each(|key| queue.add(key));
        }
    }
}
