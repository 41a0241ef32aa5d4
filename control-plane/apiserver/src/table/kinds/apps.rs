//! Columns of kinds that make pods, or watch over them.

use super::{AGE, NAME, column, count, size, wide};
use crate::table::cells::{labels, list, number, or_none, selector, text, value_or};
use crate::table::{Native, age, workloads};

pub(super) const REPLICA_SETS: &[Native] = &[
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

pub(super) const DEPLOYMENTS: &[Native] = &[
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

pub(super) const DAEMON_SETS: &[Native] = &[
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

pub(super) const STATEFUL_SETS: &[Native] = &[
    NAME,
    column("Ready", |it, _| {
        workloads::of(it, "/status/readyReplicas", "/spec/replicas")
    }),
    AGE,
    wide("Containers", workloads::containers),
    wide("Images", workloads::images),
];

pub(super) const REVISIONS: &[Native] = &[
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

pub(super) const JOBS: &[Native] = &[
    NAME,
    column("Status", workloads::job_status),
    column("Completions", workloads::job_completions),
    column("Duration", workloads::job_duration),
    AGE,
    wide("Containers", workloads::containers),
    wide("Images", workloads::images),
    wide("Selector", |it, _| selector(&it["spec"]["selector"])),
];

pub(super) const CRON_JOBS: &[Native] = &[
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

pub(super) const BUDGETS: &[Native] = &[
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

pub(super) const AUTOSCALERS: &[Native] = &[
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
