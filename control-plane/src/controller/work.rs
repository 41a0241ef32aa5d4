//! The controllers' work: take a key, observe, plan, act.

mod observe;

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use api::error_chain::chain;
use jiff::Timestamp;
use json_patch::Patch;
use serde_json::Value;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::actions::Action;
use super::api_server::{ApiError, ApiServer};
use super::cache::{Cache, uid};
use super::change::{self, text};
use super::configuration::Config;
use super::events::{Event, Recorder};
use super::instance::Past;
use super::key::{Key, Kind};
use super::queue::Queue;
use super::{Options, serve, watch};

/// Wait before a decision is made anew because somebody else wrote meanwhile.
const MEANWHILE: Duration = Duration::from_millis(20);

/// What all workers share.
#[derive(Debug)]
pub(crate) struct Work {
    pub(crate) options: Options,
    pub(crate) server: ApiServer,
    pub(crate) cache: Cache,
    pub(crate) queue: Queue,
    pub(crate) recorder: Recorder,
    pasts: Mutex<HashMap<Key, Past>>,
    importer: Mutex<Option<(Instant, bool)>>,
    config: Mutex<Option<Read>>,
}

/// What the `KubeVirt` object said when it was last read.
#[derive(Debug)]
struct Read {
    source: Option<Arc<Value>>,
    config: Arc<Config>,
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
            importer: Mutex::default(),
            config: Mutex::default(),
        }
    }

    /// Works on keys as they come. Never returns.
    pub(crate) async fn run(self: Arc<Self>) {
        loop {
            let key = self.queue.next().await;
            serve::DECISIONS[0].fetch_add(1, Ordering::Relaxed);
            match Box::pin(self.look_at(&key)).await {
                Ok(()) => self.queue.done(&key),
                // Somebody else got on, so there is no end of this without an end of that.
                Err(ApiError::Outdated(written)) => {
                    debug!(object = %key, %written, "others wrote meanwhile; decides anew");
                    self.queue.done(&key);
                    self.queue.add_at(&key, Instant::now() + MEANWHILE);
                }
                Err(error) => {
                    serve::DECISIONS[1].fetch_add(1, Ordering::Relaxed);
                    let text = chain(&error);
                    warn!(object = %key, error = text, "failed; will try again");
                    self.queue.failed(&key);
                }
            }
        }
    }

    async fn look_at(&self, key: &Key) -> Result<(), ApiError> {
        let now = Timestamp::now();
        let actions = match key.kind {
            Kind::Instance => Box::pin(self.plan_instance(key, now)).await?,
            Kind::Machine => Box::pin(self.plan_machine(key, now)).await?,
            Kind::ReplicaSet => self.plan_replica_set(key, now),
            Kind::Migration => self.plan_migration(key, now),
            Kind::Node => self.plan_node(key, now),
            _ => Vec::new(),
        };
        for action in actions {
            Box::pin(self.act(key, action)).await?;
        }
        Ok(())
    }

    /// Returns what decisions depend on beside the objects.
    fn config(&self) -> Arc<Config> {
        let all = self.cache.all(Kind::KubeVirt);
        let of_ours = |kubevirt: &&Arc<Value>| {
            text(kubevirt, "/metadata/namespace") == self.options.namespace
        };
        let kubevirt = all.iter().find(of_ours).or(all.first());
        let mut known = self.config.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(read) = known.as_ref()
            && read.source.as_ref().map(Arc::as_ptr) == kubevirt.map(Arc::as_ptr)
        {
            return Arc::clone(&read.config);
        }
        let config = Arc::new(Config::new(&self.options, kubevirt.map(AsRef::as_ref)));
        *known = Some(Read {
            source: kubevirt.cloned(),
            config: Arc::clone(&config),
        });
        config
    }

    fn pasts(&self) -> MutexGuard<'_, HashMap<Key, Past>> {
        self.pasts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn act(&self, about: &Key, action: Action) -> Result<(), ApiError> {
        match action {
            Action::Create { key, object } => self.create(about, &key, &object).await,
            Action::Patch { key, part, patch } => {
                let answer = self.server.patch(&key, part, &patch).await;
                self.settle(&key, &patch, answer).await
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
            Action::LookAt(other) => {
                self.queue.add(&other);
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
                self.take_over(key.kind, created);
                self.queue.add(about);
                Ok(())
            }
            Err(ApiError::Exists(_)) if !matches!(key.kind, Kind::Pod | Kind::Instance) => Ok(()),
            Err(ApiError::Exists(_)) => {
                let found = self.server.get(key).await?;
                if found.is_some_and(|found| self.take_over(key.kind, found)) {
                    return Err(ApiError::Outdated(key.clone()));
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
            other => chain(other),
        };
        let text = match key.kind {
            Kind::Pod => format!("Error creating pod: {text}"),
            kind => format!("cannot create {} {}: {text}", kind.name(), key.name),
        };
        let owner = self.cache.get(about);
        let owner = owner.as_deref().map(uid).unwrap_or_default();
        let event = Event::warning(about, owner, "FailedCreate", text.clone());
        self.recorder.record(event);
        self.pasts().entry(about.clone()).or_default().trouble = Some(text);
    }

    /// Takes over what a write answers. To the watch it will be no news, so those whom it concerns are told here, and among
    /// them who wrote: what follows from a change is decided anew. Returns whether it is news.
    fn take_over(&self, written: Kind, object: Value) -> bool {
        let concerned = watch::concerned(written, &object, &self.cache);
        let is_news = self.cache.put(written, object).is_some();
        if is_news {
            concerned.iter().for_each(|key| self.queue.add(key));
        }
        is_news
    }

    /// Takes over the answer to a change.
    async fn settle(
        &self,
        key: &Key,
        patch: &Patch,
        answer: Result<Value, ApiError>,
    ) -> Result<(), ApiError> {
        match answer {
            Ok(object) => {
                self.take_over(key.kind, object);
                Ok(())
            }
            Err(ApiError::Gone(_)) => {
                let known = self.cache.get(key);
                self.cache.remove(key, known.as_deref().map_or("", uid));
                Ok(())
            }
            Err(error) => {
                // API servers call a test that doesn't hold by the same name as a change that makes no sense: it was a test
                // when the object is no longer what it was.
                let Ok(Some(found)) = self.server.get(key).await else {
                    return Err(error);
                };
                let is_outdated = change::made_from(patch)
                    .is_some_and(|version| version != text(&found, "/metadata/resourceVersion"));
                self.take_over(key.kind, found);
                if is_outdated {
                    Err(ApiError::Outdated(key.clone()))
                } else {
                    Err(error)
                }
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
                self.take_over(key.kind, object);
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

#[cfg(test)]
mod tests;
