//! What the API server has, as far as the controllers look at it.
//!
//! Watches fill it. What a write answers goes in too, so that the next decision sees what the last one did although the
//! watch hasn't told yet; an older version never replaces a newer one, and what was deleted doesn't come back.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::Value;

use super::key::{Key, Kind};

/// Deleted objects that are remembered; answers of writes are never that far behind.
const BURIED_MAX: usize = 1024;

/// Objects by key. Clones are handles of the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cache {
    shared: Arc<Mutex<Objects>>,
}

#[derive(Debug, Default)]
struct Objects {
    by_key: BTreeMap<Key, Arc<Value>>,
    /// Objects by what [`owners`] says of them.
    by_owner: HashMap<String, HashSet<Key>>,
    buried: VecDeque<String>,
    /// What a list in progress has named so far.
    listed: HashMap<Kind, HashSet<Key>>,
}

impl Cache {
    /// Takes over an object, unless a newer version is known. Returns its key when it was news.
    pub(crate) fn put(&self, kind: Kind, mut object: Value) -> Option<Key> {
        trim(kind, &mut object);
        let key = Key::of(kind, &object)?;
        let mut objects = self.lock();
        // What was written while a list was on its way may be missing in it.
        if let Some(listed) = objects.listed.get_mut(&kind) {
            listed.insert(key.clone());
        }
        objects.put(&key, object).then_some(key)
    }

    /// Forgets an object of which the API server says that it is gone.
    pub(crate) fn remove(&self, key: &Key, uid: &str) {
        self.lock().remove(key, uid);
    }

    /// Returns an object.
    pub(crate) fn get(&self, key: &Key) -> Option<Arc<Value>> {
        self.lock().by_key.get(key).cloned()
    }

    /// Returns the objects of a kind that belong to the object with a uid.
    pub(crate) fn owned(&self, kind: Kind, uid: &str) -> Vec<Arc<Value>> {
        let objects = self.lock();
        let mut keys: Vec<&Key> = objects
            .by_owner
            .get(uid)
            .into_iter()
            .flatten()
            .filter(|key| key.kind == kind)
            .collect();
        keys.sort();
        keys.into_iter()
            .filter_map(|key| objects.by_key.get(key).cloned())
            .collect()
    }

    /// Returns the objects of a kind whose controller has this key, whatever its uid.
    pub(crate) fn of_owner_name(&self, kind: Kind, owner: &Key) -> Vec<Arc<Value>> {
        self.owned(
            kind,
            &owner_name(owner.kind.name(), &owner.namespace, &owner.name),
        )
    }

    /// Forgets the objects of a kind that an object of this key controlled.
    pub(crate) fn forget_owned(&self, kind: Kind, owner: &Key) {
        for object in self.of_owner_name(kind, owner) {
            if let Some(key) = Key::of(kind, &object) {
                self.lock().forget(&key);
            }
        }
    }

    /// Returns all objects of a kind.
    pub(crate) fn all(&self, kind: Kind) -> Vec<Arc<Value>> {
        let objects = self.lock();
        let of_kind = objects.by_key.iter().filter(|(key, _)| key.kind == kind);
        of_kind.map(|(_, object)| object.clone()).collect()
    }

    /// Begins a list of all objects of a kind.
    pub(crate) fn begin_list(&self, kind: Kind) {
        self.lock().listed.insert(kind, HashSet::new());
    }

