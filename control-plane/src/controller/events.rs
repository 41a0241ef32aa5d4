//! Events on objects: told once, then counted.
//!
//! Whoever records an event never waits: a task of its own writes them, and when it is behind, events are dropped and
//! counted in the log.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use api::events::{NORMAL, WARNING};
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tracing::{debug, warn};

use super::api_server::{ApiError, ApiServer};
use super::key::{Key, Kind};
use super::time::rfc3339;

/// Events that may wait to be written.
const WAITING_MAX: usize = 2048;
/// How long what went as it should gives precedence to what is still to be done.
const PRECEDENCE: Duration = Duration::from_secs(2);
/// Events whose repetitions are counted; client-go remembers 4096.
const REMEMBERED_MAX: usize = 512;
/// Most characters of a message; what API servers take.
const MESSAGE_CHARS_MAX: usize = 1024;
/// Times that one event is written; further repetitions only fill the API server.
const REPEATED_MAX: u32 = 25;

/// An event on an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Event {
    /// The object.
    pub(crate) key: Key,
    /// Its uid.
    pub(crate) uid: String,
    /// Whether it needs attention.
    pub(crate) is_warning: bool,
    /// What happened, in one word.
    pub(crate) reason: &'static str,
    /// What happened, for people.
    pub(crate) message: String,
}

impl Event {
    /// Makes an event about something that went as it should.
    pub(crate) fn normal(
        key: &Key,
        uid: &str,
        reason: &'static str,
        message: impl Into<String>,
    ) -> Self {
        Self {
            key: key.clone(),
            uid: uid.to_owned(),
            is_warning: false,
            reason,
            message: bounded(message.into()),
        }
    }

    /// Makes an event about something that needs attention.
    pub(crate) fn warning(
        key: &Key,
        uid: &str,
        reason: &'static str,
        message: impl Into<String>,
    ) -> Self {
        Self {
            is_warning: true,
            ..Self::normal(key, uid, reason, message)
        }
    }
}

/// Cuts a text to what fits into events and conditions.
pub(crate) fn bounded(text: String) -> String {
    if text.len() <= MESSAGE_CHARS_MAX {
        return text;
    }
    text.chars().take(MESSAGE_CHARS_MAX).collect()
}

/// Takes events; clones write to the same place.
#[derive(Clone, Debug)]
pub(crate) struct Recorder {
    events: mpsc::Sender<(Instant, Event)>,
    dropped: Arc<AtomicU64>,
}

impl Recorder {
    /// Starts to write events under a name. The task ends with the last recorder.
    pub(crate) fn start(server: ApiServer, identity: String) -> Self {
        let (events, waiting) = mpsc::channel(WAITING_MAX);
        tokio::spawn(write_all(server, identity, waiting));
        Self {
            events,
            dropped: Arc::default(),
        }
    }

    /// Records an event, or drops it when too many wait.
    pub(crate) fn record(&self, event: Event) {
        if self.events.try_send((Instant::now(), event)).is_err() {
            let dropped = self.dropped.fetch_add(1, Ordering::Relaxed) + 1;
            if dropped.is_power_of_two() {
                warn!(dropped, "too many events; some are dropped");
            }
        }
    }
}

async fn write_all(
    server: ApiServer,
    identity: String,
    mut waiting: mpsc::Receiver<(Instant, Event)>,
) {
    let mut memory = Memory::default();
    while let Some((recorded, event)) = waiting.recv().await {
        if !event.is_warning {
            sleep_until(recorded + PRECEDENCE).await;
        }
        let now = Timestamp::now();
        let Some(told) = memory.tell(event, now) else {
            continue;
        };
        if let Err(error) = write(&server, &told, &identity, now).await {
            debug!(object = %told.event.key, reason = told.event.reason, %error, "an event is lost");
        }
    }
}

/// An event that is to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Told {
    event: Event,
    name: String,
    count: u32,
    first: Timestamp,
}

/// What was told before.
#[derive(Debug, Default)]
struct Memory {
    told: VecDeque<Told>,
}

