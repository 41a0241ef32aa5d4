//! Watch: a stream of what changes.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use futures::stream;
use http::{Response, StatusCode};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep_until};

use super::{Call, read, refused};
use crate::answer::{self, Projection};
use crate::failure::{Cause, Failure};
use crate::selector::Selector;
use crate::store::{Change, StoreError, Stored, Watch};

/// How long a watch lasts when the client does not say, as in Kubernetes; and at most.
const TIMEOUT_SECONDS: u64 = 1800;
const TIMEOUT_MAX_SECONDS: u64 = 24 * 3600;
/// Time between bookmarks.
const BOOKMARK_EVERY: Duration = Duration::from_secs(60);
/// Objects that are written at once, so that a long beginning does not take memory for all of them.
const OBJECTS_AT_ONCE: usize = 64;

/// What is sent to one watcher.
struct Feed {
    call: Arc<Call>,
    selector: Selector,
    watch: Watch,
    /// What there was at the beginning, while it is being sent.
    initial: VecDeque<Arc<Stored>>,
    /// Whether the end of the beginning is still to be marked.
    marks_end: bool,
    has_bookmarks: bool,
    bookmark_at: Instant,
    end_at: Instant,
    /// Whether columns of a table were sent.
    has_columns: bool,
    is_over: bool,
}

pub(super) fn watch(call: Call) -> Result<Response<Body>, Failure> {
    let mut response = answer::bytes(StatusCode::OK, call.accept.content_type(), Body::empty());
    call.warnings.put(&mut response);
    let body = match Feed::begin(call)? {
        Ok(feed) => Body::from_stream(stream::unfold(feed, |mut feed| async move {
            let chunk = feed.chunk().await?;
            Some((Ok::<_, std::convert::Infallible>(chunk), feed))
        })),
        Err(failure) => Body::from(event("ERROR", &answer::to_bytes(&failure.status()))),
    };
    *response.body_mut() = body;
    Ok(response)
}

impl Feed {
    /// Begins a watch. The inner failure is one that watchers expect in the stream.
    fn begin(call: Call) -> Result<Result<Self, Failure>, Failure> {
        let mut selector = Selector::parse(&call.query, &call.store_name)?;
        selector.or_name(&call.target.name);
        let timeout = call.query.number("timeoutSeconds")?.filter(|it| *it > 0);
        let timeout = timeout.unwrap_or(TIMEOUT_SECONDS).min(TIMEOUT_MAX_SECONDS);
        let has_bookmarks = call.query.is_set("allowWatchBookmarks");
        let wanted = call
            .query
            .get("resourceVersion")
            .map(read::revision)
            .transpose()?
            .unwrap_or(0);
        let sends = sends_initial(&call)?;
        let store = call.server.store();
        let begins_anew = sends.unwrap_or(wanted == 0);
        let (initial, since) = if begins_anew || wanted == 0 {
            let listing = store.list(&call.store_name, call.namespace());
            if wanted > listing.revision {
                return Ok(Err(read::too_large(wanted, listing.revision)));
            }
            (listing.objects, listing.revision)
        } else {
            (Vec::new(), wanted)
        };
        let mut initial = VecDeque::from(initial);
        initial.retain(|it| begins_anew && selector.matches(it));
        let watch = match store.watch(&call.store_name, call.namespace(), since) {
            Ok(watch) => watch,
            Err(error) => return Ok(Err(refused(&error))),
        };
        let now = Instant::now();
        Ok(Ok(Self {
            selector,
            watch,
            initial,
            marks_end: sends == Some(true) && has_bookmarks,
            has_bookmarks,
            bookmark_at: now + BOOKMARK_EVERY,
            end_at: now + Duration::from_secs(timeout),
            has_columns: false,
            is_over: false,
            call: Arc::new(call),
        }))
    }

    /// Returns the next bytes; nothing at the end.
    async fn chunk(&mut self) -> Option<Bytes> {
        let mut text = Vec::new();
        while text.is_empty() {
            if self.is_over {
                return None;
            }
            self.fill(&mut text).await;
        }
        Some(text.into())
    }

    async fn fill(&mut self, text: &mut Vec<u8>) {
        if !self.initial.is_empty() {
            for _ in 0..OBJECTS_AT_ONCE.min(self.initial.len()) {
                if let Some(object) = self.initial.pop_front() {
                    self.send(text, "ADDED", &object);
                }
            }
            return;
        }
        if std::mem::take(&mut self.marks_end) {
            return self.bookmark(text, true);
        }
        self.follow(text).await;
    }

