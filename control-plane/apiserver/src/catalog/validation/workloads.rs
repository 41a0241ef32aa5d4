//! Rules of kinds that make pods.

use serde_json::Value;

use super::{in_range, one_of, pod, same, text};
use crate::failure::Cause;

/// Adds what is wrong with an object of a kind of `apps` or `batch`.
pub(super) fn check(kind: &str, old: Option<&Value>, new: &Value, found: &mut Vec<Cause>) {
    let spec = &new["spec"];
    match kind {
        "DaemonSet" | "Deployment" | "ReplicaSet" | "StatefulSet" => {
            in_range(spec, "spec", "replicas", (0, i64::MAX), found);
            selector(spec, found);
            same(old, new, "/spec/selector", found);
            pod::template(&spec["template"], "spec.template", found);
            let policy = &spec["template"]["spec"]["restartPolicy"];
            if !policy.is_null() && policy != "Always" {
                let field = "spec.template.spec.restartPolicy";
                found.push(Cause::not_supported(field, policy, &["Always"]));
            }
        }
        "Job" => {
            job(spec, "spec", found);
            same(old, new, "/spec/template", found);
            same(old, new, "/spec/completions", found);
        }
        "CronJob" => {
            if text(spec, "schedule").is_empty() {
                found.push(Cause::required("spec.schedule", ""));
            }
            one_of(
                spec,
                "spec",
                "concurrencyPolicy",
                &["Allow", "Forbid", "Replace"],
                found,
            );
            job(&spec["jobTemplate"]["spec"], "spec.jobTemplate.spec", found);
        }
        "ControllerRevision" => same(old, new, "/data", found),
        _ => {}
    }
}

/// The selector must select the pods of the template.
fn selector(spec: &Value, found: &mut Vec<Cause>) {
    let selector = &spec["selector"];
    let labels = selector["matchLabels"].as_object();
    let rules = selector["matchExpressions"].as_array();
    if labels.is_none_or(serde_json::Map::is_empty) && rules.is_none_or(Vec::is_empty) {
        let why = "empty selector is invalid, name the labels of the template";
        found.push(Cause::invalid("spec.selector", selector, why));
        return;
    }
    let template = &spec["template"]["metadata"]["labels"];
    let labels_fit = labels
        .into_iter()
        .flatten()
        .all(|(name, value)| template[name] == *value);
    let rules_fit = rules.into_iter().flatten().all(|rule| fits(rule, template));
    if !labels_fit || !rules_fit {
        let field = "spec.template.metadata.labels";
        found.push(Cause::invalid(
            field,
            template,
            "`selector` does not match template `labels`",
        ));
    }
}

fn fits(rule: &Value, labels: &Value) -> bool {
    let label = &labels[text(rule, "key")];
    let is_named = rule["values"]
        .as_array()
        .is_some_and(|it| it.contains(label));
    match text(rule, "operator") {
        "In" => is_named,
        "NotIn" => !is_named,
        "Exists" => !label.is_null(),
        "DoesNotExist" => label.is_null(),
        _ => false,
    }
}

fn job(spec: &Value, path: &str, found: &mut Vec<Cause>) {
    for field in [
        "parallelism",
        "completions",
        "backoffLimit",
        "activeDeadlineSeconds",
        "ttlSecondsAfterFinished",
    ] {
        in_range(spec, path, field, (0, i64::MAX), found);
    }
    pod::template(&spec["template"], &format!("{path}.template"), found);
    let policy = &spec["template"]["spec"]["restartPolicy"];
    if policy == "Always" {
        let field = format!("{path}.template.spec.restartPolicy");
        found.push(Cause::not_supported(
            &field,
            policy,
            &["OnFailure", "Never"],
        ));
    }
}
