//! The instances of this node as the API server last told of them.

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
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

/// An instance as the API server wrote it, without who manages which field. It is kept as text: its tree, which is
/// rarely looked at, takes several times as much memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawInstance(Arc<[u8]>);

impl RawInstance {
    fn new(tree: &Value) -> Self {
        Self(tree.to_string().into_bytes().into())
    }

    /// Returns its JSON.
    #[must_use]
    pub fn json(&self) -> &[u8] {
        &self.0
    }

    /// Returns its tree.
    ///
    /// # Panics
    ///
    /// Never: the text was written from a tree.
    #[must_use]
    pub fn tree(&self) -> Value {
        serde_json::from_slice(&self.0).expect("the text was written from a tree")
    }
}

/// An instance in both forms.
#[derive(Clone, Debug)]
pub struct Stored {
    /// As the API server wrote it.
    pub raw: RawInstance,
    /// As our types read it, or why they couldn't.
    pub vmi: Result<Arc<Vmi>, String>,
    /// Stands for its labels, annotations and spec, all that a launcher is told of it.
    pub wish: u64,
    key: VmiKey,
    uid: String,
    /// The version as a number, which those of every API server in use are.
    version: Option<u64>,
}

impl Stored {
    /// Reads an instance.
    #[must_use]
    pub fn new(mut tree: Value) -> Self {
        if let Some(metadata) = tree.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.remove("managedFields");
        }
        let metadata = |field: &str| {
            let value = tree.get("metadata").and_then(|it| it.get(field)?.as_str());
            value.unwrap_or_default()
        };
        let vmi = Vmi::deserialize(&tree)
            .map(Arc::new)
            .map_err(|error| error.to_string());
        Self {
            raw: RawInstance::new(&tree),
            vmi,
            wish: wish(&tree),
            key: VmiKey::new(metadata("namespace"), metadata("name")),
            uid: metadata("uid").to_owned(),
            version: metadata("resourceVersion").parse().ok(),
        }
    }

    /// Returns the instance's uid.
    #[must_use]
    pub fn uid(&self) -> &str {
        &self.uid
    }

    /// Whether it tells nothing that the other doesn't.
    fn is_outdated_by(&self, other: &Self) -> bool {
        self.uid == other.uid
            && match (self.version, other.version) {
                (Some(ours), Some(theirs)) => ours <= theirs,
                _ => self.raw == other.raw,
            }
    }
}

impl From<Value> for Stored {
    fn from(tree: Value) -> Self {
        Self::new(tree)
    }
}

/// Returns a number that stands for the labels, annotations and spec of an instance.
fn wish(tree: &Value) -> u64 {
    let mut hasher = DefaultHasher::new();
    for part in ["/metadata/labels", "/metadata/annotations", "/spec"] {
        tree.pointer(part).hash(&mut hasher);
    }
    hasher.finish()
}

impl VmiStore {
    /// Returns an instance.
    #[must_use]
    pub fn get(&self, key: &VmiKey) -> Option<Stored> {
        self.read().by_key.get(key).cloned()
    }

    /// Whether there is such an instance.
    #[must_use]
    pub fn has(&self, key: &VmiKey) -> bool {
        self.read().by_key.contains_key(key)
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
    pub fn put(&self, instance: impl Into<Stored>) -> Option<VmiKey> {
        self.take_over(instance.into(), false)
    }

    /// Takes over an instance from a list that is being read; returns its key when it is news.
    pub fn put_listed(&self, instance: impl Into<Stored>) -> Option<VmiKey> {
        self.take_over(instance.into(), true)
    }

    fn take_over(&self, stored: Stored, is_listed: bool) -> Option<VmiKey> {
        let key = stored.key.clone();
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

    use super::{Stored, VmiStore};
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
        let raw = store.get(&key).unwrap().raw.tree();
        assert_eq!(raw["metadata"]["resourceVersion"], "12");
        assert_eq!(raw["spec"]["unknownField"], 1);
        assert_eq!(raw["metadata"].get("managedFields"), None);
    }

    #[test]
    fn what_a_launcher_is_told_stands_for_the_wish() {
        let wish = |change: &dyn Fn(&mut Value)| {
            let mut changed = instance("a", "1");
            change(&mut changed);
            Stored::new(changed).wish
        };
        let as_it_was = wish(&|_| {});
        assert_eq!(
            wish(&|it| it["status"]["phase"] = json!("Running")),
            as_it_was
        );
        assert_eq!(
            wish(&|it| it["metadata"]["resourceVersion"] = json!("2")),
            as_it_was
        );
        for path in ["labels", "annotations"] {
            assert_ne!(
                wish(&|it| it["metadata"][path] = json!({"a": "b"})),
                as_it_was
            );
        }
        assert_ne!(wish(&|it| it["spec"]["unknownField"] = json!(2)), as_it_was);
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
