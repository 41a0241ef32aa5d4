//! What a cluster's own controllers do: dependents of what is gone go, namespaces end, events fade, service accounts come.

mod garbage;
mod namespaces;

use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::time::{Instant, MissedTickBehavior, interval_at};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

pub use self::garbage::{Dependent, Duty, duties};
use crate::definitions;
use crate::objects::{Objects, Refused};
use crate::server::ApiServer;
use crate::ticks::Ticks;

/// Changes within this time are looked at together: each look is at all objects.
const GATHER: Duration = Duration::from_millis(200);
/// Time that an event is kept, as in Kubernetes.
const EVENT_LIFE: Duration = Duration::from_secs(3600);
/// Events that are kept at most.
const EVENTS_MAX: usize = 5000;
/// Time between two looks for old events.
const EVENT_LOOK: Duration = Duration::from_secs(60);
/// Resources that have neither owners nor dependents, and change all the time.
const QUIET: [&str; 3] = [
    "events",
    "events.events.k8s.io",
    "leases.coordination.k8s.io",
];

/// Keeps house until it is told to stop. `authority` is the certificate by which pods know this server, in PEM.
pub async fn run(server: ApiServer, authority: String, stop: CancellationToken) {
    let objects = Objects::new(
        server.clone(),
        "system:serviceaccount:kube-system:garbage-collector",
    );
    let events = fade(server.clone(), objects.clone());
    let keep = async { tokio::join!(keep(server, objects, authority), events) };
    let _stopped = stop.run_until_cancelled(keep).await;
}

async fn keep(server: ApiServer, objects: Objects, authority: String) {
    let mut ticks = Ticks::new(server.store().clone()).gathering(GATHER);
    loop {
        let resources = followed(&server);
        ticks.follow(&resources.iter().map(String::as_str).collect::<Vec<_>>());
        // A kind that is new is followed once the kinds themselves have changed, which they do before its first object.
        while followed(&server) == resources {
            collect(&server, &objects, &resources).await;
            definitions::keep(server.store(), server.registry(), &objects).await;
            namespaces::keep(&server, &objects, &resources, &authority).await;
            ticks.next().await;
        }
    }
}

fn followed(server: &ApiServer) -> Vec<String> {
    let catalog = server.registry().catalog();
    let names = catalog.resources.values().map(|it| it.store_name());
    names.filter(|it| !QUIET.contains(&it.as_str())).collect()
}

async fn collect(server: &ApiServer, objects: &Objects, resources: &[String]) {
    let catalog = server.registry().catalog();
    let mut dependents = Vec::new();
    for resource in catalog
        .resources
        .values()
        .filter(|it| resources.contains(&it.store_name()))
    {
        let stored = server.store().list(&resource.store_name(), None).objects;
        dependents.extend(stored.iter().map(|it| Dependent::of(resource, it)));
    }
    for duty in duties(&dependents) {
        debug!(?duty, "keeping house");
        if let Err(error) = fulfil(objects, &duty).await {
            warn!(?duty, %error, "cannot keep house; will try again with the next change");
        }
    }
}

async fn fulfil(objects: &Objects, duty: &Duty) -> Result<(), Refused> {
    match duty {
        Duty::Delete { path, uid } => {
            let options = json!({
                "apiVersion": "v1", "kind": "DeleteOptions",
                "propagationPolicy": "Background", "preconditions": {"uid": uid},
            });
            objects.delete_with(path, &options).await
        }
        Duty::Change { path, patch } => match objects.json_patch(path, patch).await {
            // Gone, or changed meanwhile: that change brings us here again.
            Err(refused) if matches!(refused.code, 404 | 409 | 422) => Ok(()),
            done => done.map(|_| ()),
        },
    }
}

/// Deletes old events now and then. Never returns.
async fn fade(server: ApiServer, objects: Objects) {
    let mut looks = interval_at(Instant::now() + EVENT_LOOK, EVENT_LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        let mut events: Vec<Value> = objects.list("events");
        events.sort_by_key(|it| std::cmp::Reverse(time(it)));
        let oldest =
            Timestamp::now() - jiff::SignedDuration::try_from(EVENT_LIFE).unwrap_or_default();
        let is_old = |(place, event): &(usize, Value)| *place >= EVENTS_MAX || time(event) < oldest;
        for (_, event) in events.into_iter().enumerate().filter(is_old) {
            if let Err(error) = objects.delete(&event_path(&event)).await {
                warn!(%error, "cannot delete an old event");
            }
        }
        debug!(
            revision = server.store().revision(),
            "looked for old events"
        );
    }
}

/// Returns when an event was last seen.
fn time(event: &Value) -> Timestamp {
    let times = ["lastTimestamp", "eventTime"].map(|it| &event[it]);
    let mut times = times
        .into_iter()
        .chain([&event["metadata"]["creationTimestamp"]]);
    let parsed = times.find_map(|it| it.as_str()?.parse().ok());
    parsed.unwrap_or(Timestamp::UNIX_EPOCH)
}

fn event_path(event: &Value) -> String {
    let text = |name: &str| {
        event["metadata"][name]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    };
    format!(
        "/api/v1/namespaces/{}/events/{}",
        text("namespace"),
        text("name")
    )
}