impl Memory {
    /// Returns what is to be written about an event; `None` when it was told often enough.
    fn tell(&mut self, event: Event, now: Timestamp) -> Option<Told> {
        let known = self.told.iter().position(|told| told.event == event);
        let told = match known.and_then(|at| self.told.remove(at)) {
            Some(told) => Told {
                count: told.count.saturating_add(1),
                ..told
            },
            None => Told {
                name: name(&event.key.name, now),
                event,
                count: 1,
                first: now,
            },
        };
        self.told.push_back(told.clone());
        if self.told.len() > REMEMBERED_MAX {
            self.told.pop_front();
        }
        (told.count <= REPEATED_MAX).then_some(told)
    }
}

/// Returns the name of a new event, as client-go makes them.
fn name(object: &str, now: Timestamp) -> String {
    let object: String = object.chars().take(200).collect();
    format!("{object}.{:016x}", now.as_nanosecond())
}

async fn write(
    server: &ApiServer,
    told: &Told,
    identity: &str,
    now: Timestamp,
) -> Result<(), ApiError> {
    let namespace = match told.event.key.namespace.as_str() {
        "" => "default",
        namespace => namespace,
    };
    let key = Key::new(Kind::Event, namespace, told.name.clone());
    if told.count > 1 {
        let counted = json!({ "count": told.count, "lastTimestamp": rfc3339(now) });
        match server.merge(&key, &counted).await {
            // API servers forget events after an hour.
            Err(ApiError::Gone(_)) => {}
            other => return other.map(drop),
        }
    }
    let object = object(told, namespace, identity, now);
    server.create(&key, &object).await.map(drop)
}

fn object(told: &Told, namespace: &str, identity: &str, now: Timestamp) -> Value {
    let event = &told.event;
    json!({
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": { "name": told.name, "namespace": namespace },
        "involvedObject": {
            "apiVersion": event.key.kind.api_version(),
            "kind": event.key.kind.name(),
            "name": event.key.name,
            "namespace": event.key.namespace,
            "uid": event.uid,
        },
        "type": if event.is_warning { WARNING } else { NORMAL },
        "reason": event.reason,
        "message": event.message,
        "source": { "component": api::components::VIRT_CONTROLLER },
        "reportingComponent": api::components::VIRT_CONTROLLER,
        "reportingInstance": identity,
        "firstTimestamp": rfc3339(told.first),
        "lastTimestamp": rfc3339(now),
        "count": told.count,
    })
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::{Event, Key, Kind, Memory, REPEATED_MAX, object};

    fn event(message: &str) -> Event {
        let key = Key::new(Kind::Instance, "default", "vm");
        Event::normal(&key, "uid-1", "SuccessfulCreate", message)
    }

    #[test]
    fn repetitions_are_counted_under_one_name_up_to_a_bound() {
        let (mut memory, now) = (Memory::default(), Timestamp::UNIX_EPOCH);
        let first = memory.tell(event("a"), now).unwrap();
        let other = memory.tell(event("b"), now).unwrap();
        let again = memory.tell(event("a"), now).unwrap();
        assert_eq!((first.count, other.count, again.count), (1, 1, 2));
        assert_eq!(first.name, again.name);
        let told = (0..100).filter(|_| memory.tell(event("a"), now).is_some());
        assert_eq!(told.count(), REPEATED_MAX as usize - 2);
    }

    #[test]
    fn an_event_names_its_object_and_its_writer() {
        let told = Memory::default().tell(event(&"x".repeat(5000)), Timestamp::UNIX_EPOCH);
        let object = object(&told.unwrap(), "default", "me", Timestamp::UNIX_EPOCH);
        assert_eq!(object["involvedObject"]["uid"], "uid-1");
        assert_eq!(object["involvedObject"]["apiVersion"], "kubevirt.io/v1");
        assert_eq!(object["source"]["component"], "virt-controller");
        assert_eq!(object["message"].as_str().unwrap().len(), 1024);
        assert_eq!(object["firstTimestamp"], "1970-01-01T00:00:00Z");
    }
}
