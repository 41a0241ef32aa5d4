//! The instances of this node as the API server last told of them.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use api::Vmi;
use serde::Deserialize;
use serde_json::Value;

use crate::key::VmiKey;

/// The instances of this node. Clones are handles of the same.
#[derive(Clone, Debug, Default)]
pub struct VmiStore {
    shared: Arc<RwLock<Instances>>,
}

#[derive(Debug, Default)]
struct Instances {
    by_key: HashMap<VmiKey, Stored>,
    /// Whether a whole list was read since the start.
    is_complete: bool,
    /// Keys of the list that is being read.
    listed: HashSet<VmiKey>,
}

/// An instance in both forms.
#[derive(Clone, Debug)]
pub struct Stored {
    /// As the API server wrote it, without who manages which field.
    pub raw: Arc<Value>,
    /// As our types read it, or why they couldn't.
    pub vmi: Result<Arc<Vmi>, String>,
}

impl Stored {
    /// Reads an instance.
    #[must_use]
    pub fn new(mut raw: Value) -> Self {
        if let Some(metadata) = raw.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.remove("managedFields");
        }
        let vmi = Vmi::deserialize(&raw)
            .map(Arc::new)
            .map_err(|error| error.to_string());
        Self {
            raw: Arc::new(raw),
            vmi,
        }
    }

    /// Returns the instance's uid.
    #[must_use]
    pub fn uid(&self) -> &str {
        self.metadata("uid")
    }

    fn metadata(&self, field: &str) -> &str {
        let metadata = self.raw.get("metadata");
        let value = metadata.and_then(|metadata| metadata.get(field)?.as_str());
        value.unwrap_or_default()
    }

    fn key(&self) -> VmiKey {
        VmiKey::new(self.metadata("namespace"), self.metadata("name"))
    }

    /// Returns the version as a number, which those of every API server in use are.
    fn version(&self) -> Option<u64> {
        self.metadata("resourceVersion").parse().ok()
    }

    /// Whether it tells nothing that the other doesn't.
    fn is_outdated_by(&self, other: &Self) -> bool {
        self.uid() == other.uid()
            && match (self.version(), other.version()) {
                (Some(ours), Some(theirs)) => ours <= theirs,
                _ => self.raw == other.raw,
            }
    }
}

impl VmiStore {
    /// Returns an instance.
    #[must_use]
    pub fn get(&self, key: &VmiKey) -> Option<Stored> {
        self.read().by_key.get(key).cloned()
    }

    /// Returns an instance as the API server wrote it.
    #[must_use]
    pub fn raw(&self, key: &VmiKey) -> Option<Arc<Value>> {
        self.read()
            .by_key
            .get(key)
            .map(|stored| Arc::clone(&stored.raw))
    }

    /// Returns every instance that our types can read.
    #[must_use]
    pub fn all(&self) -> Vec<(VmiKey, Arc<Vmi>)> {
        let instances = self.read();
        let readable = instances.by_key.iter();
        readable
            .filter_map(|(key, stored)| Some((key.clone(), Arc::clone(stored.vmi.as_ref().ok()?))))
            .collect()
    }

    /// Returns the keys of all instances.
    #[must_use]
    pub fn keys(&self) -> Vec<VmiKey> {
        self.read().by_key.keys().cloned().collect()
    }

    /// Returns the uids of all instances.
    #[must_use]
    pub fn uids(&self) -> Vec<String> {
        let instances = self.read();
        instances
            .by_key
            .values()
            .map(|stored| stored.uid().to_owned())
            .collect()
    }

