//! The objects in memory and the history of their changes.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use tokio::sync::watch;

use super::database::Loaded;
use super::{Change, Key, Limits, Listing, StoreError, Stored};

#[derive(Debug)]
pub(crate) struct Memory {
    revision: u64,
    limits: Limits,
    collections: HashMap<String, Collection>,
}

/// Objects of a resource, by namespace and name.
type Objects = BTreeMap<String, BTreeMap<String, Arc<Stored>>>;

#[derive(Debug)]
struct Collection {
    objects: Objects,
    history: VecDeque<Arc<Change>>,
    history_bytes: usize,
    /// Changes after this revision are in the history.
    oldest: u64,
    /// Tells watches the revision of the last change.
    signal: watch::Sender<u64>,
}

impl Memory {
    pub(super) fn new(loaded: Loaded, limits: Limits) -> Self {
        let mut memory = Self {
            revision: loaded.revision,
            limits,
            collections: HashMap::new(),
        };
        for (resource, revision) in loaded.changed {
            memory
                .collections
                .insert(resource, Collection::new(revision));
        }
        for (resource, object) in loaded.objects {
            let revision = memory.revision;
            let collection = memory.collections.entry(resource);
            let collection = collection.or_insert_with(|| Collection::new(revision));
            put(&mut collection.objects, object);
        }
        memory
    }

    pub(super) fn revision(&self) -> u64 {
        self.revision
    }

    pub(super) fn get(&self, resource: &str, namespace: &str, name: &str) -> Option<&Arc<Stored>> {
        self.collections
            .get(resource)?
            .objects
            .get(namespace)?
            .get(name)
    }

    pub(super) fn resources(&self) -> Vec<(String, usize)> {
        let count = |it: &Collection| it.objects.values().map(BTreeMap::len).sum();
        self.collections
            .iter()
            .map(|(name, it)| (name.clone(), count(it)))
            .filter(|(_, count)| *count > 0)
            .collect()
    }

    pub(super) fn list(&self, resource: &str, namespace: Option<&str>) -> Listing {
        let objects = self
            .collections
            .get(resource)
            .map(|it| select(&it.objects, namespace));
        Listing {
            objects: objects.unwrap_or_default(),
            revision: self.revision,
        }
    }

    pub(super) fn list_at(
        &self,
        resource: &str,
        namespace: Option<&str>,
        revision: u64,
    ) -> Result<Listing, StoreError> {
        let changes = self.since(resource, revision)?;
        let Some(collection) = self
            .collections
            .get(resource)
            .filter(|_| !changes.is_empty())
        else {
            return Ok(Listing {
                revision,
                ..self.list(resource, namespace)
            });
        };
        let mut objects = collection.objects.clone();
        for change in changes.iter().rev() {
            match &change.before {
                Some(before) => put(&mut objects, Arc::clone(before)),
                None => remove(&mut objects, &change.after),
            }
        }
        Ok(Listing {
            objects: select(&objects, namespace),
            revision,
        })
    }

    /// Returns the changes of a resource after a revision.
    pub(super) fn since(
        &self,
        resource: &str,
        revision: u64,
    ) -> Result<Vec<Arc<Change>>, StoreError> {
        let collection = self.collections.get(resource);
        let oldest = collection.map_or(0, |it| it.oldest);
        if revision < oldest || revision > self.revision {
            return Err(StoreError::Expired {
                asked: revision,
                oldest,
            });
        }
        Ok(collection
            .map(|it| it.since(revision).cloned().collect())
            .unwrap_or_default())
    }

    /// Returns at most `limit` changes of a resource after a revision, and the revision up to which they are all.
    pub(super) fn next(
        &self,
        resource: &str,
        revision: u64,
        limit: usize,
    ) -> Result<(Vec<Arc<Change>>, u64), StoreError> {
        let Some(collection) = self.collections.get(resource) else {
            return Ok((Vec::new(), self.revision));
        };
        if revision < collection.oldest {
            return Err(StoreError::Expired {
                asked: revision,
                oldest: collection.oldest,
            });
        }
        let changes: Vec<_> = collection.since(revision).take(limit).cloned().collect();
        let reached = match changes.last() {
            Some(last) if changes.len() == limit => last.revision,
            _ => self.revision,
        };
        Ok((changes, reached))
    }

    pub(super) fn signal(&self, resource: &str) -> Option<watch::Receiver<u64>> {
        self.collections
            .get(resource)
            .map(|it| it.signal.subscribe())
    }

    /// Makes the collection of a resource that never had an object, so that it can be watched.
    pub(super) fn prepare(&mut self, resource: &str) {
        self.collections
            .entry(resource.to_owned())
            .or_insert_with(|| Collection::new(0));
    }

    pub(super) fn apply(&mut self, key: &Key, change: Arc<Change>) {
        self.revision = change.revision;
        self.prepare(&key.resource);
        let limits = self.limits;
        if let Some(collection) = self.collections.get_mut(key.resource.as_ref()) {
            collection.apply(change, limits);
        }
    }

    /// Wakes the watches of a resource.
    pub(super) fn notify(&self, resource: &str) {
        if let Some(collection) = self.collections.get(resource) {
            collection.signal.send_replace(self.revision);
        }
    }
}

impl Collection {
    fn new(oldest: u64) -> Self {
        Self {
            objects: BTreeMap::new(),
            history: VecDeque::new(),
            history_bytes: 0,
            oldest,
            signal: watch::Sender::new(oldest),
        }
    }

    fn since(&self, revision: u64) -> impl Iterator<Item = &Arc<Change>> {
        let begin = self.history.partition_point(|it| it.revision <= revision);
        self.history.range(begin..)
    }

    fn apply(&mut self, change: Arc<Change>, limits: Limits) {
        if change.is_deletion {
            remove(&mut self.objects, &change.after);
        } else {
            put(&mut self.objects, Arc::clone(&change.after));
        }
        self.history_bytes += change.after.json.len();
        self.history.push_back(change);
        while self.history.len() > limits.history_changes
            || self.history_bytes > limits.history_bytes
        {
            let Some(evicted) = self.history.pop_front() else {
                break;
            };
            self.history_bytes -= evicted.after.json.len();
            self.oldest = evicted.revision;
        }
    }
}

fn select(objects: &Objects, namespace: Option<&str>) -> Vec<Arc<Stored>> {
    match namespace {
        Some(namespace) => {
            let found = objects.get(namespace);
            found
                .map(|it| it.values().cloned().collect())
                .unwrap_or_default()
        }
        None => objects
            .values()
            .flat_map(BTreeMap::values)
            .cloned()
            .collect(),
    }
}

fn put(objects: &mut Objects, object: Arc<Stored>) {
    let namespace = objects.entry(object.namespace.clone()).or_default();
    namespace.insert(object.name.clone(), object);
}

fn remove(objects: &mut Objects, object: &Stored) {
    if let Some(namespace) = objects.get_mut(&object.namespace) {
        namespace.remove(&object.name);
        if namespace.is_empty() {
            objects.remove(&object.namespace);
        }
    }
}
