//! Events on instances: told once, then counted, and never more of them than the API server can bear.
//!
//! Whoever records an event never waits: a task of its own writes them, and when it is behind, events are dropped and
//! counted in the log.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use api::error_chain::chain;
use api::events::{NORMAL, WARNING};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Event as KubeEvent;
use kube::Client;
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

use crate::key::VmiKey;
use crate::status::{MESSAGE_CHARS_MAX, bounded, rfc3339};

/// Events that may wait to be written.
const WAITING_MAX: usize = 256;
/// Events whose repetitions are counted; client-go remembers 4096 for a whole cluster.
const REMEMBERED_MAX: usize = 256;
/// Events of one instance that are written at once; afterwards one per [`REFILL`].
const BURST: u32 = 25;
/// Time after which an instance may have one more event. Both figures are client-go's.
const REFILL: Duration = Duration::from_secs(300);
/// Time for an answer of the API server.
const ANSWER: Duration = Duration::from_secs(10);
/// Attempts to write an event, and the wait after the first; each further wait is double.
const ATTEMPTS: (u32, Duration) = (6, Duration::from_secs(1));
/// Most characters of a reason; what API servers take.
const REASON_CHARS_MAX: usize = 128;

/// An event on an instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The instance.
    pub key: VmiKey,
    /// Its uid.
    pub uid: String,
    /// Whether it needs attention.
    pub is_warning: bool,
    /// What happened, in one word.
    pub reason: String,
    /// What happened, for people.
    pub message: String,
}

/// Takes events; clones write to the same place.
#[derive(Clone, Debug)]
pub struct Recorder {
    events: mpsc::Sender<Event>,
    dropped: Arc<AtomicU64>,
}

impl Event {
    /// Makes an event about something that went as it should.
    #[must_use]
    pub fn normal(key: &VmiKey, uid: &str, reason: &str, message: &str) -> Self {
        Self {
            key: key.clone(),
            uid: uid.to_owned(),
            is_warning: false,
            reason: bounded(reason, REASON_CHARS_MAX),
            message: bounded(message, MESSAGE_CHARS_MAX),
        }
    }

    /// Makes an event about something that needs attention.
    #[must_use]
    pub fn warning(key: &VmiKey, uid: &str, reason: &str, message: &str) -> Self {
        Self {
            is_warning: true,
            ..Self::normal(key, uid, reason, message)
        }
    }

    /// Takes over an event that a launcher wrote, if it is about its own instance and makes sense.
    #[must_use]
    pub fn of_launcher(key: &VmiKey, uid: &str, told: &Value) -> Option<Self> {
        let about = told.get("involvedObject")?;
        let is = |field: &str, value: &str| about.get(field).and_then(Value::as_str) == Some(value);
        let is_ours = is("name", &key.name) && is("namespace", &key.namespace) && is("uid", uid);
        let reason = told.get("reason").and_then(Value::as_str)?;
        let message = told
            .get("message")
            .and_then(Value::as_str)
            .unwrap_or_default();
        if !is_ours || reason.is_empty() || !reason.bytes().all(|b| b.is_ascii_alphanumeric()) {
            return None;
        }
        match told.get("type").and_then(Value::as_str) {
            Some(kind) if kind == WARNING => Some(Self::warning(key, uid, reason, message)),
            Some(kind) if kind == NORMAL => Some(Self::normal(key, uid, reason, message)),
            _ => None,
        }
    }
}

impl Recorder {
    /// Starts to write events as the node agent of `node`. The task ends with the last recorder.
    #[must_use]
    pub fn start(client: Client, node: String) -> Self {
        let (recorder, waiting) = Self::waiting();
        tokio::spawn(write_all(client, node, waiting));
        recorder
    }

    /// Returns a recorder, and what somebody else is to write of its events.
    #[must_use]
    pub fn waiting() -> (Self, mpsc::Receiver<Event>) {
        let (events, waiting) = mpsc::channel(WAITING_MAX);
        let dropped = Arc::default();
        (Self { events, dropped }, waiting)
    }

