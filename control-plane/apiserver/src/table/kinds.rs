//! Columns of built-in kinds.

use jiff::Timestamp;
use serde_json::Value;

use super::cells::{
    access_modes, condition, created, created_at, joined, labels, list, name, number, or_none,
    plain, selector, text, value_or,
};
use super::{Native, age, pod, workloads};
use crate::catalog::Resource;

type Cell = fn(&Value, Timestamp) -> Value;

const NAME: Native = column("Name", name);
const AGE: Native = column("Age", created);

/// Columns of kinds that have no others.
pub(super) const NAME_AND_AGE: &[Native] = &[NAME, AGE];

const fn column(name: &'static str, cell: Cell) -> Native {
    Native {
        name,
        kind: "string",
        priority: 0,
        cell,
    }
}

const fn wide(name: &'static str, cell: Cell) -> Native {
    Native {
        priority: 1,
        ..column(name, cell)
    }
}

const fn count(name: &'static str, cell: Cell) -> Native {
    Native {
        kind: "integer",
        ..column(name, cell)
    }
}

/// Returns the columns of a kind that has its own.
pub(super) fn columns(resource: &Resource) -> Option<&'static [Native]> {
    Some(match (resource.group.as_str(), resource.plural.as_str()) {
        ("", "pods") => PODS,
        ("", "nodes") => NODES,
        ("", "namespaces") => NAMESPACES,
        ("", "events") => EVENTS,
        ("events.k8s.io", "events") => NEW_EVENTS,
        ("", "services") => SERVICES,
        ("", "endpoints") => ENDPOINTS,
        ("", "persistentvolumeclaims") => CLAIMS,
        ("", "persistentvolumes") => VOLUMES,
        ("", "configmaps") => CONFIG_MAPS,
        ("", "secrets") => SECRETS,
        ("", "serviceaccounts") => SERVICE_ACCOUNTS,
        ("", "replicationcontrollers") | ("apps", "replicasets") => REPLICA_SETS,
        ("", "limitranges") => CREATED,
        ("apps", "deployments") => DEPLOYMENTS,
        ("apps", "daemonsets") => DAEMON_SETS,
        ("apps", "statefulsets") => STATEFUL_SETS,
        ("apps", "controllerrevisions") => REVISIONS,
        ("batch", "jobs") => JOBS,
        ("batch", "cronjobs") => CRON_JOBS,
        ("policy", "poddisruptionbudgets") => BUDGETS,
        ("storage.k8s.io", "storageclasses") => STORAGE_CLASSES,
        ("storage.k8s.io", "volumeattachments") => ATTACHMENTS,
        ("storage.k8s.io", "csinodes") => CSI_NODES,
        ("coordination.k8s.io", "leases") => LEASES,
        ("apiextensions.k8s.io", "customresourcedefinitions") => CREATED,
        ("apiregistration.k8s.io", "apiservices") => API_SERVICES,
        ("rbac.authorization.k8s.io", "roles" | "clusterroles") => CREATED,
        ("rbac.authorization.k8s.io", _) => BINDINGS,
        ("admissionregistration.k8s.io", _) => WEBHOOKS,
        ("discovery.k8s.io", "endpointslices") => SLICES,
        ("networking.k8s.io", "ingresses") => INGRESSES,
        ("networking.k8s.io", "networkpolicies") => NETWORK_POLICIES,
        ("scheduling.k8s.io", "priorityclasses") => PRIORITY_CLASSES,
        ("node.k8s.io", "runtimeclasses") => RUNTIME_CLASSES,
        ("autoscaling", "horizontalpodautoscalers") => AUTOSCALERS,
        _ => return None,
    })
}

