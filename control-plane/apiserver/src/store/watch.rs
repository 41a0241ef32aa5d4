//! Following the changes of a resource.

use std::sync::{Arc, PoisonError};

use tokio::sync::watch;

use super::{Change, Shared, StoreError};

/// Changes that are read at once, so that a reader far behind does not hold the lock for long.
const BATCH: usize = 128;

/// The changes of a resource from a revision on.
#[derive(Debug)]
pub struct Watch {
    shared: Arc<Shared>,
    resource: String,
    namespace: Option<String>,
    position: u64,
    signal: watch::Receiver<u64>,
}

/// Changes that follow one another.
#[derive(Clone, Debug)]
pub struct Batch {
    /// The changes, oldest first; none when only other namespaces changed.
    pub changes: Vec<Arc<Change>>,
    /// Revision up to which these are all.
    pub revision: u64,
}

impl Watch {
    pub(super) fn begin(
        shared: &Arc<Shared>,
        resource: &str,
        namespace: Option<&str>,
        since: u64,
    ) -> Result<Self, StoreError> {
        let signal = signal(shared, resource);
        shared.read().since(resource, since)?;
        Ok(Self {
            shared: Arc::clone(shared),
            resource: resource.to_owned(),
            namespace: namespace.map(str::to_owned),
            position: since,
            signal,
        })
    }

    /// Returns the next changes, which it waits for. It may be dropped while it waits: nothing is lost.
    ///
    /// # Errors
    ///
    /// [`StoreError::Expired`] when changes that were not read yet are no longer kept; [`StoreError::Closed`] at the end.
    pub async fn next(&mut self) -> Result<Batch, StoreError> {
        loop {
            self.signal.borrow_and_update();
            let batch = self.take()?;
            if !batch.changes.is_empty() {
                return Ok(batch);
            }
            self.signal
                .changed()
                .await
                .map_err(|_| StoreError::Closed)?;
        }
    }

    /// Returns the changes that are there already, without waiting, and the revision that is reached.
    ///
    /// # Errors
    ///
    /// [`StoreError::Expired`] when changes that were not read yet are no longer kept.
    pub fn take(&mut self) -> Result<Batch, StoreError> {
        loop {
            let (mut changes, revision) =
                self.shared
                    .read()
                    .next(&self.resource, self.position, BATCH)?;
            let is_all = changes.len() < BATCH;
            self.position = revision;
            if let Some(namespace) = &self.namespace {
                changes.retain(|it| it.after.namespace == *namespace);
            }
            if is_all || !changes.is_empty() {
                return Ok(Batch { changes, revision });
            }
        }
    }

    /// Returns the revision up to which changes were read.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.position
    }
}

fn signal(shared: &Shared, resource: &str) -> watch::Receiver<u64> {
    if let Some(signal) = shared.read().signal(resource) {
        return signal;
    }
    let mut memory = shared
        .memory
        .write()
        .unwrap_or_else(PoisonError::into_inner);
    memory.prepare(resource);
    memory
        .signal(resource)
        .expect("the collection was made above")
}
