//! Objects on disk and in memory, with revisions and watches.
//!
//! ```text
//!   put, delete ──queue──▶ writer thread: check, revise, one durable transaction for all that wait
//!                                 │ committed
//!                                 ▼
//!   get, list ◀──────────── objects in memory ──▶ ring of changes per resource ◀── watches read at their own pace
//! ```
//!
//! What is acknowledged is on disk; what is visible was committed. Revisions grow over restarts. A watch has no queue:
//! it reads the ring, and one that falls behind its end gets [`StoreError::Expired`] and lists again.

mod database;
mod derived;
mod memory;
mod object;
mod watch;
mod writer;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use serde_json::Value;
use tokio::sync::{mpsc, oneshot};

pub(crate) use self::derived::Derived;
pub use self::object::{Owner, Stored};
pub use self::watch::{Batch, Watch};

use self::database::Database;
use self::memory::Memory;
use self::writer::Job;

/// Writes that may wait: as many as clients have in flight, beyond which they wait for room.
const WRITES_WAITING_MAX: usize = 1024;

/// Longest object: what comes in one request; patches could otherwise grow one without bound.
const OBJECT_MAX_BYTES: usize = 3 << 20;

/// Name of the database in its directory.
const FILE: &str = "objects.redb";

/// Why the store cannot do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database cannot be opened.
    #[error("open the database {}: {problem}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// What is wrong and the cure.
        problem: String,
    },
    /// Another program writes this format.
    #[error(
        "open the database {}: it has format {found} and this program reads format {known}; use the program that wrote it",
        path.display()
    )]
    Format {
        /// The file.
        path: PathBuf,
        /// Format in the file.
        found: u64,
        /// Format of this program.
        known: u64,
    },
    /// A write could not be made durable; nothing of it is visible.
    #[error("write to the database: {0}")]
    Write(String),
    /// The object is longer than objects may be.
    #[error("the object has {0} bytes, and objects may have {OBJECT_MAX_BYTES}")]
    TooLarge(usize),
    /// The object is not as the writer expected; what there is comes along.
    #[error("the object is at another revision than the writer expected")]
    Conflict(Option<Arc<Stored>>),
    /// The revision is older than the history that is kept, or of another database.
    #[error("revision {asked} is not in the history, which begins at {oldest}")]
    Expired {
        /// The revision asked for.
        asked: u64,
        /// Oldest revision from which changes are known.
        oldest: u64,
    },
    /// The store was closed.
    #[error("the store is closed")]
    Closed,
}

/// Bounds of what is kept in memory.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Changes kept for watches, per resource.
    pub history_changes: usize,
    /// Bytes of objects kept for watches, per resource.
    pub history_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        // A list of 500 objects that is continued, or a watch that pauses for seconds, finds its revision in a storm of
        // writes; a handful of busy resources stay below 10 MiB together.
        Self {
            history_changes: 4096,
            history_bytes: 2 << 20,
        }
    }
}

/// Where an object is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// [`crate::catalog::Resource::store_name`].
    pub resource: Arc<str>,
    /// Namespace, empty for objects outside of namespaces.
    pub namespace: String,
    /// Name.
    pub name: String,
}

/// What a write expects to find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// No object.
    Absent,
    /// The object at this revision.
    Revision(u64),
}

/// A change of one object.
#[derive(Clone, Debug)]
pub struct Change {
    /// Its revision.
    pub revision: u64,
    /// What was before; nothing when the object is new.
    pub before: Option<Arc<Stored>>,
    /// The object after it; of one that was deleted, its last state with the revision of the deletion.
    pub after: Arc<Stored>,
    /// Whether it was deleted.
    pub is_deletion: bool,
}

/// Objects at one time.
#[derive(Clone, Debug)]
pub struct Listing {
    /// The objects, by namespace and name.
    pub objects: Vec<Arc<Stored>>,
    /// The revision that they are of.
    pub revision: u64,
}