const PODS: &[Native] = &[
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

const NODES: &[Native] = &[
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

const NAMESPACES: &[Native] = &[
    NAME,
    column("Status", |it, _| text(it, "/status/phase").into()),
    AGE,
];

const EVENTS: &[Native] = &[
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

const NEW_EVENTS: &[Native] = &[
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

const SERVICES: &[Native] = &[
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

const ENDPOINTS: &[Native] = &[NAME, column("Endpoints", workloads::endpoints), AGE];

const CLAIMS: &[Native] = &[
    NAME,
    column("Status", phase),
    column("Volume", |it, _| text(it, "/spec/volumeName").into()),
    column("Capacity", |it, _| {
        if is_bound(it) {
            value_or(it, "/status/capacity/storage", "")
        } else {
            "".into()
        }
    }),
    column("Access Modes", |it, _| {
        if is_bound(it) {
            access_modes(list(it, "/status/accessModes")).into()
        } else {
            "".into()
        }
    }),
    column("StorageClass", |it, _| {
        text(it, "/spec/storageClassName").into()
    }),
    column("VolumeAttributesClass", |it, _| {
        value_or(it, "/spec/volumeAttributesClassName", "<unset>")
    }),
    AGE,
    wide("VolumeMode", |it, _| {
        value_or(it, "/spec/volumeMode", "<unset>")
    }),
];

const VOLUMES: &[Native] = &[
    NAME,
    column("Capacity", |it, _| {
        value_or(it, "/spec/capacity/storage", "")
    }),
    column("Access Modes", |it, _| {
        access_modes(list(it, "/spec/accessModes")).into()
    }),
    column("Reclaim Policy", |it, _| {
        text(it, "/spec/persistentVolumeReclaimPolicy").into()
    }),
    column("Status", phase),
    column("Claim", |it, _| {
        let claim = &it["spec"]["claimRef"];
        if claim.is_object() {
            format!("{}/{}", text(claim, "/namespace"), text(claim, "/name")).into()
        } else {
            "".into()
        }
    }),
    column("StorageClass", |it, _| {
        text(it, "/spec/storageClassName").into()
    }),
    column("VolumeAttributesClass", |it, _| {
        value_or(it, "/spec/volumeAttributesClassName", "<unset>")
    }),
    column("Reason", |it, _| text(it, "/status/reason").into()),
    AGE,
    wide("VolumeMode", |it, _| {
        value_or(it, "/spec/volumeMode", "<unset>")
    }),
];

const CONFIG_MAPS: &[Native] = &[
    NAME,
    count("Data", |it, _| {
        (size(&it["data"]) + size(&it["binaryData"])).into()
    }),
    AGE,
];

const SECRETS: &[Native] = &[
    NAME,
    column("Type", |it, _| text(it, "/type").into()),
    count("Data", |it, _| size(&it["data"]).into()),
    AGE,
];

const SERVICE_ACCOUNTS: &[Native] = &[
    NAME,
    count("Secrets", |it, _| size(&it["secrets"]).into()),
    AGE,
];

const REPLICA_SETS: &[Native] = &[
    NAME,
    count("Desired", |it, _| number(it, "/spec/replicas").into()),
    count("Current", |it, _| number(it, "/status/replicas").into()),
    count("Ready", |it, _| number(it, "/status/readyReplicas").into()),
    AGE,
    wide("Containers", workloads::containers),
    wide("Images", workloads::images),
    wide("Selector", |it, _| {
        let selector_ = &it["spec"]["selector"];
        let is_plain =
            selector_.get("matchLabels").is_none() && selector_.get("matchExpressions").is_none();
        if is_plain {
            or_none(&labels(selector_))
        } else {
            selector(selector_)
        }
    }),
];

const DEPLOYMENTS: &[Native] = &[
    NAME,
    column("Ready", |it, _| {
        workloads::of(it, "/status/readyReplicas", "/spec/replicas")
    }),
    count("Up-to-date", |it, _| {
        number(it, "/status/updatedReplicas").into()
    }),
    count("Available", |it, _| {
        number(it, "/status/availableReplicas").into()
    }),
    AGE,
    wide("Containers", workloads::containers),
    wide("Images", workloads::images),
    wide("Selector", |it, _| selector(&it["spec"]["selector"])),
];

const DAEMON_SETS: &[Native] = &[
    NAME,
    count("Desired", |it, _| {
        number(it, "/status/desiredNumberScheduled").into()
    }),
    count("Current", |it, _| {
        number(it, "/status/currentNumberScheduled").into()
    }),
    count("Ready", |it, _| number(it, "/status/numberReady").into()),
    count("Up-to-date", |it, _| {
        number(it, "/status/updatedNumberScheduled").into()
    }),
    count("Available", |it, _| {
        number(it, "/status/numberAvailable").into()
    }),
    column("Node Selector", |it, _| {
        or_none(&labels(&it["spec"]["template"]["spec"]["nodeSelector"]))
    }),
    AGE,
    wide("Containers", workloads::containers),
    wide("Images", workloads::images),
    wide("Selector", |it, _| selector(&it["spec"]["selector"])),
];

const STATEFUL_SETS: &[Native] = &[
    NAME,
    column("Ready", |it, _| {
        workloads::of(it, "/status/readyReplicas", "/spec/replicas")
    }),
    AGE,
    wide("Containers", workloads::containers),
    wide("Images", workloads::images),
];

const REVISIONS: &[Native] = &[
    NAME,
    column("Controller", |it, _| {
        let owners = list(it, "/metadata/ownerReferences").iter();
        let owner = owners.clone().find(|it| it["controller"] == true);
        match owner {
            Some(owner) => {
                let api = text(owner, "/apiVersion");
                let group = api.split_once('/').map_or("", |(group, _)| group);
                let dot = if group.is_empty() { "" } else { "." };
                format!(
                    "{}{dot}{group}/{}",
                    text(owner, "/kind").to_lowercase(),
                    text(owner, "/name")
                )
                .into()
            }
            None => or_none(""),
        }
    }),
    count("Revision", |it, _| number(it, "/revision").into()),
    AGE,
];

const JOBS: &[Native] = &[
    NAME,
    column("Status", workloads::job_status),
    column("Completions", workloads::job_completions),
    column("Duration", workloads::job_duration),
    AGE,
    wide("Containers", workloads::containers),
    wide("Images", workloads::images),
    wide("Selector", |it, _| selector(&it["spec"]["selector"])),
];

const CRON_JOBS: &[Native] = &[
    NAME,
    column("Schedule", |it, _| text(it, "/spec/schedule").into()),
    column("Timezone", |it, _| value_or(it, "/spec/timeZone", "<none>")),
    column("Suspend", |it, _| {
        if it["spec"]["suspend"] == true {
            "True"
        } else {
            "False"
        }
        .into()
    }),
    count("Active", |it, _| size(&it["status"]["active"]).into()),
    column("Last Schedule", |it, now| {
        match text(it, "/status/lastScheduleTime") {
            "" => or_none(""),
            time => age::since(&time.into(), now).into(),
        }
    }),
    AGE,
    wide("Containers", workloads::containers),
    wide("Images", workloads::images),
];

const BUDGETS: &[Native] = &[
    NAME,
    column("Min Available", |it, _| {
        value_or(it, "/spec/minAvailable", "N/A")
    }),
    column("Max Unavailable", |it, _| {
        value_or(it, "/spec/maxUnavailable", "N/A")
    }),
    count("Allowed Disruptions", |it, _| {
        number(it, "/status/disruptionsAllowed").into()
    }),
    AGE,
];

const STORAGE_CLASSES: &[Native] = &[
    column("Name", |it, _| {
        let annotations = &it["metadata"]["annotations"];
        let is_default = annotations["storageclass.kubernetes.io/is-default-class"] == "true";
        format!(
            "{}{}",
            text(it, "/metadata/name"),
            if is_default { " (default)" } else { "" }
        )
        .into()
    }),
    column("Provisioner", |it, _| text(it, "/provisioner").into()),
    column("ReclaimPolicy", |it, _| {
        value_or(it, "/reclaimPolicy", "Delete")
    }),
    column("VolumeBindingMode", |it, _| {
        value_or(it, "/volumeBindingMode", "Immediate")
    }),
    Native {
        kind: "boolean",
        ..column("AllowVolumeExpansion", |it, _| {
            (it["allowVolumeExpansion"] == true).into()
        })
    },
    AGE,
];

const ATTACHMENTS: &[Native] = &[
    NAME,
    column("Attacher", |it, _| text(it, "/spec/attacher").into()),
    column("PV", |it, _| {
        text(it, "/spec/source/persistentVolumeName").into()
    }),
    column("Node", |it, _| text(it, "/spec/nodeName").into()),
    Native {
        kind: "boolean",
        ..column("Attached", |it, _| {
            (it["status"]["attached"] == true).into()
        })
    },
    AGE,
];

const CSI_NODES: &[Native] = &[
    NAME,
    count("Drivers", |it, _| size(&it["spec"]["drivers"]).into()),
    AGE,
];

const LEASES: &[Native] = &[
    NAME,
    column("Holder", |it, _| text(it, "/spec/holderIdentity").into()),
    AGE,
];

const CREATED: &[Native] = &[NAME, column("Created At", created_at)];

const API_SERVICES: &[Native] = &[
    NAME,
    column("Service", |it, _| {
        let service = &it["spec"]["service"];
        if service.is_object() {
            format!("{}/{}", text(service, "/namespace"), text(service, "/name")).into()
        } else {
            "Local".into()
        }
    }),
    column("Available", |it, _| {
        let Some(condition) = condition(it, "Available") else {
            return "Unknown".into();
        };
        let (status, reason) = (text(condition, "/status"), text(condition, "/reason"));
        let is_plain = status == "True" || reason.is_empty();
        if is_plain {
            status.into()
        } else {
            format!("{status} ({reason})").into()
        }
    }),
    AGE,
];

const BINDINGS: &[Native] = &[
    NAME,
    column("Role", |it, _| {
        format!(
            "{}/{}",
            text(it, "/roleRef/kind"),
            text(it, "/roleRef/name")
        )
        .into()
    }),
    AGE,
    wide("Users", |it, _| subjects(it, "User")),
    wide("Groups", |it, _| subjects(it, "Group")),
    wide("ServiceAccounts", |it, _| subjects(it, "ServiceAccount")),
];

const WEBHOOKS: &[Native] = &[
    NAME,
    count("Webhooks", |it, _| size(&it["webhooks"]).into()),
    AGE,
];

const SLICES: &[Native] = &[
    NAME,
    column("AddressType", |it, _| text(it, "/addressType").into()),
    column("Ports", |it, _| {
        let ports: Vec<_> = list(it, "/ports")
            .iter()
            .map(|it| number(it, "/port").to_string())
            .collect();
        workloads::first_three(&ports)
    }),
    column("Endpoints", |it, _| {
        let addresses = list(it, "/endpoints")
            .iter()
            .flat_map(|it| list(it, "/addresses"));
        workloads::first_three(&addresses.map(plain).collect::<Vec<_>>())
    }),
    AGE,
];

const INGRESSES: &[Native] = &[
    NAME,
    column("Class", |it, _| {
        value_or(it, "/spec/ingressClassName", "<none>")
    }),
    column("Hosts", |it, _| match list(it, "/spec/rules") {
        [] => "*".into(),
        rules => joined(rules.iter().map(|it| match text(it, "/host") {
            "" => "*",
            host => host,
        })),
    }),
    column("Address", |it, _| {
        let all = list(it, "/status/loadBalancer/ingress").iter();
        let all: Vec<_> = all
            .map(|it| [text(it, "/ip"), text(it, "/hostname")].concat())
            .collect();
        all.join(",").into()
    }),
    column("Ports", |it, _| {
        if list(it, "/spec/tls").is_empty() {
            "80"
        } else {
            "80, 443"
        }
        .into()
    }),
    AGE,
];

const NETWORK_POLICIES: &[Native] = &[
    NAME,
    column("Pod-Selector", |it, _| selector(&it["spec"]["podSelector"])),
    AGE,
];

const PRIORITY_CLASSES: &[Native] = &[
    NAME,
    count("Value", |it, _| number(it, "/value").into()),
    Native {
        kind: "boolean",
        ..column("Global-Default", |it, _| {
            (it["globalDefault"] == true).into()
        })
    },
    AGE,
    column("PreemptionPolicy", |it, _| {
        text(it, "/preemptionPolicy").into()
    }),
];

const RUNTIME_CLASSES: &[Native] = &[
    NAME,
    column("Handler", |it, _| text(it, "/handler").into()),
    AGE,
];

const AUTOSCALERS: &[Native] = &[
    NAME,
    column("Reference", |it, _| {
        let target = &it["spec"]["scaleTargetRef"];
        format!("{}/{}", text(target, "/kind"), text(target, "/name")).into()
    }),
    count("MinPods", |it, _| {
        value_or(it, "/spec/minReplicas", "<unset>")
    }),
    count("MaxPods", |it, _| number(it, "/spec/maxReplicas").into()),
    count("Replicas", |it, _| {
        number(it, "/status/currentReplicas").into()
    }),
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

fn phase(object: &Value, _: Timestamp) -> Value {
    let is_deleted = !object["metadata"]["deletionTimestamp"].is_null();
    if is_deleted {
        "Terminating"
    } else {
        text(object, "/status/phase")
    }
    .into()
}

fn is_bound(claim: &Value) -> bool {
    !text(claim, "/spec/volumeName").is_empty()
}

fn subjects(binding: &Value, kind: &str) -> Value {
    let subjects = list(binding, "/subjects")
        .iter()
        .filter(|it| it["kind"] == kind);
    let names = subjects.map(|it| match text(it, "/namespace") {
        "" => text(it, "/name").to_owned(),
        namespace => format!("{namespace}/{}", text(it, "/name")),
    });
    names.collect::<Vec<_>>().join(", ").into()
}

fn size(value: &Value) -> usize {
    match value {
        Value::Array(items) => items.len(),
        Value::Object(fields) => fields.len(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 0,
    }
}