    /// Records an event, or drops it when too many wait.
    pub fn record(&self, event: Event) {
        if self.events.try_send(event).is_err() {
            let dropped = self.dropped.fetch_add(1, Ordering::Relaxed) + 1;
            if dropped.is_power_of_two() {
                warn!(dropped, "too many events; some are dropped");
            }
        }
    }
}

async fn write_all(client: Client, node: String, mut waiting: mpsc::Receiver<Event>) {
    let mut memory = Memory::default();
    while let Some(event) = waiting.recv().await {
        let now = Timestamp::now();
        let Some(told) = memory.tell(event, now) else {
            continue;
        };
        let api = Api::<KubeEvent>::namespaced(client.clone(), &told.event.key.namespace);
        write(&api, &told, &node, now).await;
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
    budgets: HashMap<String, Budget>,
}

/// Events that an instance may still have.
#[derive(Clone, Copy, Debug)]
struct Budget {
    left: u32,
    since: Timestamp,
}

impl Memory {
    /// Returns what is to be written about an event; `None` when its instance has had too many.
    fn tell(&mut self, event: Event, now: Timestamp) -> Option<Told> {
        if !self.spend(&event.uid, now) {
            debug!(instance = %event.key, reason = event.reason, "too many events of one instance");
            return None;
        }
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
        Some(told)
    }

    fn spend(&mut self, uid: &str, now: Timestamp) -> bool {
        let refill = i64::try_from(REFILL.as_secs()).unwrap_or(i64::MAX);
        let refilled = |budget: &Budget| {
            let passed = now.as_second() - budget.since.as_second();
            u32::try_from(passed / refill).unwrap_or_default()
        };
        self.budgets
            .retain(|_, budget| budget.left + refilled(budget) < BURST);
        let full = Budget {
            left: BURST,
            since: now,
        };
        let budget = self.budgets.entry(uid.to_owned()).or_insert(full);
        let more = refilled(budget);
        if more > 0 {
            budget.left = (budget.left + more).min(BURST);
            budget.since = now;
        }
        let has_left = budget.left > 0;
        budget.left = budget.left.saturating_sub(1);
        has_left
    }
}

/// Returns the name of a new event, as client-go makes them.
fn name(instance: &str, now: Timestamp) -> String {
    let instance: String = instance.chars().take(200).collect();
    format!("{instance}.{:016x}", now.as_nanosecond())
}

async fn write(api: &Api<KubeEvent>, told: &Told, node: &str, now: Timestamp) {
    let (attempts, mut wait) = ATTEMPTS;
    for attempt in 1..=attempts {
        let Err(error) = try_to_write(api, told, node, now).await else {
            return;
        };
        let is_hopeless = matches!(&error, Some(kube::Error::Api(status))
            if (400..500).contains(&status.code) && status.code != 429 && status.code != 408);
        let reason = error
            .as_ref()
            .map_or_else(|| "no answer".to_owned(), |error| chain(error));
        if is_hopeless || attempt == attempts {
            warn!(instance = %told.event.key, reason = told.event.reason, error = reason, "an event is lost");
            return;
        }
        sleep(wait).await;
        wait *= 2;
    }
}

/// Writes an event, or counts it up where it was written before.
async fn try_to_write(
    api: &Api<KubeEvent>,
    told: &Told,
    node: &str,
    now: Timestamp,
) -> Result<(), Option<kube::Error>> {
    if told.count > 1 {
        let counted = json!({ "count": told.count, "lastTimestamp": rfc3339(now) });
        let parameters = PatchParams::default();
        let patch = Patch::Merge(&counted);
        let answer = timeout(ANSWER, api.patch(&told.name, &parameters, &patch)).await;
        match answer.map_err(|_| None)? {
            // API servers forget events after an hour.
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            other => return other.map(drop).map_err(Some),
        }
    }
    let event: KubeEvent = serde_json::from_value(object(told, node, now))
        .map_err(|error| Some(kube::Error::SerdeError(error)))?;
    match timeout(ANSWER, api.create(&PostParams::default(), &event)).await {
        Err(_) => Err(None),
        // An attempt whose answer was lost had succeeded.
        Ok(Err(kube::Error::Api(status))) if status.code == 409 => Ok(()),
        Ok(answer) => answer.map(drop).map_err(Some),
    }
}

fn object(told: &Told, node: &str, now: Timestamp) -> Value {
    let event = &told.event;
    json!({
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": { "name": told.name, "namespace": event.key.namespace },
        "involvedObject": {
            "apiVersion": api::manifest::API_VERSION,
            "kind": "VirtualMachineInstance",
            "name": event.key.name,
            "namespace": event.key.namespace,
            "uid": event.uid,
        },
        "type": if event.is_warning { WARNING } else { NORMAL },
        "reason": event.reason,
        "message": event.message,
        "source": { "component": api::components::VIRT_HANDLER, "host": node },
        "reportingComponent": api::components::VIRT_HANDLER,
        "reportingInstance": node,
        "firstTimestamp": rfc3339(told.first),
        "lastTimestamp": rfc3339(now),
        "count": told.count,
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use jiff::Timestamp;
    use serde_json::json;

    use super::{BURST, Event, Memory, REFILL, object};
    use crate::key::VmiKey;

    fn event(message: &str) -> Event {
        Event::normal(&VmiKey::new("default", "vm"), "uid-1", "Started", message)
    }

    fn at(seconds: u64) -> Timestamp {
        Timestamp::UNIX_EPOCH + Duration::from_secs(1_000_000 + seconds)
    }

    #[test]
    fn repetitions_are_counted_under_one_name() {
        let mut memory = Memory::default();
        let first = memory.tell(event("a"), at(0)).unwrap();
        let other = memory.tell(event("b"), at(1)).unwrap();
        let again = memory.tell(event("a"), at(2)).unwrap();
        assert_eq!((first.count, other.count, again.count), (1, 1, 2));
        assert_eq!(first.name, again.name);
        assert_ne!(first.name, other.name);
        assert_eq!(again.first, at(0));
    }

    #[test]
    fn an_instance_has_no_more_events_than_its_budget() {
        let mut memory = Memory::default();
        let told = (0..100).filter(|n| memory.tell(event(&n.to_string()), at(0)).is_some());
        assert_eq!(told.count(), BURST as usize);
        assert!(
            memory
                .tell(event("late"), at(REFILL.as_secs() - 1))
                .is_none()
        );
        assert!(memory.tell(event("late"), at(REFILL.as_secs())).is_some());
        assert!(memory.tell(event("later"), at(REFILL.as_secs())).is_none());
        let mut other = event("x");
        other.uid = "uid-2".to_owned();
        assert!(memory.tell(other, at(0)).is_some());
    }

    #[test]
    fn an_event_names_its_instance_and_its_writer() {
        let told = Memory::default().tell(event("text"), at(0)).unwrap();
        let object = object(&told, "node1", at(5));
        assert_eq!(object["involvedObject"]["uid"], "uid-1");
        assert_eq!(
            object["source"],
            json!({"component": "virt-handler", "host": "node1"})
        );
        assert_eq!(object["firstTimestamp"], "1970-01-12T13:46:40Z");
        assert_eq!(object["lastTimestamp"], "1970-01-12T13:46:45Z");
        assert!(
            object["metadata"]["name"]
                .as_str()
                .unwrap()
                .starts_with("vm.")
        );
    }

    #[test]
    fn launchers_speak_of_their_own_instance_only() {
        let key = VmiKey::new("default", "vm");
        let told = |name: &str, reason: &str, kind: &str| {
            let event = json!({
                "involvedObject": {"name": name, "namespace": "default", "uid": "uid-1"},
                "reason": reason, "message": "x".repeat(5000), "type": kind,
            });
            Event::of_launcher(&key, "uid-1", &event)
        };
        let taken = told("vm", "DiskBus", "Warning").unwrap();
        assert!(taken.is_warning && taken.message.chars().count() == 1024);
        assert_eq!(told("other", "DiskBus", "Warning"), None);
        assert_eq!(told("vm", "", "Warning"), None);
        assert_eq!(told("vm", "a b", "Warning"), None);
        assert_eq!(told("vm", "DiskBus", "Odd"), None);
        assert_eq!(Event::of_launcher(&key, "uid-2", &json!({})), None);
    }
}
