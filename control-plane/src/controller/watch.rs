//! Watches: what changes at the API server goes into the cache, and whom it concerns into the queue.

use std::time::Duration;

use api::error_chain::chain;
use futures::{StreamExt, pin_mut};
use kube::Client;
use kube::api::{Api, DynamicObject};
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt, watcher as watching};
use serde_json::Value;
use tokio::sync::watch::Sender;
use tokio::time::Instant;
use tracing::{debug, warn};

use super::cache::{Cache, uid};
use super::change::text;
use super::evacuation;
use super::key::{Key, Kind};
use super::queue::Queue;

/// Kinds that are watched.
pub(crate) const KINDS: [Kind; 8] = [
    Kind::KubeVirt,
    Kind::Node,
    Kind::Claim,
    Kind::Pod,
    Kind::Instance,
    Kind::Machine,
    Kind::ReplicaSet,
    Kind::Migration,
];
/// Objects that one answer to a list has at most.
const PAGE_SIZE: u32 = 200;
/// Time between two complaints about a watch that fails in the same way.
const COMPLAINT: Duration = Duration::from_secs(60);

/// Follows the objects of a kind. Never returns.
pub(crate) async fn follow(
    client: Client,
    kind: Kind,
    cache: Cache,
    queue: Queue,
    listed: Sender<usize>,
) {
    let api = Api::<DynamicObject>::all_with(client, &kind.resource());
    let mut config = watcher::Config::default().page_size(PAGE_SIZE);
    if kind == Kind::Pod {
        let launchers = format!("{}={}", api::labels::APP, api::components::VIRT_LAUNCHER);
        config = config.labels(&launchers);
    }
    // That a list begins is no success: the wait would start over with each attempt.
    let listing = cache.clone();
    let is_news = move |event: &watcher::Result<Event<DynamicObject>>| {
        let begins = matches!(event, Ok(Event::Init));
        if begins {
            listing.begin_list(kind);
        }
        std::future::ready(!begins)
    };
    let events = watching(api, config).filter(is_news).default_backoff();
    pin_mut!(events);
    let mut is_listed = false;
    let mut complaint = Complaint::default();
    while let Some(event) = events.next().await {
        match event {
            Ok(event) => {
                complaint = Complaint::default();
                let is_end = matches!(event, Event::InitDone);
                take(&cache, &queue, kind, event);
                if is_end && !std::mem::replace(&mut is_listed, true) {
                    listed.send_modify(|count| *count += 1);
                }
            }
            Err(error) => {
                complaint.tell(kind, &error);
                // A cluster without such objects has none.
                let is_unknown = kind == Kind::KubeVirt && is_unknown_kind(&error);
                if is_unknown && !std::mem::replace(&mut is_listed, true) {
                    listed.send_modify(|count| *count += 1);
                }
            }
        }
    }
}

fn is_unknown_kind(error: &watcher::Error) -> bool {
    matches!(error, watcher::Error::InitialListFailed(kube::Error::Api(status)) if status.code == 404)
}

/// Tells of a watch's errors once each, however often they are repeated.
#[derive(Debug, Default)]
struct Complaint {
    last: String,
    told: Option<Instant>,
}

impl Complaint {
    fn tell(&mut self, kind: Kind, error: &watcher::Error) {
        let text = chain(error);
        let is_fresh = self.told.is_some_and(|told| told.elapsed() < COMPLAINT);
        if text == self.last && is_fresh {
            debug!(kind = kind.name(), error = text, "still cannot watch");
            return;
        }
        warn!(
            kind = kind.name(),
            error = text,
            "cannot watch; will try again"
        );
        self.last = text;
        self.told = Some(Instant::now());
    }
}

fn take(cache: &Cache, queue: &Queue, kind: Kind, event: Event<DynamicObject>) {
    match event {
        Event::Init => {}
        Event::InitApply(object) | Event::Apply(object) => {
            let object = value(object);
            let concerned = concerned(kind, &object, cache);
            if cache.put(kind, object).is_some() {
                concerned.iter().for_each(|key| queue.add(key));
            }
        }
        Event::Delete(object) => {
            let object = value(object);
            if let Some(key) = Key::of(kind, &object) {
                cache.remove(&key, uid(&object));
            }
            let concerned = concerned(kind, &object, cache);
            concerned.iter().for_each(|key| queue.add(key));
        }
        Event::InitDone => {
            for gone in cache.end_list(kind) {
                let concerned = concerned(kind, &gone, cache);
                concerned.iter().for_each(|key| queue.add(key));
            }
        }
    }
}

