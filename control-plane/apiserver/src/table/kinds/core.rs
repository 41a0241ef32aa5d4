//! Columns of kinds of the core group, and of events.

use jiff::Timestamp;
use serde_json::Value;

use super::{AGE, NAME, column, count, size, wide};
use crate::table::cells::{condition, joined, labels, list, name, number, or_none, text, value_or};
use crate::table::{Native, age, pod, workloads};

pub(super) const PODS: &[Native] = &[
    NAME,
    column("Ready", pod::ready),
    column("Status", pod::status),
    column("Restarts", pod::restarts),
    AGE,
    wide("IP", pod::ip),
    wide("Node", |it, _| or_none(text(it, "/spec/nodeName"))),
    wide("Nominated Node", |it, _| {
        or_none(text(it, "/status/nominatedNodeName"))
    }),
    wide("Readiness Gates", pod::readiness_gates),
];

pub(super) const NODES: &[Native] = &[
    NAME,
    column("Status", node_status),
    column("Roles", node_roles),
    AGE,
    column("Version", |it, _| {
        text(it, "/status/nodeInfo/kubeletVersion").into()
    }),
    wide("Internal-IP", |it, _| address(it, "InternalIP")),
    wide("External-IP", |it, _| address(it, "ExternalIP")),
    wide("OS-Image", |it, _| {
        value_or(it, "/status/nodeInfo/osImage", "<unknown>")
    }),
    wide("Kernel-Version", |it, _| {
        value_or(it, "/status/nodeInfo/kernelVersion", "<unknown>")
    }),
    wide("Container-Runtime", |it, _| {
        value_or(it, "/status/nodeInfo/containerRuntimeVersion", "<unknown>")
    }),
];

pub(super) const NAMESPACES: &[Native] = &[
    NAME,
    column("Status", |it, _| text(it, "/status/phase").into()),
    AGE,
];

pub(super) const EVENTS: &[Native] = &[
    column("Last Seen", |it, now| {
        last_seen(
            it,
            &["/series/lastObservedTime", "/lastTimestamp", "/eventTime"],
            now,
        )
    }),
    column("Type", |it, _| text(it, "/type").into()),
    column("Reason", |it, _| text(it, "/reason").into()),
    column("Object", |it, _| about(&it["involvedObject"])),
    wide("Subobject", |it, _| {
        text(it, "/involvedObject/fieldPath").into()
    }),
    wide("Source", |it, _| {
        let component = text(it, "/source/component");
        let parts = [
            if component.is_empty() {
                text(it, "/reportingComponent")
            } else {
                component
            },
            text(it, "/source/host"),
        ];
        parts
            .map(str::to_owned)
            .into_iter()
            .filter(|it| !it.is_empty())
            .collect::<Vec<_>>()
            .join(", ")
            .into()
    }),
    column("Message", |it, _| text(it, "/message").trim().into()),
    wide("First Seen", |it, now| {
        last_seen(it, &["/firstTimestamp", "/eventTime"], now)
    }),
    wide("Count", |it, _| {
        number(it, "/series/count")
            .max(number(it, "/count"))
            .max(1)
            .into()
    }),
    wide("Name", name),
];

pub(super) const NEW_EVENTS: &[Native] = &[
    column("Last Seen", |it, now| {
        last_seen(
            it,
            &[
                "/series/lastObservedTime",
                "/deprecatedLastTimestamp",
                "/eventTime",
            ],
            now,
        )
    }),
    column("Type", |it, _| text(it, "/type").into()),
    column("Reason", |it, _| text(it, "/reason").into()),
    column("Object", |it, _| about(&it["regarding"])),
    wide("Subobject", |it, _| text(it, "/regarding/fieldPath").into()),
    wide("Source", |it, _| text(it, "/reportingController").into()),
    column("Message", |it, _| text(it, "/note").trim().into()),
    wide("First Seen", |it, now| {
        last_seen(it, &["/deprecatedFirstTimestamp", "/eventTime"], now)
    }),
    wide("Count", |it, _| {
        number(it, "/series/count")
            .max(number(it, "/deprecatedCount"))
            .max(1)
            .into()
    }),
    wide("Name", name),
];

pub(super) const SERVICES: &[Native] = &[
    NAME,
    column("Type", |it, _| text(it, "/spec/type").into()),
    column("Cluster-IP", |it, _| or_none(text(it, "/spec/clusterIP"))),
    column("External-IP", workloads::external_ip),
    column("Port(s)", workloads::ports),
    AGE,
    wide("Selector", |it, _| {
        or_none(&labels(&it["spec"]["selector"]))
    }),
];

pub(super) const ENDPOINTS: &[Native] = &[NAME, column("Endpoints", workloads::endpoints), AGE];

pub(super) const CONFIG_MAPS: &[Native] = &[
    NAME,
    count("Data", |it, _| {
        (size(&it["data"]) + size(&it["binaryData"])).into()
    }),
    AGE,
];

pub(super) const SECRETS: &[Native] = &[
    NAME,
    column("Type", |it, _| text(it, "/type").into()),
    count("Data", |it, _| size(&it["data"]).into()),
    AGE,
];

pub(super) const SERVICE_ACCOUNTS: &[Native] = &[
    NAME,
    count("Secrets", |it, _| size(&it["secrets"]).into()),
    AGE,
];

fn node_status(node: &Value, _: Timestamp) -> Value {
    let ready = condition(node, "Ready").map(|it| text(it, "/status"));
    let ready = match ready {
        Some("True") => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    };
    let is_closed = node["spec"]["unschedulable"] == true;
    format!(
        "{ready}{}",
        if is_closed { ",SchedulingDisabled" } else { "" }
    )
    .into()
}

fn node_roles(node: &Value, _: Timestamp) -> Value {
    let labels = node["metadata"]["labels"].as_object().into_iter().flatten();
    joined(labels.filter_map(|(key, value)| {
        if key == "kubernetes.io/role" {
            return value.as_str();
        }
        key.strip_prefix("node-role.kubernetes.io/")
    }))
}

fn address(node: &Value, kind: &str) -> Value {
    let mut addresses = list(node, "/status/addresses").iter();
    let found = addresses.find(|it| it["type"] == kind);
    or_none(found.map_or("", |it| text(it, "/address")))
}

fn last_seen(event: &Value, pointers: &[&str], now: Timestamp) -> Value {
    let mut times = pointers.iter().filter_map(|it| event.pointer(it));
    let time = times.find(|it| !it.is_null()).unwrap_or(&Value::Null);
    age::since(time, now).into()
}

fn about(reference: &Value) -> Value {
    let (kind, name) = (
        text(reference, "/kind").to_lowercase(),
        text(reference, "/name"),
    );
    if name.is_empty() {
        kind
    } else {
        format!("{kind}/{name}")
    }
    .into()
}
