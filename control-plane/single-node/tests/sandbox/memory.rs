//! The API in memory, as far as pods need it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock, Weak};

use futures::future::ready;
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestStatus};
use k8s_openapi::api::core::v1::{
    ConfigMap, Event, PersistentVolume, PersistentVolumeClaim, Pod, Secret,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use single_node::pods::cluster::Answer;
use single_node::pods::{Cluster, ClusterError, Runner};

/// Objects by kind and name, and what was written.
#[derive(Default)]
pub(crate) struct Memory {
    runner: OnceLock<Weak<Runner>>,
    objects: Mutex<BTreeMap<(String, String), Value>>,
    pods: Mutex<BTreeMap<String, Value>>,
    events: Mutex<Vec<Event>>,
    /// Writes to the API, by pod.
    writes: Mutex<BTreeMap<String, usize>>,
}

impl Memory {
    pub(crate) fn tells(&self, runner: &Arc<Runner>) {
        self.runner.set(Arc::downgrade(runner)).unwrap();
    }

    /// Puts an object there, such as a `ConfigMap`.
    pub(crate) fn put(&self, kind: &str, object: Value) {
        let name = object["metadata"]["name"].as_str().unwrap().to_owned();
        self.objects
            .lock()
            .unwrap()
            .insert((kind.to_owned(), name), object);
    }

    /// Puts a pod there and tells the runner.
    pub(crate) fn put_pod(&self, pod: Value) {
        let name = pod["metadata"]["name"].as_str().unwrap().to_owned();
        self.pods.lock().unwrap().insert(name.clone(), pod);
        self.tell(&name);
    }

    /// Changes a pod, as a client of the API would.
    pub(crate) fn change(&self, name: &str, change: impl FnOnce(&mut Value)) {
        change(self.pods.lock().unwrap().get_mut(name).unwrap());
        self.tell(name);
    }

    /// Asks for a pod's end.
    pub(crate) fn delete_pod(&self, name: &str, grace_s: i64) {
        let at = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(grace_s);
        self.change(name, |pod| {
            pod["metadata"]["deletionTimestamp"] = json!(at.to_string());
            pod["metadata"]["deletionGracePeriodSeconds"] = json!(grace_s);
        });
    }

    fn tell(&self, name: &str) {
        let pod = self.pod(name);
        if let (Some(pod), Some(runner)) = (pod, self.runner.get().and_then(Weak::upgrade)) {
            runner.apply(serde_json::from_value(pod).unwrap());
        }
    }

    pub(crate) fn pod(&self, name: &str) -> Option<Value> {
        self.pods.lock().unwrap().get(name).cloned()
    }

    pub(crate) fn all_pods(&self) -> Vec<Value> {
        self.pods.lock().unwrap().values().cloned().collect()
    }

    pub(crate) fn writes(&self, name: &str) -> usize {
        self.writes
            .lock()
            .unwrap()
            .get(name)
            .copied()
            .unwrap_or_default()
    }

    pub(crate) fn warnings(&self) -> Vec<String> {
        let events = self.events.lock().unwrap();
        let text = |event: &Event| {
            format!(
                "{}: {}",
                event.reason.clone().unwrap_or_default(),
                event.message.clone().unwrap_or_default()
            )
        };
        events.iter().map(text).collect()
    }

    fn read<T: DeserializeOwned + Send + 'static>(
        &self,
        kind: &str,
        name: &str,
    ) -> Answer<Option<T>> {
        let found = self
            .objects
            .lock()
            .unwrap()
            .get(&(kind.to_owned(), name.to_owned()))
            .cloned();
        Box::pin(ready(Ok(
            found.map(|found| serde_json::from_value(found).unwrap())
        )))
    }

    fn merge(&self, name: &str, patch: &Value) -> Result<Pod, ClusterError> {
        let gone = || ClusterError::Gone {
            what: name.to_owned(),
        };
        let mut pods = self.pods.lock().unwrap();
        let pod = pods.get_mut(name).ok_or_else(gone)?;
        if pod["metadata"]["uid"] != patch["metadata"]["uid"] {
            return Err(gone());
        }
        for (key, value) in patch["status"].as_object().unwrap() {
            if key == "conditions" {
                let mut all = pod["status"]["conditions"]
                    .as_array()
                    .cloned()
                    .unwrap_or_default();
                for condition in value.as_array().unwrap() {
                    all.retain(|one| one["type"] != condition["type"]);
                    all.push(condition.clone());
                }
                pod["status"]["conditions"] = json!(all);
            } else {
                pod["status"][key] = value.clone();
            }
        }
        *self
            .writes
            .lock()
            .unwrap()
            .entry(name.to_owned())
            .or_default() += 1;
        Ok(serde_json::from_value(pod.clone()).unwrap())
    }
}

impl Cluster for Memory {
    fn secret(&self, _namespace: &str, name: &str) -> Answer<Option<Secret>> {
        self.read("Secret", name)
    }

    fn config_map(&self, _namespace: &str, name: &str) -> Answer<Option<ConfigMap>> {
        self.read("ConfigMap", name)
    }

    fn claim(&self, _namespace: &str, name: &str) -> Answer<Option<PersistentVolumeClaim>> {
        self.read("PersistentVolumeClaim", name)
    }

    fn volume(&self, name: &str) -> Answer<Option<PersistentVolume>> {
        self.read("PersistentVolume", name)
    }

    fn token(
        &self,
        _namespace: &str,
        account: &str,
        request: TokenRequest,
    ) -> Answer<TokenRequest> {
        let token = format!(
            "token of {account} for {}",
            request.spec.audiences.join(",")
        );
        let later = jiff::Timestamp::now() + jiff::SignedDuration::from_hours(1);
        let status = TokenRequestStatus {
            expiration_timestamp: Time(later),
            token,
        };
        Box::pin(ready(Ok(TokenRequest {
            status: Some(status),
            ..request
        })))
    }

    fn patch_status(&self, _namespace: &str, name: &str, patch: Value) -> Answer<Pod> {
        let merged = self.merge(name, &patch);
        self.tell(name);
        Box::pin(ready(merged))
    }

    fn delete(&self, _namespace: &str, name: &str, uid: &str) -> Answer<()> {
        let mut pods = self.pods.lock().unwrap();
        if pods
            .get(name)
            .is_some_and(|pod| pod["metadata"]["uid"] == uid)
        {
            pods.remove(name);
            if let Some(runner) = self.runner.get().and_then(Weak::upgrade) {
                runner.forget(uid);
            }
        }
        Box::pin(ready(Ok(())))
    }

    fn record(&self, _namespace: &str, event: Event) -> Answer<()> {
        self.events.lock().unwrap().push(event);
        Box::pin(ready(Ok(())))
    }
}
