//! Waking up when objects change.

use std::time::Duration;

use crate::store::{Store, StoreError, Watch};
use futures::future::select_all;
use tokio::time::sleep;

/// Changes that come together are looked at together.
const GATHER: Duration = Duration::from_millis(10);

/// Wakes up when objects of some resources changed.
#[derive(Debug)]
pub struct Ticks {
    store: Store,
    gather: Duration,
    watches: Vec<(String, Watch)>,
}

impl Ticks {
    /// Returns ticks of a store, which follow nothing yet.
    #[must_use]
    pub fn new(store: Store) -> Self {
        Self {
            store,
            gather: GATHER,
            watches: Vec::new(),
        }
    }

    /// Looks at changes together that come within this time, for whoever looks at much and is in no hurry.
    #[must_use]
    pub fn gathering(self, gather: Duration) -> Self {
        Self { gather, ..self }
    }

    /// Follows resources from now on.
    pub fn follow(&mut self, resources: &[&str]) {
        let watches = resources.iter().filter_map(|it| begin(&self.store, it));
        self.watches = watches.collect();
    }

    /// Waits until something changed. What changed is to be read from the store: missed changes do not matter.
    pub async fn next(&mut self) {
        if self.watches.is_empty() {
            return std::future::pending().await;
        }
        let nexts = self.watches.iter_mut().map(|(_, it)| Box::pin(it.next()));
        let (changed, index, _) = select_all(nexts).await;
        match changed {
            Err(StoreError::Closed) => return std::future::pending().await,
            // Too far behind: from here on again.
            Err(_) => {
                let (resource, _) = self.watches.swap_remove(index);
                self.watches.extend(begin(&self.store, &resource));
            }
            Ok(_) => {}
        }
        sleep(self.gather).await;
        for (_, watch) in &mut self.watches {
            while watch.take().is_ok_and(|batch| !batch.changes.is_empty()) {}
        }
    }
}

/// Watches a resource from now on; a write in between only makes the first attempt too late.
fn begin(store: &Store, resource: &str) -> Option<(String, Watch)> {
    let watch = store.watch(resource, None, store.revision()).ok()?;
    Some((resource.to_owned(), watch))
}
