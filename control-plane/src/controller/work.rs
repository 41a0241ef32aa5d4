//! The controllers' work: take a key, observe, plan, act.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use api::Vmi;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::actions::Action;
use super::api_server::{ApiError, ApiServer};
use super::cache::{Cache, uid};
use super::change::text;
use super::configuration::Config;
use super::events::{Event, Recorder};
use super::instance;
use super::key::{Key, Kind};
use super::pod::Claims;
use super::queue::Queue;
use super::{Options, error_chain};

/// What all workers share.
#[derive(Debug)]
pub(crate) struct Work {
    pub(crate) options: Options,
    pub(crate) server: ApiServer,
    pub(crate) cache: Cache,
    pub(crate) queue: Queue,
    pub(crate) recorder: Recorder,
    pasts: Mutex<HashMap<Key, instance::Past>>,
}

impl Work {
    /// Makes it.
    pub(crate) fn new(
        options: Options,
        server: ApiServer,
        cache: Cache,
        queue: Queue,
        recorder: Recorder,
    ) -> Self {
        Self {
            options,
            server,
            cache,
            queue,
            recorder,
            pasts: Mutex::default(),
        }
    }

    /// Works on keys as they come. Never returns.
    pub(crate) async fn run(self: Arc<Self>) {
        loop {
            let key = self.queue.next().await;
            match Box::pin(self.look_at(&key)).await {
                Ok(()) => self.queue.done(&key),
                Err(error) => {
                    let text = error_chain(&error);
                    match &error {
                        ApiError::Outdated(_) => debug!(object = %key, error = text, "again"),
                        _ => warn!(object = %key, error = text, "failed; will try again"),
                    }
                    self.queue.failed(&key);
                }
            }
        }
    }

    async fn look_at(&self, key: &Key) -> Result<(), ApiError> {
        let now = Timestamp::now();
        let config = self.config();
        let actions = match key.kind {
            Kind::Instance => self.plan_instance(key, now, &config),
            _ => Vec::new(),
        };
        for action in actions {
            self.act(key, action).await?;
        }
        Ok(())
    }

    /// Returns what decisions depend on beside the objects.
    fn config(&self) -> Config {
        let all = self.cache.all(Kind::KubeVirt);
        let of_ours = |kubevirt: &&Arc<Value>| {
            text(kubevirt, "/metadata/namespace") == self.options.namespace
        };
        let kubevirt = all.iter().find(of_ours).or(all.first());
        Config::new(&self.options, kubevirt.map(AsRef::as_ref))
    }

    fn plan_instance(&self, key: &Key, now: Timestamp, config: &Config) -> Vec<Action> {
        let Some(raw) = self.cache.get(key) else {
            self.pasts().remove(key);
            return Vec::new();
        };
        let vmi = match Vmi::deserialize(raw.as_ref()) {
            Ok(vmi) => vmi,
            Err(error) => {
                warn!(object = %key, %error, "cannot be read; left alone");
                return Vec::new();
            }
        };
        let pods = self.cache.owned(Kind::Pod, uid(&raw));
        let claims: Claims = instance::claim_names(&vmi)
            .into_iter()
            .filter_map(|name| {
                let claim = self.cache.get(&key.sibling(Kind::Claim, &name))?;
                Some((name, claim))
            })
            .collect();
        let past = self.past(key, now, !pods.is_empty());
        let observed = instance::Observed {
            raw: &raw,
            vmi: &vmi,
            pods: &pods,
            claims: &claims,
            node_is_dead: false,
            past: &past,
        };
        instance::plan(now, &observed, config)
    }

    /// Returns what is remembered of an instance, and remembers since when it has no pod.
    fn past(&self, key: &Key, now: Timestamp, has_pods: bool) -> instance::Past {
        let mut pasts = self.pasts();
        let past = pasts.entry(key.clone()).or_default();
        if has_pods {
            *past = instance::Past::default();
        } else {
            past.podless_since.get_or_insert(now);
        }
        past.clone()
    }

    fn pasts(&self) -> MutexGuard<'_, HashMap<Key, instance::Past>> {
        self.pasts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn act(&self, about: &Key, action: Action) -> Result<(), ApiError> {
        match action {
            Action::Create { key, object } => self.create(about, &key, &object).await,
            Action::Patch { key, part, patch } => {
                let answer = self.server.patch(&key, part, &patch).await;
                self.settle(&key, answer).await
            }
            Action::Delete {
                key,
                uid,
                grace_seconds,
            } => {
                let answer = self.server.delete(&key, &uid, grace_seconds).await;
                self.settle_deletion(&key, &uid, answer)
            }
            Action::Tell(event) => {
                self.recorder.record(event);
                Ok(())
            }
            Action::LookAgain(at) => {
                let wait = super::time::since(Timestamp::now(), at);
                self.queue.add_at(about, Instant::now() + wait);
                Ok(())
            }
        }
    }

    async fn create(&self, about: &Key, key: &Key, object: &Value) -> Result<(), ApiError> {
        match self.server.create(key, object).await {
            Ok(created) => {
                info!(object = %key, "created");
                self.cache.put(key.kind, created);
                // What follows from it is decided once its own news come.
                self.queue.add(about);
                Ok(())
            }
            Err(ApiError::Exists(_)) => {
                let found = self.server.get(key).await?;
                let is_news = found.and_then(|found| self.cache.put(key.kind, found));
                if is_news.is_some() {
                    return Ok(());
                }
                Err(ApiError::Exists(key.clone()))
            }
            Err(error) => {
                self.note_trouble(about, key, &error);
                Err(error)
            }
        }
    }

    /// Remembers why an instance has no pod, and tells of it.
    fn note_trouble(&self, about: &Key, key: &Key, error: &ApiError) {
        let text = match error {
            ApiError::Refused { message, .. } => message.clone(),
            other => error_chain(other),
        };
        let text = format!("Error creating pod: {text}");
        let owner = self.cache.get(about);
        let owner = owner.as_deref().map(uid).unwrap_or_default();
        let event = Event::warning(about, owner, "FailedCreate", text.clone());
        self.recorder.record(event);
        if key.kind == Kind::Pod {
            self.pasts().entry(about.clone()).or_default().trouble = Some(text);
        }
    }

    /// Takes over the answer to a change.
    async fn settle(&self, key: &Key, answer: Result<Value, ApiError>) -> Result<(), ApiError> {
        match answer {
            Ok(object) => {
                self.cache.put(key.kind, object);
                Ok(())
            }
            Err(ApiError::Gone(_)) => {
                let known = self.cache.get(key);
                self.cache.remove(key, known.as_deref().map_or("", uid));
                Ok(())
            }
            Err(error) => {
                // Whether the cache is behind or the change makes no sense: the next attempt starts from what is.
                if let Ok(Some(object)) = self.server.get(key).await {
                    self.cache.put(key.kind, object);
                }
                Err(error)
            }
        }
    }

    fn settle_deletion(
        &self,
        key: &Key,
        uid: &str,
        answer: Result<Value, ApiError>,
    ) -> Result<(), ApiError> {
        match answer {
            // An object that waits for somebody comes back with its time of deletion; a status means that it is gone.
            Ok(object) if object["kind"] != "Status" => {
                self.cache.put(key.kind, object);
                Ok(())
            }
            Ok(_) | Err(ApiError::Gone(_) | ApiError::Outdated(_)) => {
                self.cache.remove(key, uid);
                Ok(())
            }
            Err(error) => Err(error),
        }
    }
}
