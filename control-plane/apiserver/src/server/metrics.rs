//! What the server counts of itself.

use std::sync::atomic::{AtomicU64, Ordering};

use http::{Method, StatusCode};

use crate::store::Store;

/// Methods and classes of status that requests are counted by.
const METHODS: [&str; 6] = ["GET", "POST", "PUT", "PATCH", "DELETE", "other"];
const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

/// Counters of requests.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    requests: [[AtomicU64; CLASSES.len()]; METHODS.len()],
}

impl Metrics {
    pub(crate) fn count(&self, method: &Method, status: StatusCode) {
        let method = METHODS.iter().position(|it| *it == method.as_str());
        let class = usize::from(status.as_u16() / 100).clamp(1, CLASSES.len());
        self.requests[method.unwrap_or(METHODS.len() - 1)][class - 1]
            .fetch_add(1, Ordering::Relaxed);
    }

    /// Returns all counters as Prometheus reads them.
    pub(crate) fn text(&self, store: &Store) -> String {
        let mut text = "# TYPE apiserver_request_total counter\n".to_owned();
        for (method, classes) in METHODS.iter().zip(&self.requests) {
            for (class, count) in CLASSES.iter().zip(classes) {
                let count = count.load(Ordering::Relaxed);
                if count > 0 {
                    let labels = format!("method=\"{method}\",code=\"{class}\"");
                    text.push_str(&format!("apiserver_request_total{{{labels}}} {count}\n"));
                }
            }
        }
        text.push_str("# TYPE apiserver_storage_objects gauge\n");
        for (resource, count) in store.resources() {
            text.push_str(&format!(
                "apiserver_storage_objects{{resource=\"{resource}\"}} {count}\n"
            ));
        }
        text.push_str("# TYPE apiserver_storage_revision counter\n");
        text.push_str(&format!(
            "apiserver_storage_revision {}\n",
            store.revision()
        ));
        text
    }
}
