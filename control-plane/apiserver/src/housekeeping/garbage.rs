//! Owners and dependents (Kubernetes "Garbage Collection"), decided without doing it.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::catalog::Resource;
use crate::store::{Owner, Stored};

/// Keeps an owner until those that block its deletion are gone.
const FOREGROUND: &str = "foregroundDeletion";
/// Keeps an owner until its dependents have forgotten it.
const ORPHAN: &str = "orphan";

/// An object with what makes it somebody's dependent or owner.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dependent {
    /// Path of the object.
    pub path: String,
    /// Namespace, empty for what is in none.
    pub namespace: String,
    /// Identity.
    pub uid: String,
    /// `metadata.resourceVersion`.
    pub revision: u64,
    /// Its owners.
    pub owners: Vec<Owner>,
    /// Finalizers, of an object that is being deleted.
    pub finalizers: Vec<String>,
    /// Whether it is being deleted.
    pub is_deleting: bool,
}

/// Something to be done.
#[derive(Clone, Debug, PartialEq)]
pub enum Duty {
    /// Delete an object, if it is still that one.
    Delete {
        /// Path of the object.
        path: String,
        /// Its identity.
        uid: String,
    },
    /// Change an object by a JSON patch that tests its revision.
    Change {
        /// Path of the object.
        path: String,
        /// The patch.
        patch: Value,
    },
}

impl Dependent {
    /// Returns what counts of a stored object.
    #[must_use]
    pub fn of(resource: &Resource, stored: &Stored) -> Self {
        let finalizers = if stored.is_deleting {
            let object: Value = serde_json::from_slice(&stored.json).unwrap_or_default();
            let listed = object["metadata"]["finalizers"]
                .as_array()
                .into_iter()
                .flatten();
            listed
                .filter_map(Value::as_str)
                .map(str::to_owned)
                .collect()
        } else {
            Vec::new()
        };
        Self {
            path: resource.path(&stored.namespace, &stored.name),
            namespace: stored.namespace.clone(),
            uid: stored.uid.clone(),
            revision: stored.revision,
            owners: stored.owners.clone(),
            finalizers,
            is_deleting: stored.is_deleting,
        }
    }

    fn has(&self, finalizer: &str) -> bool {
        self.is_deleting && self.finalizers.iter().any(|it| it == finalizer)
    }

    fn change(&self, mut operations: Vec<Value>) -> Duty {
        let revision = self.revision.to_string();
        operations.insert(
            0,
            json!({"op": "test", "path": "/metadata/resourceVersion", "value": revision}),
        );
        Duty::Change {
            path: self.path.clone(),
            patch: operations.into(),
        }
    }

    fn without_finalizer(&self, gone: &str) -> Duty {
        let left: Vec<_> = self.finalizers.iter().filter(|it| *it != gone).collect();
        self.change(vec![
            json!({"op": "replace", "path": "/metadata/finalizers", "value": left}),
        ])
    }

    fn without_owners(&self, gone: &dyn Fn(&Owner) -> bool) -> Duty {
        let mut operations = Vec::new();
        // From the last on, so that places stay what they are.
        for (place, owner) in self.owners.iter().enumerate().rev() {
            if gone(owner) {
                let path = format!("/metadata/ownerReferences/{place}");
                operations
                    .push(json!({"op": "test", "path": format!("{path}/uid"), "value": owner.uid}));
                operations.push(json!({"op": "remove", "path": path}));
            }
        }
        self.change(operations)
    }
}

/// Returns what is to be done about objects: all that there are.
#[must_use]
pub fn duties(objects: &[Dependent]) -> Vec<Duty> {
    let by_uid: BTreeMap<&str, &Dependent> =
        objects.iter().map(|it| (it.uid.as_str(), it)).collect();
    let mut duties: Vec<_> = objects
        .iter()
        .filter_map(|it| of_dependent(it, &by_uid))
        .collect();
    let mut blocked = BTreeSet::new();
    let mut remembered = BTreeSet::new();
    for object in objects {
        for owner in &object.owners {
            remembered.insert(owner.uid.as_str());
            if owner.block_owner_deletion {
                blocked.insert(owner.uid.as_str());
            }
        }
    }
    for object in objects {
        if object.has(FOREGROUND) && !blocked.contains(object.uid.as_str()) {
            duties.push(object.without_finalizer(FOREGROUND));
        } else if object.has(ORPHAN) && !remembered.contains(object.uid.as_str()) {
            duties.push(object.without_finalizer(ORPHAN));
        }
    }
    duties
}

