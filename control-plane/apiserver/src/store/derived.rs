//! What is made from objects, kept until they change.

use std::sync::{Arc, PoisonError, RwLock};

use serde_json::Value;

use super::{Store, Stored};

/// Number and newest revision of a resource's objects: when one comes, changes or goes, so does this.
type Mark = (usize, u64);

/// Something that is made from the objects of some resources, and made anew when these have changed.
#[derive(Debug)]
pub(crate) struct Derived<T, const N: usize> {
    resources: [&'static str; N],
    made: RwLock<Option<([Mark; N], Arc<T>)>>,
}

impl<T, const N: usize> Derived<T, N> {
    pub(crate) fn new(resources: [&'static str; N]) -> Self {
        Self {
            resources,
            made: RwLock::new(None),
        }
    }

    /// Returns it as it follows from the objects now. `make` is given those of each resource, without those that cannot be
    /// read; it runs once for each change, and nobody gets the earlier thing once it has run.
    pub(crate) fn get(&self, store: &Store, make: impl FnOnce([Vec<Value>; N]) -> T) -> Arc<T> {
        let lists = self.resources.map(|it| store.list(it, None).objects);
        {
            let made = self.made.read().unwrap_or_else(PoisonError::into_inner);
            if let Some((marks, thing)) = made.as_ref()
                && *marks == lists.each_ref().map(|it| mark(it))
            {
                return Arc::clone(thing);
            }
        }
        let mut made = self.made.write().unwrap_or_else(PoisonError::into_inner);
        // Somebody else may have been here meanwhile, with objects that are newer.
        let lists = self.resources.map(|it| store.list(it, None).objects);
        let marks = lists.each_ref().map(|it| mark(it));
        match made.as_ref() {
            Some((known, thing)) if *known == marks => Arc::clone(thing),
            _ => {
                let thing = Arc::new(make(lists.map(|it| values(&it))));
                *made = Some((marks, Arc::clone(&thing)));
                thing
            }
        }
    }
}

fn mark(objects: &[Arc<Stored>]) -> Mark {
    let newest = objects.iter().map(|it| it.revision).max();
    (objects.len(), newest.unwrap_or_default())
}

fn values(objects: &[Arc<Stored>]) -> Vec<Value> {
    let read = objects
        .iter()
        .filter_map(|it| serde_json::from_slice(&it.json).ok());
    read.collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::Derived;
    use crate::store::{Expect, Key, Limits, Store};

    #[tokio::test]
    async fn it_is_made_once_for_each_change() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path(), Limits::default()).unwrap();
        let derived = Derived::new(["as", "bs"]);
        let count = |made: &mut usize| {
            *derived.get(&store, |[first, second]: [Vec<Value>; 2]| {
                *made += 1;
                (first.len(), second.len())
            })
        };
        let key = Key {
            resource: "bs".into(),
            namespace: String::new(),
            name: "b".to_owned(),
        };
        let mut made = 0;
        assert_eq!((count(&mut made), count(&mut made)), ((0, 0), (0, 0)));
        assert_eq!(made, 1);
        let object = json!({"metadata": {"name": "b"}});
        let stored = store
            .put(key.clone(), Expect::Absent, object)
            .await
            .unwrap();
        assert_eq!((count(&mut made), count(&mut made)), ((0, 1), (0, 1)));
        assert_eq!(made, 2);
        store
            .delete(key, Expect::Revision(stored.revision))
            .await
            .unwrap();
        assert_eq!(count(&mut made), (0, 0));
        assert_eq!(made, 3);
    }
}