    async fn follow(&mut self, text: &mut Vec<u8>) {
        let stop = self.call.server.stop().clone();
        tokio::select! {
            biased;
            () = stop.cancelled() => self.is_over = true,
            () = sleep_until(self.end_at) => {
                self.is_over = true;
                self.catch_up(text);
            }
            batch = self.watch.next() => match batch {
                Ok(batch) => batch.changes.iter().for_each(|it| self.tell(text, it)),
                Err(error) => self.fail(text, &error),
            },
            () = sleep_until(self.bookmark_at) => {
                self.bookmark_at = Instant::now() + BOOKMARK_EVERY;
                self.catch_up(text);
            }
        }
    }

    /// Sends what there is, and then a bookmark of how far that is.
    fn catch_up(&mut self, text: &mut Vec<u8>) {
        match self.watch.take() {
            Ok(batch) => batch.changes.iter().for_each(|it| self.tell(text, it)),
            Err(error) => return self.fail(text, &error),
        }
        if self.has_bookmarks {
            self.bookmark(text, false);
        }
    }

    fn fail(&mut self, text: &mut Vec<u8>, error: &StoreError) {
        self.is_over = true;
        if !matches!(error, StoreError::Closed) {
            text.extend(event("ERROR", &answer::to_bytes(&refused(error).status())));
        }
    }

    /// Sends a change as the selector sees it: an object that enters is added, one that leaves is deleted.
    fn tell(&mut self, text: &mut Vec<u8>, change: &Change) {
        let before = change
            .before
            .as_deref()
            .filter(|it| self.selector.matches(it));
        let is_after = !change.is_deletion && self.selector.matches(&change.after);
        match (before, is_after) {
            (None, false) => {}
            (None, true) => self.send(text, "ADDED", &change.after),
            (Some(_), true) => self.send(text, "MODIFIED", &change.after),
            (Some(_), false) if change.is_deletion => self.send(text, "DELETED", &change.after),
            (Some(before), false) => {
                let mut last = self.call.value(before);
                last["metadata"]["resourceVersion"] = change.revision.to_string().into();
                self.send_value(text, "DELETED", last);
            }
        }
    }

    fn send(&mut self, text: &mut Vec<u8>, kind: &str, object: &Stored) {
        if self.call.accept.projection == Projection::Whole {
            text.extend(event(kind, &self.call.show(object)));
        } else {
            let value = self.call.value(object);
            self.send_value(text, kind, value);
        }
    }

    fn send_value(&mut self, text: &mut Vec<u8>, kind: &str, object: Value) {
        let mut shown = answer::project(&self.call.accept, self.call.kind(), object);
        if matches!(self.call.accept.projection, Projection::Table(_))
            && std::mem::replace(&mut self.has_columns, true)
        {
            shown["columnDefinitions"] = Value::Null;
        }
        text.extend(event(kind, &answer::to_bytes(&shown)));
    }

    fn bookmark(&mut self, text: &mut Vec<u8>, is_end_of_initial: bool) {
        let mut metadata = json!({"resourceVersion": self.watch.position().to_string()});
        if is_end_of_initial {
            metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        let object = match self.call.accept.projection {
            Projection::Whole => json!({
                "apiVersion": self.call.target.api_version(), "kind": self.call.resource.kind, "metadata": metadata,
            }),
            Projection::Metadata => answer::partial(&json!({"metadata": metadata})),
            Projection::Table(_) => json!({
                "apiVersion": "meta.k8s.io/v1", "kind": "Table", "metadata": metadata, "columnDefinitions": null, "rows": [],
            }),
        };
        text.extend(event("BOOKMARK", &answer::to_bytes(&object)));
    }
}

/// Reads `sendInitialEvents`, which goes with `resourceVersionMatch=NotOlderThan`.
fn sends_initial(call: &Call) -> Result<Option<bool>, Failure> {
    let matching = call.query.get("resourceVersionMatch");
    let wanted = call
        .query
        .get("sendInitialEvents")
        .map(|_| call.query.is_set("sendInitialEvents"));
    let why = match (wanted, matching) {
        (None, None) | (Some(_), Some("NotOlderThan")) => return Ok(wanted),
        (None, Some(_)) => {
            "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided"
        }
        (Some(_), _) => "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
    };
    let cause = Cause {
        reason: "FieldValueForbidden",
        message: format!("Forbidden: {why}"),
        field: "resourceVersionMatch".to_owned(),
    };
    Err(Failure::invalid(call.about_kind(""), vec![cause]))
}

/// Writes an event on one line.
fn event(kind: &str, object: &Bytes) -> Vec<u8> {
    let head = format!("{{\"type\":\"{kind}\",\"object\":");
    [head.as_bytes(), object, b"}\n"].concat()
}