    /// Ends a list: what it didn't name is gone. Returns the objects that went.
    pub(crate) fn end_list(&self, kind: Kind) -> Vec<Arc<Value>> {
        let mut objects = self.lock();
        let Some(listed) = objects.listed.remove(&kind) else {
            return Vec::new();
        };
        let gone: Vec<(Key, Arc<Value>)> = objects
            .by_key
            .iter()
            .filter(|(key, _)| key.kind == kind && !listed.contains(*key))
            .map(|(key, object)| (key.clone(), object.clone()))
            .collect();
        for (key, _) in &gone {
            objects.forget(key);
        }
        gone.into_iter().map(|(_, object)| object).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Objects> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Objects {
    fn put(&mut self, key: &Key, object: Value) -> bool {
        let is_buried = self.buried.iter().any(|buried| buried == uid(&object));
        if is_buried && !uid(&object).is_empty() {
            return false;
        }
        if let Some(known) = self.by_key.get(key) {
            if uid(known) == uid(&object) && version(known) >= version(&object) {
                return false;
            }
            self.forget(key);
        }
        for owner in owners(&object) {
            self.by_owner.entry(owner).or_default().insert(key.clone());
        }
        self.by_key.insert(key.clone(), Arc::new(object));
        true
    }

    fn remove(&mut self, key: &Key, gone: &str) {
        if !gone.is_empty() {
            self.buried.push_back(gone.to_owned());
            if self.buried.len() > BURIED_MAX {
                self.buried.pop_front();
            }
        }
        if self.by_key.get(key).is_some_and(|known| uid(known) == gone) {
            self.forget(key);
        }
    }

    fn forget(&mut self, key: &Key) {
        let Some(known) = self.by_key.remove(key) else {
            return;
        };
        for owner in owners(&known) {
            if let Some(keys) = self.by_owner.get_mut(&owner) {
                keys.remove(key);
                if keys.is_empty() {
                    self.by_owner.remove(&owner);
                }
            }
        }
    }
}

/// Returns an object's uid.
pub(crate) fn uid(object: &Value) -> &str {
    object
        .pointer("/metadata/uid")
        .and_then(Value::as_str)
        .unwrap_or_default()
}

/// A version that can be compared; API servers number them (they promise so since 1.35).
fn version(object: &Value) -> Option<u64> {
    object
        .pointer("/metadata/resourceVersion")?
        .as_str()?
        .parse()
        .ok()
}

/// What an object is found by: the uids and names of its controllers, and the uid of the instance whose label it carries.
fn owners(object: &Value) -> Vec<String> {
    let text = |value: &Value, field: &str| value[field].as_str().unwrap_or_default().to_owned();
    let references = object
        .pointer("/metadata/ownerReferences")
        .and_then(Value::as_array);
    let controllers = references
        .into_iter()
        .flatten()
        .filter(|owner| owner["controller"] == true);
    let namespace = text(&object["metadata"], "namespace");
    let mut owners: Vec<String> = controllers
        .flat_map(|owner| {
            let name = owner_name(&text(owner, "kind"), &namespace, &text(owner, "name"));
            [text(owner, "uid"), name]
        })
        .collect();
    let labels = object.pointer("/metadata/labels");
    owners.extend(labels.map(|labels| text(labels, api::labels::CREATED_BY)));
    owners.retain(|owner| !owner.is_empty());
    owners.sort();
    owners.dedup();
    owners
}

/// No uid looks like that.
fn owner_name(kind: &str, namespace: &str, name: &str) -> String {
    format!("{kind} {namespace}/{name}")
}

/// Drops what no decision looks at, which is most of what pods and nodes weigh.
fn trim(kind: Kind, object: &mut Value) {
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
    }
    match kind {
        Kind::Pod => keep(
            object,
            "spec",
            &["nodeName", "containers", "readinessGates", "priority"],
        ),
        Kind::Node => {
            keep(object, "spec", &["taints", "unschedulable"]);
            keep(object, "status", &[]);
        }
        _ => {}
    }
    if kind == Kind::Pod
        && let Some(containers) = object.pointer_mut("/spec/containers")
    {
        for container in containers.as_array_mut().into_iter().flatten() {
            keep_fields(container, &["name", "image"]);
        }
    }
}

fn keep(object: &mut Value, part: &str, fields: &[&str]) {
    if let Some(part) = object.get_mut(part) {
        keep_fields(part, fields);
    }
}

fn keep_fields(object: &mut Value, fields: &[&str]) {
    if let Some(object) = object.as_object_mut() {
        object.retain(|field, _| fields.contains(&field.as_str()));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{Cache, Key, Kind};

    fn pod(name: &str, uid: &str, version: u64) -> Value {
        json!({
            "metadata": {
                "name": name, "namespace": "ns", "uid": uid, "resourceVersion": version.to_string(),
                "labels": {"kubevirt.io/created-by": "vmi-1"},
                "managedFields": [{}],
            },
            "spec": {"nodeName": "n", "volumes": [{}], "containers": [{"name": "compute", "image": "i", "env": []}]},
        })
    }

    #[test]
    fn an_older_version_doesnt_replace_a_newer_one() {
        let cache = Cache::default();
        assert!(cache.put(Kind::Pod, pod("p", "u", 10)).is_some());
        assert!(cache.put(Kind::Pod, pod("p", "u", 9)).is_none());
        assert!(cache.put(Kind::Pod, pod("p", "u", 10)).is_none());
        assert!(cache.put(Kind::Pod, pod("p", "u", 11)).is_some());
        // Another object of the same name counts from the start.
        assert!(cache.put(Kind::Pod, pod("p", "v", 1)).is_some());
    }

    #[test]
    fn what_was_deleted_doesnt_come_back() {
        let cache = Cache::default();
        let key = Key::new(Kind::Pod, "ns", "p");
        cache.put(Kind::Pod, pod("p", "u", 10));
        cache.remove(&key, "u");
        assert!(cache.put(Kind::Pod, pod("p", "u", 11)).is_none());
        assert!(cache.get(&key).is_none() && cache.owned(Kind::Pod, "vmi-1").is_empty());
        cache.put(Kind::Pod, pod("p", "v", 12));
        cache.remove(&key, "u");
        assert!(cache.get(&key).is_some());
    }

    #[test]
    fn what_a_list_doesnt_name_is_gone() {
        let cache = Cache::default();
        cache.put(Kind::Pod, pod("a", "u1", 1));
        cache.put(Kind::Pod, pod("b", "u2", 2));
        cache.begin_list(Kind::Pod);
        cache.put(Kind::Pod, pod("b", "u2", 2));
        let gone = cache.end_list(Kind::Pod);
        assert_eq!(gone.len(), 1);
        assert_eq!(gone[0]["metadata"]["name"], "a");
        assert_eq!(cache.owned(Kind::Pod, "vmi-1").len(), 1);
    }

    #[test]
    fn what_nobody_looks_at_is_dropped() {
        let cache = Cache::default();
        cache.put(Kind::Pod, pod("p", "u", 1));
        let kept = cache.get(&Key::new(Kind::Pod, "ns", "p")).unwrap();
        assert!(kept["metadata"].get("managedFields").is_none());
        assert_eq!(
            kept["spec"],
            json!({"nodeName": "n", "containers": [{"name": "compute", "image": "i"}]})
        );
    }
}