fn of_dependent(object: &Dependent, by_uid: &BTreeMap<&str, &Dependent>) -> Option<Duty> {
    let owner_of = |owner: &Owner| {
        let found = by_uid.get(owner.uid.as_str())?;
        // An owner is in the same namespace or in none.
        (found.namespace.is_empty() || found.namespace == object.namespace).then_some(*found)
    };
    if object.owners.is_empty() {
        return None;
    }
    let orphans = |owner: &Owner| owner_of(owner).is_some_and(|it| it.has(ORPHAN));
    if object.owners.iter().any(orphans) {
        return Some(object.without_owners(&orphans));
    }
    let is_gone = |owner: &Owner| owner_of(owner).is_none_or(|it| it.has(FOREGROUND));
    if object.owners.iter().all(is_gone) {
        return (!object.is_deleting).then(|| Duty::Delete {
            path: object.path.clone(),
            uid: object.uid.clone(),
        });
    }
    let is_absent = |owner: &Owner| owner_of(owner).is_none();
    object
        .owners
        .iter()
        .any(is_absent)
        .then(|| object.without_owners(&is_absent))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Dependent, Duty, duties};
    use crate::store::Owner;

    fn object(uid: &str, owners: &[&str]) -> Dependent {
        Dependent {
            path: format!("/{uid}"),
            namespace: "a".to_owned(),
            uid: uid.to_owned(),
            revision: 7,
            owners: owners
                .iter()
                .map(|uid| Owner {
                    uid: (*uid).to_owned(),
                    ..Owner::default()
                })
                .collect(),
            ..Dependent::default()
        }
    }

    fn deleting(uid: &str, finalizer: &str) -> Dependent {
        Dependent {
            is_deleting: true,
            finalizers: vec![finalizer.to_owned()],
            ..object(uid, &[])
        }
    }

    fn delete(uid: &str) -> Duty {
        Duty::Delete {
            path: format!("/{uid}"),
            uid: uid.to_owned(),
        }
    }

    #[test]
    fn what_has_lost_all_owners_goes() {
        assert_eq!(duties(&[object("vm", &[]), object("vmi", &["vm"])]), []);
        assert_eq!(duties(&[object("vmi", &["vm"])]), [delete("vmi")]);
        let mut elsewhere = object("vm", &[]);
        elsewhere.namespace = "b".to_owned();
        assert_eq!(
            duties(&[elsewhere, object("vmi", &["vm"])]),
            [delete("vmi")]
        );
        let mut going = object("vmi", &["vm"]);
        going.is_deleting = true;
        assert_eq!(duties(&[going]), []);
    }

    #[test]
    fn an_owner_that_is_gone_is_forgotten_when_there_are_others() {
        let found = duties(&[object("one", &[]), object("x", &["one", "two"])]);
        let patch = json!([
            {"op": "test", "path": "/metadata/resourceVersion", "value": "7"},
            {"op": "test", "path": "/metadata/ownerReferences/1/uid", "value": "two"},
            {"op": "remove", "path": "/metadata/ownerReferences/1"},
        ]);
        assert_eq!(
            found,
            [Duty::Change {
                path: "/x".to_owned(),
                patch
            }]
        );
    }

    #[test]
    fn an_owner_deleted_in_the_foreground_waits_for_those_that_block_it() {
        let owner = deleting("vm", "foregroundDeletion");
        let mut blocking = object("vmi", &["vm"]);
        blocking.owners[0].block_owner_deletion = true;
        assert_eq!(duties(&[owner.clone(), blocking]), [delete("vmi")]);
        let found = duties(&[owner, object("other", &[])]);
        assert!(matches!(&found[..], [Duty::Change { path, .. }] if path == "/vm"));
    }

    #[test]
    fn orphans_forget_their_owner_before_it_goes() {
        let owner = deleting("vm", "orphan");
        let found = duties(&[owner.clone(), object("vmi", &["vm"])]);
        assert!(matches!(&found[..], [Duty::Change { path, .. }] if path == "/vmi"));
        let found = duties(&[owner, object("vmi", &[])]);
        assert!(matches!(&found[..], [Duty::Change { path, .. }] if path == "/vm"));
    }
}
