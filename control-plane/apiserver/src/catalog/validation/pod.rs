//! Rules of pods and of templates of pods.

use std::collections::BTreeSet;

use serde_json::Value;

use super::names::{LABEL, SUBDOMAIN, is_dns_label, is_dns_subdomain, is_port_name};
use super::{in_range, items, metadata, needs, one_of, text};
use crate::failure::Cause;

const LISTS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];

/// Adds what is wrong with a pod.
pub(super) fn check(old: Option<&Value>, new: &Value, found: &mut Vec<Cause>) {
    spec(&new["spec"], "spec", found);
    if let Some(old) = old {
        unchanged(&old["spec"], &new["spec"], found);
    }
}

/// Adds what is wrong with a template of pods.
pub(super) fn template(template: &Value, path: &str, found: &mut Vec<Cause>) {
    metadata::labels(
        &template["metadata"]["labels"],
        &format!("{path}.metadata.labels"),
        found,
    );
    spec(&template["spec"], &format!("{path}.spec"), found);
}

fn spec(spec: &Value, path: &str, found: &mut Vec<Cause>) {
    let volumes = volumes(spec, path, found);
    if spec["containers"].as_array().is_none_or(Vec::is_empty) {
        found.push(Cause::required(&format!("{path}.containers"), ""));
    }
    let mut seen = BTreeSet::new();
    for list in LISTS {
        for (path, one) in items(spec, path, list) {
            container(one, &path, &volumes, found);
            if !text(one, "name").is_empty() && !seen.insert(text(one, "name")) {
                found.push(Cause::duplicate(&format!("{path}.name"), &one["name"]));
            }
        }
    }
    one_of(
        spec,
        path,
        "restartPolicy",
        &["Always", "OnFailure", "Never"],
        found,
    );
    one_of(
        spec,
        path,
        "dnsPolicy",
        &["ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"],
        found,
    );
    in_range(
        spec,
        path,
        "terminationGracePeriodSeconds",
        (0, i64::MAX),
        found,
    );
    in_range(
        spec,
        path,
        "activeDeadlineSeconds",
        (1, i64::from(i32::MAX)),
        found,
    );
    metadata::labels(
        &spec["nodeSelector"],
        &format!("{path}.nodeSelector"),
        found,
    );
    let account = text(spec, "serviceAccountName");
    if !account.is_empty() && !is_dns_subdomain(account) {
        let field = format!("{path}.serviceAccountName");
        found.push(Cause::invalid(
            &field,
            &spec["serviceAccountName"],
            SUBDOMAIN,
        ));
    }
    for (path, toleration) in items(spec, path, "tolerations") {
        one_of(toleration, &path, "operator", &["Exists", "Equal"], found);
        one_of(
            toleration,
            &path,
            "effect",
            &["NoSchedule", "PreferNoSchedule", "NoExecute"],
            found,
        );
        if text(toleration, "operator") == "Exists" && !text(toleration, "value").is_empty() {
            let why = "value must be empty when operator is 'Exists'";
            found.push(Cause::invalid(
                &format!("{path}.operator"),
                &toleration["value"],
                why,
            ));
        }
    }
}

fn volumes<'a>(spec: &'a Value, path: &str, found: &mut Vec<Cause>) -> BTreeSet<&'a str> {
    let mut names = BTreeSet::new();
    for (path, volume) in items(spec, path, "volumes") {
        let field = format!("{path}.name");
        if needs(volume, &path, "name", found) {
            let name = text(volume, "name");
            if !is_dns_label(name) {
                found.push(Cause::invalid(&field, &volume["name"], LABEL));
            }
            if !names.insert(name) {
                found.push(Cause::duplicate(&field, &volume["name"]));
            }
        }
        let sources = volume
            .as_object()
            .into_iter()
            .flatten()
            .map(|(name, _)| name);
        let sources: Vec<_> = sources.filter(|it| *it != "name").collect();
        if let [_, second, ..] = sources.as_slice() {
            let why = "may not specify more than 1 volume type";
            found.push(Cause::forbidden(&format!("{path}.{second}"), why));
        }
        source(volume, &path, found);
    }
    names
}

