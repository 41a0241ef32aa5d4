//! Columns of other kinds.

use serde_json::Value;

use super::{AGE, NAME, column, count, size, wide};
use crate::table::cells::{condition, joined, list, number, plain, selector, text, value_or};
use crate::table::{Native, workloads};

pub(super) const LEASES: &[Native] = &[
    NAME,
    column("Holder", |it, _| text(it, "/spec/holderIdentity").into()),
    AGE,
];

pub(super) const API_SERVICES: &[Native] = &[
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

pub(super) const BINDINGS: &[Native] = &[
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

pub(super) const WEBHOOKS: &[Native] = &[
    NAME,
    count("Webhooks", |it, _| size(&it["webhooks"]).into()),
    AGE,
];

pub(super) const SLICES: &[Native] = &[
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

pub(super) const INGRESSES: &[Native] = &[
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

pub(super) const NETWORK_POLICIES: &[Native] = &[
    NAME,
    column("Pod-Selector", |it, _| selector(&it["spec"]["podSelector"])),
    AGE,
];

pub(super) const PRIORITY_CLASSES: &[Native] = &[
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

pub(super) const RUNTIME_CLASSES: &[Native] = &[
    NAME,
    column("Handler", |it, _| text(it, "/handler").into()),
    AGE,
];

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