    /// Whether an instance that is not here is known not to be on this node.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.read().is_complete
    }

    /// Takes over an instance unless it is older than the one that is here; returns its key when it is news.
    pub fn put(&self, raw: Value) -> Option<VmiKey> {
        self.take_over(Stored::new(raw), false)
    }

    /// Takes over an instance from a list that is being read; returns its key when it is news.
    pub fn put_listed(&self, raw: Value) -> Option<VmiKey> {
        self.take_over(Stored::new(raw), true)
    }

    fn take_over(&self, stored: Stored, is_listed: bool) -> Option<VmiKey> {
        let key = stored.key();
        let mut instances = self.write();
        if is_listed {
            instances.listed.insert(key.clone());
        }
        let known = instances.by_key.get(&key);
        if known.is_some_and(|known| stored.is_outdated_by(known)) {
            return None;
        }
        instances.by_key.insert(key.clone(), stored);
        Some(key)
    }

    /// Removes an instance, if it is the one of this uid.
    pub fn remove(&self, key: &VmiKey, uid: &str) {
        let mut instances = self.write();
        if instances
            .by_key
            .get(key)
            .is_some_and(|stored| stored.uid() == uid)
        {
            instances.by_key.remove(key);
        }
    }

    /// Begins to read a list, or to read it anew.
    pub fn begin_list(&self) {
        self.write().listed.clear();
    }

    /// Ends reading a list, and returns the keys of instances that were not in it.
    pub fn end_list(&self) -> Vec<VmiKey> {
        let mut instances = self.write();
        let listed = std::mem::take(&mut instances.listed);
        let gone = |key: &&VmiKey| !listed.contains(*key);
        let gone: Vec<VmiKey> = instances.by_key.keys().filter(gone).cloned().collect();
        for key in &gone {
            instances.by_key.remove(key);
        }
        instances.is_complete = true;
        gone
    }

    fn read(&self) -> RwLockReadGuard<'_, Instances> {
        self.shared.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Instances> {
        self.shared.write().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::VmiStore;
    use crate::key::VmiKey;

    fn instance(name: &str, version: &str) -> Value {
        json!({
            "metadata": {
                "namespace": "default", "name": name, "uid": format!("uid-{name}"),
                "resourceVersion": version, "managedFields": [{"manager": "x"}],
            },
            "spec": {"unknownField": 1},
        })
    }

    #[test]
    fn an_older_instance_does_not_replace_a_newer_one() {
        let store = VmiStore::default();
        let key = VmiKey::new("default", "a");
        assert_eq!(store.put(instance("a", "5")), Some(key.clone()));
        assert_eq!(store.put(instance("a", "4")), None);
        assert_eq!(store.put(instance("a", "5")), None);
        assert_eq!(store.put(instance("a", "12")), Some(key.clone()));
        let raw = store.raw(&key).unwrap();
        assert_eq!(raw["metadata"]["resourceVersion"], "12");
        assert_eq!(raw["spec"]["unknownField"], 1);
        assert_eq!(raw["metadata"].get("managedFields"), None);
    }

    #[test]
    fn what_a_list_leaves_out_is_gone() {
        let store = VmiStore::default();
        store.put(instance("a", "1"));
        store.put(instance("b", "1"));
        assert!(!store.is_complete());
        store.begin_list();
        store.put_listed(instance("a", "1"));
        // The list breaks off, and is read anew.
        store.begin_list();
        store.put_listed(instance("b", "1"));
        assert_eq!(store.end_list(), [VmiKey::new("default", "a")]);
        assert!(store.is_complete());
        assert_eq!(store.keys(), [VmiKey::new("default", "b")]);
    }

    #[test]
    fn an_instance_that_cannot_be_read_is_kept_with_the_reason() {
        let store = VmiStore::default();
        let mut odd = instance("a", "1");
        odd["spec"] = json!({"volumes": 7});
        let key = store.put(odd).unwrap();
        assert!(store.get(&key).unwrap().vmi.is_err());
        assert!(store.all().is_empty());
        assert_eq!(store.uids(), ["uid-a"]);
    }

    #[test]
    fn only_the_instance_of_the_uid_is_removed() {
        let store = VmiStore::default();
        let key = store.put(instance("a", "1")).unwrap();
        store.remove(&key, "uid-other");
        assert!(store.get(&key).is_some());
        store.remove(&key, "uid-a");
        assert!(store.get(&key).is_none());
    }
}