fn source(volume: &Value, path: &str, found: &mut Vec<Cause>) {
    for (source, field) in [
        ("hostPath", "path"),
        ("secret", "secretName"),
        ("configMap", "name"),
        ("persistentVolumeClaim", "claimName"),
    ] {
        if volume[source].is_object() {
            needs(&volume[source], &format!("{path}.{source}"), field, found);
        }
    }
    if text(&volume["hostPath"], "path")
        .split('/')
        .any(|it| it == "..")
    {
        let field = format!("{path}.hostPath.path");
        found.push(Cause::invalid(
            &field,
            &volume["hostPath"]["path"],
            "must not contain '..'",
        ));
    }
    let kinds = [
        "",
        "DirectoryOrCreate",
        "Directory",
        "FileOrCreate",
        "File",
        "Socket",
        "CharDevice",
        "BlockDevice",
    ];
    one_of(
        &volume["hostPath"],
        &format!("{path}.hostPath"),
        "type",
        &kinds,
        found,
    );
}

fn container(container: &Value, path: &str, volumes: &BTreeSet<&str>, found: &mut Vec<Cause>) {
    if needs(container, path, "name", found) && !is_dns_label(text(container, "name")) {
        found.push(Cause::invalid(
            &format!("{path}.name"),
            &container["name"],
            LABEL,
        ));
    }
    if needs(container, path, "image", found)
        && text(container, "image").trim() != text(container, "image")
    {
        let why = "must not have leading or trailing whitespace";
        found.push(Cause::invalid(
            &format!("{path}.image"),
            &container["image"],
            why,
        ));
    }
    one_of(
        container,
        path,
        "imagePullPolicy",
        &["Always", "IfNotPresent", "Never"],
        found,
    );
    one_of(
        container,
        path,
        "terminationMessagePolicy",
        &["File", "FallbackToLogsOnError"],
        found,
    );
    ports(container, path, found);
    for (path, variable) in items(container, path, "env") {
        if needs(variable, &path, "name", found)
            && !text(variable, "value").is_empty()
            && variable["valueFrom"].is_object()
        {
            let why = "may not be specified when `value` is not empty";
            found.push(Cause::invalid(
                &format!("{path}.valueFrom"),
                &Value::from(""),
                why,
            ));
        }
    }
    mounts(container, path, volumes, found);
    resources(&container["resources"], &format!("{path}.resources"), found);
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        probe(&container[name], &format!("{path}.{name}"), found);
    }
}

fn ports(container: &Value, path: &str, found: &mut Vec<Cause>) {
    let mut seen = BTreeSet::new();
    for (path, port) in items(container, path, "ports") {
        in_range(port, &path, "containerPort", (1, 65535), found);
        in_range(port, &path, "hostPort", (0, 65535), found);
        one_of(port, &path, "protocol", &["SCTP", "TCP", "UDP"], found);
        let name = text(port, "name");
        if name.is_empty() {
            continue;
        }
        if !is_port_name(name) {
            let why =
                "must be at most 15 lower-case letters, digits and '-', with at least one letter";
            found.push(Cause::invalid(&format!("{path}.name"), &port["name"], why));
        } else if !seen.insert(name) {
            found.push(Cause::duplicate(&format!("{path}.name"), &port["name"]));
        }
    }
}