/// Handle of a store; clones are the same store, and it closes with the last.
#[derive(Clone, Debug)]
pub struct Store {
    shared: Arc<Shared>,
    jobs: mpsc::Sender<Job>,
}

#[derive(Debug)]
pub(crate) struct Shared {
    memory: RwLock<Memory>,
}

impl Shared {
    pub(crate) fn read(&self) -> RwLockReadGuard<'_, Memory> {
        self.memory.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store {
    /// Opens the store in a directory, which is made when it is missing. Blocks while the objects are read.
    ///
    /// # Errors
    ///
    /// When the database is damaged, in use by another process, of another format, or cannot be made.
    pub fn open(directory: &Path, limits: Limits) -> Result<Self, StoreError> {
        let path = directory.join(FILE);
        let (database, loaded) = Database::open(&path)?;
        let shared = Arc::new(Shared {
            memory: RwLock::new(Memory::new(loaded, limits)),
        });
        let (jobs, waiting) = mpsc::channel(WRITES_WAITING_MAX);
        writer::start(database, Arc::clone(&shared), waiting).map_err(|error| {
            StoreError::Open {
                path,
                problem: error.to_string(),
            }
        })?;
        Ok(Self { shared, jobs })
    }

    /// Returns an object.
    #[must_use]
    pub fn get(&self, resource: &str, namespace: &str, name: &str) -> Option<Arc<Stored>> {
        self.shared.read().get(resource, namespace, name).cloned()
    }

    /// Returns the objects of a resource, in one namespace or in all.
    #[must_use]
    pub fn list(&self, resource: &str, namespace: Option<&str>) -> Listing {
        self.shared.read().list(resource, namespace)
    }

    /// Returns the objects of a resource as they were at a revision.
    ///
    /// # Errors
    ///
    /// [`StoreError::Expired`] when the revision is older than the history, or was never reached.
    pub fn list_at(
        &self,
        resource: &str,
        namespace: Option<&str>,
        revision: u64,
    ) -> Result<Listing, StoreError> {
        self.shared.read().list_at(resource, namespace, revision)
    }

    /// Returns the revision of the last change of all.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.shared.read().revision()
    }

    /// Returns the resources of which there are objects, with their number.
    #[must_use]
    pub fn resources(&self) -> Vec<(String, usize)> {
        self.shared.read().resources()
    }

    /// Begins a watch of the changes after a revision, in one namespace or in all.
    ///
    /// # Errors
    ///
    /// [`StoreError::Expired`] when the revision is older than the history, or was never reached.
    pub fn watch(
        &self,
        resource: &str,
        namespace: Option<&str>,
        since: u64,
    ) -> Result<Watch, StoreError> {
        Watch::begin(&self.shared, resource, namespace, since)
    }

    /// Writes an object. `metadata.resourceVersion` is set to the revision that it gets; it returns when that is durable.
    ///
    /// # Errors
    ///
    /// [`StoreError::Conflict`] when the object is not as expected, [`StoreError::Write`] when the disk refuses.
    pub async fn put(
        &self,
        key: Key,
        expect: Expect,
        object: Value,
    ) -> Result<Arc<Stored>, StoreError> {
        self.submit(key, expect, Some(object)).await
    }

    /// Deletes an object and returns its last state, with the revision of the deletion.
    ///
    /// # Errors
    ///
    /// As [`Store::put`].
    pub async fn delete(&self, key: Key, expect: Expect) -> Result<Arc<Stored>, StoreError> {
        self.submit(key, expect, None).await
    }

    async fn submit(
        &self,
        key: Key,
        expect: Expect,
        object: Option<Value>,
    ) -> Result<Arc<Stored>, StoreError> {
        let (reply, answer) = oneshot::channel();
        let job = Job {
            key,
            expect,
            object,
            reply,
        };
        self.jobs.send(job).await.map_err(|_| StoreError::Closed)?;
        answer.await.map_err(|_| StoreError::Closed)?
    }
}
