//! The endpoint's objects and the history of their changes.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use serde_json::{Value, json};

/// Changes that are kept for watches.
const HISTORY_MAX: usize = 20_000;

/// A resource: `kubevirt.io/v1/virtualmachineinstances`, `v1/nodes`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Resource {
    /// Group and version; a version alone for the core group.
    pub api_version: String,
    /// Name in the plural.
    pub plural: String,
}

impl Resource {
    /// Names a resource.
    #[must_use]
    pub fn new(api_version: &str, plural: &str) -> Self {
        Self {
            api_version: api_version.to_owned(),
            plural: plural.to_owned(),
        }
    }

    /// Instances.
    #[must_use]
    pub fn vmis() -> Self {
        Self::new("kubevirt.io/v1", "virtualmachineinstances")
    }

    /// Nodes.
    #[must_use]
    pub fn nodes() -> Self {
        Self::new("v1", "nodes")
    }

    /// Events.
    #[must_use]
    pub fn events() -> Self {
        Self::new("v1", "events")
    }

    /// Names an object of the resource; the namespace is empty for cluster-wide ones.
    #[must_use]
    pub fn key(&self, namespace: &str, name: &str) -> ObjectKey {
        ObjectKey {
            resource: self.clone(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        }
    }
}

/// Names an object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ObjectKey {
    /// Its resource.
    pub resource: Resource,
    /// Its namespace, or nothing.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// A change, for watches.
#[derive(Clone, Debug)]
pub(super) struct Change {
    pub(super) revision: u64,
    pub(super) resource: Resource,
    /// The object before, if it was there.
    pub(super) before: Option<Value>,
    /// The object after, if it is still there.
    pub(super) after: Option<Value>,
}

#[derive(Default)]
struct State {
    revision: u64,
    objects: BTreeMap<ObjectKey, Value>,
    history: VecDeque<Change>,
    /// Changes up to this revision are forgotten.
    compacted: u64,
}

/// All objects.
#[derive(Default)]
pub(super) struct Store {
    state: Mutex<State>,
    changed: Condvar,
    news: tokio::sync::Notify,
}

/// Read access for a waiting test.
pub(super) struct View<'a>(&'a State);

impl View<'_> {
    pub(super) fn get(&self, key: &ObjectKey) -> Option<Value> {
        self.0.objects.get(key).cloned()
    }

    /// Returns the first object of a resource that is as wanted.
    pub(super) fn find(
        &self,
        resource: &Resource,
        wanted: impl Fn(&Value) -> bool,
    ) -> Option<Value> {
        let mut objects = self.0.objects.iter();
        let found = objects.find(|(key, object)| key.resource == *resource && wanted(object));
        found.map(|(_, object)| object.clone())
    }
}

impl Store {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn revision(&self) -> u64 {
        self.lock().revision
    }

    pub(super) fn get(&self, key: &ObjectKey) -> Option<Value> {
        self.lock().objects.get(key).cloned()
    }

    pub(super) fn list(&self, resource: &Resource) -> Vec<Value> {
        let state = self.lock();
        let of_it = |(key, _): &(&ObjectKey, &Value)| key.resource == *resource;
        let objects = state.objects.iter().filter(of_it);
        objects.map(|(_, object)| object.clone()).collect()
    }

    pub(super) fn put(&self, resource: &Resource, mut object: Value) -> Value {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let name = text(&object["metadata"]["name"]);
        assert!(!name.is_empty(), "an object needs a name: {object}");
        let key = resource.key(&text(&object["metadata"]["namespace"]), &name);
        let mut state = self.lock();
        let uid = format!("00000000-0000-4000-8000-{:012x}", state.revision + 1);
        let metadata = object["metadata"].as_object_mut();
        metadata.map(|metadata| metadata.entry("uid").or_insert(json!(uid)));
        let after = state.store(key, Some(object));
        drop(state);
        self.tell();
        after.unwrap_or_default()
    }

    /// Changes an object if it is there.
    pub(super) fn change(&self, key: &ObjectKey, edit: impl FnOnce(&mut Value)) -> Option<Value> {
        self.try_change(key, |object| {
            edit(object);
            Ok::<(), std::convert::Infallible>(())
        })
        .map(|Ok(object)| object)
    }

    /// Changes an object if it is there and the change succeeds.
    pub(super) fn try_change<E>(
        &self,
        key: &ObjectKey,
        edit: impl FnOnce(&mut Value) -> Result<(), E>,
    ) -> Option<Result<Value, E>> {
        let mut state = self.lock();
        let mut object = state.objects.get(key)?.clone();
        let before = object.clone();
        if let Err(error) = edit(&mut object) {
            return Some(Err(error));
        }
        if object == before {
            return Some(Ok(object));
        }
        let is_gone = object["metadata"]["deletionTimestamp"].is_string()
            && object["metadata"]["finalizers"]
                .as_array()
                .is_none_or(Vec::is_empty);
        let stored = state.store(key.clone(), (!is_gone).then(|| object.clone()));
        drop(state);
        self.tell();
        Some(Ok(stored.unwrap_or(object)))
    }

    pub(super) fn remove(&self, key: &ObjectKey) -> Option<Value> {
        let mut state = self.lock();
        let before = state.objects.get(key).cloned()?;
        state.store(key.clone(), None);
        drop(state);
        self.tell();
        Some(before)
    }

    pub(super) fn compact(&self) {
        let mut state = self.lock();
        state.compacted = state.revision;
        state.history.clear();
    }

    /// Returns the changes after a revision, or `None` when they are forgotten.
    pub(super) fn changes_since(&self, revision: u64) -> Option<Vec<Change>> {
        let state = self.lock();
        let is_known = revision >= state.compacted;
        let later = state.history.iter().filter(|c| c.revision > revision);
        is_known.then(|| later.cloned().collect())
    }

    /// Returns when something changed after this was called.
    pub(super) fn news(&self) -> tokio::sync::futures::Notified<'_> {
        self.news.notified()
    }

    pub(super) fn wait<T>(
        &self,
        deadline: Instant,
        find: impl Fn(&View<'_>) -> Option<T>,
    ) -> Option<T> {
        let mut state = self.lock();
        loop {
            if let Some(found) = find(&View(&state)) {
                return Some(found);
            }
            let left = deadline.checked_duration_since(Instant::now())?;
            let waited = self.changed.wait_timeout(state, left);
            (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn tell(&self) {
        self.changed.notify_all();
        self.news.notify_waiters();
    }
}

impl State {
    fn store(&mut self, key: ObjectKey, mut after: Option<Value>) -> Option<Value> {
        self.revision += 1;
        if let Some(object) = &mut after {
            object["metadata"]["resourceVersion"] = json!(self.revision.to_string());
        }
        let change = Change {
            revision: self.revision,
            resource: key.resource.clone(),
            before: self.objects.get(&key).cloned(),
            after: after.clone(),
        };
        match &after {
            Some(object) => self.objects.insert(key, object.clone()),
            None => self.objects.remove(&key),
        };
        if self.history.len() == HISTORY_MAX {
            self.compacted = self.history.pop_front().map_or(0, |old| old.revision);
        }
        self.history.push_back(change);
        after
    }
}