fn mounts(container: &Value, path: &str, volumes: &BTreeSet<&str>, found: &mut Vec<Cause>) {
    let mut places = BTreeSet::new();
    for (path, mount) in items(container, path, "volumeMounts") {
        if needs(mount, &path, "name", found) && !volumes.contains(text(mount, "name")) {
            found.push(Cause::not_found(&format!("{path}.name"), &mount["name"]));
        }
        if needs(mount, &path, "mountPath", found) && !places.insert(text(mount, "mountPath")) {
            let why = "must be unique";
            found.push(Cause::invalid(
                &format!("{path}.mountPath"),
                &mount["mountPath"],
                why,
            ));
        }
        for field in ["subPath", "subPathExpr"] {
            let below = text(mount, field);
            let field = format!("{path}.{field}");
            if below.starts_with('/') {
                found.push(Cause::invalid(
                    &field,
                    &below.into(),
                    "must be a relative path",
                ));
            } else if below.split('/').any(|it| it == "..") {
                found.push(Cause::invalid(
                    &field,
                    &below.into(),
                    "must not contain '..'",
                ));
            }
        }
    }
    for (path, device) in items(container, path, "volumeDevices") {
        if needs(device, &path, "name", found) && !volumes.contains(text(device, "name")) {
            found.push(Cause::not_found(&format!("{path}.name"), &device["name"]));
        }
        needs(device, &path, "devicePath", found);
    }
}

fn resources(resources: &Value, path: &str, found: &mut Vec<Cause>) {
    let amount = |it: &Value| match it {
        Value::String(text) => text.parse::<api::Quantity>().ok(),
        number => number.to_string().parse().ok(),
    };
    for (name, requested) in resources["requests"].as_object().into_iter().flatten() {
        let field = format!("{path}.requests");
        let (Some(least), limit) = (amount(requested), amount(&resources["limits"][name])) else {
            continue;
        };
        if least.units().is_none() {
            let why = "must be greater than or equal to 0";
            found.push(Cause::invalid(&format!("{field}[{name}]"), requested, why));
        }
        if let Some(limit) = limit.filter(|it| *it < least) {
            let why = format!("must be less than or equal to {name} limit of {limit}");
            found.push(Cause::invalid(&field, requested, &why));
        }
    }
}

fn probe(probe: &Value, path: &str, found: &mut Vec<Cause>) {
    if !probe.is_object() {
        return;
    }
    let handlers = ["exec", "grpc", "httpGet", "tcpSocket"];
    match handlers.iter().filter(|it| probe[**it].is_object()).count() {
        0 => found.push(Cause::required(path, "must specify a handler type")),
        1 => {}
        _ => found.push(Cause::forbidden(
            path,
            "may not specify more than 1 handler type",
        )),
    }
    for field in [
        "initialDelaySeconds",
        "timeoutSeconds",
        "periodSeconds",
        "successThreshold",
        "failureThreshold",
    ] {
        in_range(probe, path, field, (0, i64::MAX), found);
    }
}

/// Says that a pod changes what a pod that runs cannot change.
fn unchanged(old: &Value, new: &Value, found: &mut Vec<Cause>) {
    let (mut before, mut after) = (old.clone(), new.clone());
    // A pod gets its node once.
    let gets_node = text(old, "nodeName").is_empty();
    for spec in [&mut before, &mut after] {
        let Some(spec) = spec.as_object_mut() else {
            return;
        };
        for field in [
            "activeDeadlineSeconds",
            "terminationGracePeriodSeconds",
            "tolerations",
            "schedulingGates",
        ] {
            spec.remove(field);
        }
        // These have a path of their own.
        spec.remove("ephemeralContainers");
        if gets_node {
            spec.remove("nodeName");
        }
        for list in ["containers", "initContainers"] {
            let list = spec.get_mut(list).and_then(Value::as_array_mut);
            for container in list.into_iter().flatten().filter_map(Value::as_object_mut) {
                container.remove("image");
                container.remove("resources");
            }
        }
    }
    if before != after {
        let why = "pod updates may not change fields other than `spec.containers[*].image`, \
                   `spec.initContainers[*].image`, `spec.activeDeadlineSeconds`, `spec.tolerations` and \
                   `spec.terminationGracePeriodSeconds`";
        found.push(Cause::forbidden("spec", why));
    }
}
