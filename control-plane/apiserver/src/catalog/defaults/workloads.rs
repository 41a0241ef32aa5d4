//! Defaults of kinds that make pods.

use serde_json::{Value, json};

use super::{below, items, pod, put, set, set_text, there};

/// Fills an object of a kind of `apps` or `batch`, or a replication controller.
pub(super) fn fill(kind: &str, object: &mut Value) {
    if kind == "ReplicationController" {
        fill_selector(object);
    }
    let Some(spec) = there(object, "spec") else {
        return;
    };
    match kind {
        "Deployment" => deployment(spec),
        "DaemonSet" => daemon_set(spec),
        "StatefulSet" => stateful_set(spec),
        "ReplicaSet" | "ReplicationController" => set(spec, "replicas", 1),
        "Job" => job(spec),
        "CronJob" => cron_job(spec),
        _ => {}
    }
    if let Some(template) = there(spec, "template") {
        pod::fill_template(template);
    }
}

/// The selector of a replication controller is the labels of its template.
fn fill_selector(object: &mut Value) {
    let labels = object.pointer("/spec/template/metadata/labels").cloned();
    if let (Some(labels), Some(spec)) = (labels, there(object, "spec")) {
        set(spec, "selector", labels);
    }
}

fn deployment(spec: &mut Value) {
    set(spec, "replicas", 1);
    set(spec, "revisionHistoryLimit", 10);
    set(spec, "progressDeadlineSeconds", 600);
    if let Some(strategy) = below(spec, "strategy") {
        set_text(strategy, "type", "RollingUpdate");
        if strategy["type"] == "RollingUpdate"
            && let Some(rolling) = below(strategy, "rollingUpdate")
        {
            set(rolling, "maxUnavailable", "25%");
            set(rolling, "maxSurge", "25%");
        }
    }
}

fn daemon_set(spec: &mut Value) {
    set(spec, "revisionHistoryLimit", 10);
    if let Some(strategy) = below(spec, "updateStrategy") {
        set_text(strategy, "type", "RollingUpdate");
        if strategy["type"] == "RollingUpdate"
            && let Some(rolling) = below(strategy, "rollingUpdate")
        {
            set(rolling, "maxUnavailable", 1);
            set(rolling, "maxSurge", 0);
        }
    }
}

fn stateful_set(spec: &mut Value) {
    set(spec, "replicas", 1);
    set(spec, "revisionHistoryLimit", 10);
    set_text(spec, "podManagementPolicy", "OrderedReady");
    set(
        spec,
        "persistentVolumeClaimRetentionPolicy",
        json!({"whenDeleted": "Retain", "whenScaled": "Retain"}),
    );
    if let Some(strategy) = below(spec, "updateStrategy") {
        set_text(strategy, "type", "RollingUpdate");
        if strategy["type"] == "RollingUpdate"
            && let Some(rolling) = below(strategy, "rollingUpdate")
        {
            set(rolling, "partition", 0);
        }
    }
    for claim in items(spec, "volumeClaimTemplates") {
        set_text(claim, "apiVersion", "v1");
        set_text(claim, "kind", "PersistentVolumeClaim");
        if let Some(spec) = there(claim, "spec") {
            set_text(spec, "volumeMode", "Filesystem");
        }
        if let Some(status) = below(claim, "status") {
            set_text(status, "phase", "Pending");
        }
    }
}

fn job(spec: &mut Value) {
    if spec.get("completions").is_none() && spec.get("parallelism").is_none() {
        put(spec, "completions", 1);
    }
    set(spec, "parallelism", 1);
    set(spec, "backoffLimit", 6);
    set(spec, "suspend", false);
    set_text(spec, "completionMode", "NonIndexed");
    set_text(spec, "podReplacementPolicy", "TerminatingOrFailed");
}

fn cron_job(spec: &mut Value) {
    set_text(spec, "concurrencyPolicy", "Allow");
    set(spec, "suspend", false);
    set(spec, "successfulJobsHistoryLimit", 3);
    set(spec, "failedJobsHistoryLimit", 1);
    let job = there(spec, "jobTemplate").and_then(|it| there(it, "spec"));
    if let Some(template) = job.and_then(|it| there(it, "template")) {
        pod::fill_template(template);
    }
}
