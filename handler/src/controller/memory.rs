//! What is remembered of instances between two looks at them.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use api::guest_agent::GuestAgentInfo;
use jiff::Timestamp;
use proto::domain::Domain;
use tracing::debug;

use crate::cluster::{Event, Recorder};
use crate::key::VmiKey;
use crate::launchers::Seen;
use crate::plan::{Machine, Past};

/// What is remembered of one instance. Whoever looks at it takes it, and puts it back.
#[derive(Debug, Default)]
pub(super) struct Record {
    pub(super) past: Past,
    /// Uid of the instance whose container disks' checksums were asked for.
    pub(super) checksums_of: Option<String>,
    /// When the guest agent was last asked what it can do, and what it said.
    pub(super) agent: Option<(Timestamp, Option<GuestAgentInfo>)>,
    /// Uid of the instance whose machine was made by us.
    pub(super) defined: Option<String>,
}

/// What launchers told of one instance, whoever looks at it meanwhile.
#[derive(Clone, Debug, Default)]
pub(super) struct Told {
    /// The instance that it is about.
    pub(super) uid: String,
    /// The domain as it was last told of; one that ended stays until the instance is cleaned up after.
    pub(super) domain: Option<Arc<Domain>>,
    /// How the launcher was lost.
    pub(super) lost: Option<String>,
}

/// What is remembered of all instances.
#[derive(Debug, Default)]
pub(super) struct Memory {
    records: Mutex<HashMap<VmiKey, Record>>,
    told: Mutex<HashMap<VmiKey, Told>>,
    /// Checksums of container disks and of kernel boot containers' files, by uid.
    checksums: Mutex<HashMap<String, BTreeMap<String, u32>>>,
}

impl Memory {
    /// Returns the checksums of an instance's files, as far as they are known.
    pub(super) fn checksums(&self, uid: &str) -> BTreeMap<String, u32> {
        lock(&self.checksums).get(uid).cloned().unwrap_or_default()
    }

    /// Adds checksums of an instance's files.
    pub(super) fn add_checksums(&self, uid: &str, more: BTreeMap<String, u32>) {
        if !more.is_empty() {
            let mut all = lock(&self.checksums);
            all.entry(uid.to_owned()).or_default().extend(more);
        }
    }

    /// Takes what is remembered of an instance.
    pub(super) fn take(&self, key: &VmiKey) -> Record {
        lock(&self.records).remove(key).unwrap_or_default()
    }

    /// Puts back what was taken.
    pub(super) fn put(&self, key: &VmiKey, record: Record) {
        lock(&self.records).insert(key.clone(), record);
    }

    /// Forgets an instance that is gone.
    pub(super) fn forget(&self, key: &VmiKey, uid: &str) {
        lock(&self.records).remove(key);
        self.forget_told(key, uid);
    }

    /// Forgets what the launcher of an instance told, and what was found out about its files.
    pub(super) fn forget_told(&self, key: &VmiKey, uid: &str) {
        lock(&self.checksums).remove(uid);
        let mut all = lock(&self.told);
        if all.get(key).is_some_and(|told| told.uid == uid) {
            all.remove(key);
        }
    }

    /// Returns what the launcher of an instance told.
    pub(super) fn told(&self, key: &VmiKey) -> Option<Told> {
        lock(&self.told).get(key).cloned()
    }

    /// Takes note of what a launcher tells; returns whose turn it is therefore.
    pub(super) fn hear(&self, seen: Seen, recorder: &Recorder) -> Option<VmiKey> {
        let mut all = lock(&self.told);
        match seen {
            Seen::Domain { key, uid, domain } => {
                of(&mut all, &key, &uid).domain = Some(domain);
                Some(key)
            }
            Seen::NoDomain { key, uid } => {
                let told = of(&mut all, &key, &uid);
                let is_alive = |domain: &mut Arc<Domain>| Machine::of(domain) != Machine::Ended;
                let _no_more = told.domain.take_if(is_alive);
                Some(key)
            }
            Seen::Lost { key, uid, reason } => {
                of(&mut all, &key, &uid).lost = Some(reason);
                Some(key)
            }
            Seen::Event { key, event } => {
                let uid = all
                    .get(&key)
                    .map(|told| told.uid.clone())
                    .unwrap_or_default();
                match Event::of_launcher(&key, &uid, &event) {
                    Some(event) => recorder.record(event),
                    None => debug!(instance = %key, "a launcher told an event that makes no sense"),
                }
                None
            }
        }
    }
}

/// Returns what was told of an instance, anew when another one of the same name told before.
fn of<'m>(all: &'m mut HashMap<VmiKey, Told>, key: &VmiKey, uid: &str) -> &'m mut Told {
    let told = all.entry(key.clone()).or_default();
    if told.uid != uid {
        *told = Told {
            uid: uid.to_owned(),
            ..Told::default()
        };
    }
    told
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
