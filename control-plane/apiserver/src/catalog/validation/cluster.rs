//! Rules of other kinds.

use serde_json::Value;

use super::{in_range, items, needs, one_of, same, text};
use crate::failure::Cause;

/// Adds what is wrong with an object.
pub(super) fn check(kind: &str, old: Option<&Value>, new: &Value, found: &mut Vec<Cause>) {
    match kind {
        "RoleBinding" | "ClusterRoleBinding" => binding(kind, old, new, found),
        "Role" | "ClusterRole" => rules(kind, new, found),
        "PodDisruptionBudget" => budget(&new["spec"], found),
        "Lease" => {
            in_range(
                &new["spec"],
                "spec",
                "leaseDurationSeconds",
                (1, i64::MAX),
                found,
            );
            in_range(
                &new["spec"],
                "spec",
                "leaseTransitions",
                (0, i64::MAX),
                found,
            );
        }
        "PriorityClass" => {
            same(old, new, "/value", found);
            let preemption = &new["preemptionPolicy"];
            let choices = ["Never", "PreemptLowerPriority"];
            if !preemption.is_null() && !choices.contains(&text(new, "preemptionPolicy")) {
                found.push(Cause::not_supported(
                    "preemptionPolicy",
                    preemption,
                    &choices,
                ));
            }
        }
        "MutatingWebhookConfiguration" | "ValidatingWebhookConfiguration" => {
            for (path, webhook) in items(new, "", "webhooks") {
                webhook_rules(webhook, path.trim_start_matches('.'), found);
            }
        }
        "APIService" => api_service(new, found),
        "Node" => {
            for (path, taint) in items(&new["spec"], "spec", "taints") {
                needs(taint, &path, "key", found);
                let effects = ["NoExecute", "NoSchedule", "PreferNoSchedule"];
                one_of(taint, &path, "effect", &effects, found);
            }
        }
        _ => {}
    }
}

fn binding(kind: &str, old: Option<&Value>, new: &Value, found: &mut Vec<Cause>) {
    let role = &new["roleRef"];
    let kinds: &[&str] = if kind == "RoleBinding" {
        &["Role", "ClusterRole"]
    } else {
        &["ClusterRole"]
    };
    one_of(role, "roleRef", "kind", kinds, found);
    needs(role, "roleRef", "name", found);
    for (path, subject) in items(new, "", "subjects") {
        let path = path.trim_start_matches('.');
        one_of(
            subject,
            path,
            "kind",
            &["ServiceAccount", "User", "Group"],
            found,
        );
        needs(subject, path, "name", found);
        if text(subject, "kind") == "ServiceAccount" {
            needs(subject, path, "namespace", found);
        }
    }
    if old.is_some_and(|it| it["roleRef"] != *role) {
        let why = "cannot change roleRef, delete the binding and create it again";
        found.push(Cause::invalid("roleRef", role, why));
    }
}

fn rules(kind: &str, role: &Value, found: &mut Vec<Cause>) {
    for (path, rule) in items(role, "", "rules") {
        let path = path.trim_start_matches('.');
        let is_empty = |field: &str| rule[field].as_array().is_none_or(Vec::is_empty);
        if is_empty("verbs") {
            found.push(Cause::required(
                &format!("{path}.verbs"),
                "verbs must contain at least one value",
            ));
        }
        if !is_empty("nonResourceURLs") {
            if kind == "Role" {
                let why = "namespaced rules cannot apply to non-resource URLs";
                found.push(Cause::invalid(
                    &format!("{path}.nonResourceURLs"),
                    &rule["nonResourceURLs"],
                    why,
                ));
            }
            continue;
        }
        for field in ["apiGroups", "resources"] {
            if is_empty(field) {
                let why = "resource rules must supply at least one";
                found.push(Cause::required(&format!("{path}.{field}"), why));
            }
        }
    }
}

fn budget(spec: &Value, found: &mut Vec<Cause>) {
    if !spec["minAvailable"].is_null() && !spec["maxUnavailable"].is_null() {
        let why = "minAvailable and maxUnavailable cannot be both set";
        found.push(Cause::invalid("spec", spec, why));
    }
    for field in ["minAvailable", "maxUnavailable"] {
        in_range(spec, "spec", field, (0, i64::MAX), found);
    }
}

fn webhook_rules(webhook: &Value, path: &str, found: &mut Vec<Cause>) {
    if text(webhook, "name").split('.').count() < 3 {
        let why = "should be a domain with at least three segments separated by dots";
        found.push(Cause::invalid(
            &format!("{path}.name"),
            &webhook["name"],
            why,
        ));
    }
    let client = &webhook["clientConfig"];
    if (client["url"].is_null()) == (client["service"].is_null()) {
        let why = "exactly one of url or service is required";
        found.push(Cause::required(&format!("{path}.clientConfig"), why));
    }
    let effects = &webhook["sideEffects"];
    let choices = ["None", "NoneOnDryRun"];
    if !choices.contains(&text(webhook, "sideEffects")) {
        found.push(Cause::not_supported(
            &format!("{path}.sideEffects"),
            effects,
            &choices,
        ));
    }
    one_of(webhook, path, "failurePolicy", &["Fail", "Ignore"], found);
    one_of(
        webhook,
        path,
        "matchPolicy",
        &["Equivalent", "Exact"],
        found,
    );
    in_range(webhook, path, "timeoutSeconds", (1, 30), found);
    let versions = &webhook["admissionReviewVersions"];
    let is_known = |it: &Value| it == "v1";
    if !versions
        .as_array()
        .is_some_and(|it| it.iter().any(is_known))
    {
        let why = "must include v1, the only version there is here";
        found.push(Cause::invalid(
            &format!("{path}.admissionReviewVersions"),
            versions,
            why,
        ));
    }
}

fn api_service(service: &Value, found: &mut Vec<Cause>) {
    let spec = &service["spec"];
    let (group, version) = (text(spec, "group"), text(spec, "version"));
    let wanted = format!("{version}.{group}");
    if text(&service["metadata"], "name") != wanted {
        let why = format!("must be `spec.version+\".\"+spec.group`: \"{wanted}\"");
        found.push(Cause::invalid(
            "metadata.name",
            &service["metadata"]["name"],
            &why,
        ));
    }
    if spec["insecureSkipTLSVerify"] == true && !text(spec, "caBundle").is_empty() {
        let why = "may not be true if caBundle is present";
        found.push(Cause::invalid(
            "spec.insecureSkipTLSVerify",
            &true.into(),
            why,
        ));
    }
}
