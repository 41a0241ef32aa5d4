//! The thread that alone writes: it takes all writes that wait and commits them in one durable transaction.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::sync::{Arc, PoisonError};

use serde_json::Value;
use tokio::sync::{mpsc, oneshot};

use super::database::{Database, Row};
use super::{Change, Expect, Key, OBJECT_MAX_BYTES, Shared, StoreError, Stored};

/// Writes of one transaction: enough to share a sync among all clients, few enough to answer within milliseconds.
const GROUP_MAX: usize = 256;

#[derive(Debug)]
pub(super) struct Job {
    pub(super) key: Key,
    pub(super) expect: Expect,
    /// The object, or nothing to delete it.
    pub(super) object: Option<Value>,
    pub(super) reply: oneshot::Sender<Result<Arc<Stored>, StoreError>>,
}

/// A write that was checked and has a revision.
struct Planned {
    key: Key,
    change: Arc<Change>,
    reply: oneshot::Sender<Result<Arc<Stored>, StoreError>>,
}

pub(super) fn start(
    database: Database,
    shared: Arc<Shared>,
    waiting: mpsc::Receiver<Job>,
) -> io::Result<()> {
    let thread = std::thread::Builder::new().name("store-writer".to_owned());
    thread
        .spawn(move || run(&database, &shared, waiting))
        .map(drop)
}

fn run(database: &Database, shared: &Shared, mut waiting: mpsc::Receiver<Job>) {
    let mut jobs = Vec::with_capacity(GROUP_MAX);
    while waiting.blocking_recv_many(&mut jobs, GROUP_MAX) > 0 {
        let group = plan(shared, jobs.drain(..));
        if group.is_empty() {
            continue;
        }
        match database.commit(&rows(&group)) {
            Ok(()) => publish(shared, group),
            Err(error) => refuse(group, &error),
        }
    }
}

/// Checks what each write expects, given the writes before it in the group, and gives it a revision. Those that cannot
/// be made are answered here.
fn plan(shared: &Shared, jobs: impl Iterator<Item = Job>) -> Vec<Planned> {
    let mut revision = shared.read().revision();
    let mut ahead: HashMap<Key, Option<Arc<Stored>>> = HashMap::new();
    let mut group = Vec::new();
    for job in jobs {
        let before = match ahead.get(&job.key) {
            Some(planned) => planned.clone(),
            None => lookup(shared, &job.key),
        };
        match change(before, job.expect, job.object, revision + 1) {
            Ok(change) => {
                revision += 1;
                let after = (!change.is_deletion).then(|| Arc::clone(&change.after));
                ahead.insert(job.key.clone(), after);
                group.push(Planned {
                    key: job.key,
                    change: Arc::new(change),
                    reply: job.reply,
                });
            }
            Err(error) => drop(job.reply.send(Err(error))),
        }
    }
    group
}

fn lookup(shared: &Shared, key: &Key) -> Option<Arc<Stored>> {
    shared
        .read()
        .get(&key.resource, &key.namespace, &key.name)
        .cloned()
}

fn change(
    before: Option<Arc<Stored>>,
    expect: Expect,
    object: Option<Value>,
    revision: u64,
) -> Result<Change, StoreError> {
    let is_expected = match (expect, &before) {
        (Expect::Absent, None) => object.is_some(),
        (Expect::Revision(expected), Some(before)) => before.revision == expected,
        _ => false,
    };
    if !is_expected {
        return Err(StoreError::Conflict(before));
    }
    let is_deletion = object.is_none();
    let last = || before.as_ref().map_or(Value::Null, |it| it.value());
    let after = Stored::write(object.unwrap_or_else(last), revision)
        .map_err(|error| StoreError::Write(error.to_string()))?;
    if after.json.len() > OBJECT_MAX_BYTES {
        return Err(StoreError::TooLarge(after.json.len()));
    }
    Ok(Change {
        revision,
        before,
        after: Arc::new(after),
        is_deletion,
    })
}

fn rows(group: &[Planned]) -> Vec<Row> {
    let row = |it: &Planned| Row {
        key: it.key.clone(),
        json: (!it.change.is_deletion).then(|| it.change.after.json.clone()),
        revision: it.change.revision,
    };
    group.iter().map(row).collect()
}

/// Makes the writes visible, wakes the watches, and answers the writers.
fn publish(shared: &Shared, group: Vec<Planned>) {
    let touched: BTreeSet<_> = group
        .iter()
        .map(|it| Arc::clone(&it.key.resource))
        .collect();
    {
        let mut memory = shared
            .memory
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        for planned in &group {
            memory.apply(&planned.key, Arc::clone(&planned.change));
        }
        for resource in touched {
            memory.notify(&resource);
        }
    }
    for planned in group {
        drop(planned.reply.send(Ok(Arc::clone(&planned.change.after))));
    }
}

fn refuse(group: Vec<Planned>, error: &redb::Error) {
    tracing::error!(%error, writes = group.len(), "the database refused a transaction");
    for planned in group {
        drop(
            planned
                .reply
                .send(Err(StoreError::Write(error.to_string()))),
        );
    }
}