fn value(object: DynamicObject) -> Value {
    serde_json::to_value(object).unwrap_or_default()
}

/// Returns the objects that are to be looked at when one changes.
pub(crate) fn concerned(kind: Kind, object: &Value, cache: &Cache) -> Vec<Key> {
    let Some(key) = Key::of(kind, object) else {
        return Vec::new();
    };
    let owner = owner(object).map(|(kind, name)| key.sibling(kind, name));
    match kind {
        Kind::Pod => owner.into_iter().collect(),
        Kind::Instance => {
            let mut keys = vec![key.sibling(Kind::Machine, &key.name)];
            keys.extend(owner);
            keys.extend(migrations_of(cache, &key));
            keys.push(key);
            keys
        }
        Kind::Machine => vec![key.sibling(Kind::Instance, &key.name), key],
        Kind::Claim => waiting_for(cache, &key),
        Kind::KubeVirt => with_devices(cache),
        Kind::Migration => {
            let of = key.sibling(Kind::Instance, text(object, "/spec/vmiName"));
            vec![of, key]
        }
        _ => vec![key],
    }
}

/// The object that controls another, as far as it is one of ours.
pub(crate) fn owner(object: &Value) -> Option<(Kind, &str)> {
    let references = object.pointer("/metadata/ownerReferences")?.as_array()?;
    let controller = references
        .iter()
        .find(|owner| owner["controller"] == true)?;
    let kinds = [Kind::Instance, Kind::Machine, Kind::ReplicaSet];
    let named = text(controller, "/kind");
    let kind = kinds.into_iter().find(|kind| kind.name() == named)?;
    Some((kind, text(controller, "/name")))
}

/// The uid of the object that controls another.
pub(crate) fn owner_uid(object: &Value) -> Option<&str> {
    let references = object.pointer("/metadata/ownerReferences")?.as_array()?;
    let controller = references
        .iter()
        .find(|owner| owner["controller"] == true)?;
    controller.get("uid")?.as_str()
}

fn migrations_of(cache: &Cache, instance: &Key) -> Vec<Key> {
    let migrations = cache.all(Kind::Migration);
    let own = migrations
        .iter()
        .filter(|other| evacuation::is_of(other, instance));
    own.filter_map(|migration| Key::of(Kind::Migration, migration))
        .collect()
}

/// Instances without a place that want devices of a node: whether they may have them is the `KubeVirt` object's to say.
fn with_devices(cache: &Cache) -> Vec<Key> {
    let wants = |instance: &Value| {
        let devices = instance.pointer("/spec/domain/devices");
        let has = |list| !devices.is_none_or(|devices| devices[list].is_null());
        text(instance, "/status/nodeName").is_empty() && (has("hostDevices") || has("gpus"))
    };
    let mut instances = cache.all(Kind::Instance);
    instances.retain(|instance| wants(instance));
    let keys = instances.iter();
    keys.filter_map(|instance| Key::of(Kind::Instance, instance))
        .collect()
}

/// Instances and virtual machines of a claim's namespace that name the claim.
fn waiting_for(cache: &Cache, claim: &Key) -> Vec<Key> {
    let mut keys = Vec::new();
    for (kind, pointer) in [
        (Kind::Instance, "/spec/volumes"),
        (Kind::Machine, "/spec/template/spec/volumes"),
    ] {
        for object in cache.all(kind) {
            let volumes = object.pointer(pointer).and_then(Value::as_array);
            let mut volumes = volumes.into_iter().flatten();
            let names_it = |volume: &Value| {
                [
                    "/persistentVolumeClaim/claimName",
                    "/dataVolume/name",
                    "/ephemeral/persistentVolumeClaim/claimName",
                ]
                .iter()
                .any(|pointer| text(volume, pointer) == claim.name)
            };
            if text(&object, "/metadata/namespace") == claim.namespace && volumes.any(names_it) {
                keys.extend(Key::of(kind, &object));
            }
        }
    }
    keys
}
