//! Defaults of pods and of templates of pods.

use serde_json::{Map, Value, json};

use super::{below, items, put, set, set_text, there};

/// Fills a pod.
pub(super) fn fill(pod: &mut Value) {
    if let Some(spec) = there(pod, "spec") {
        set(spec, "enableServiceLinks", true);
        fill_spec(spec);
    }
    let quality = quality(&pod["spec"]);
    if let Some(status) = below(pod, "status") {
        set_text(status, "phase", "Pending");
        set_text(status, "qosClass", quality);
    }
}

/// Fills a template of pods.
pub(super) fn fill_template(template: &mut Value) {
    if let Some(spec) = there(template, "spec") {
        fill_spec(spec);
    }
}

fn fill_spec(spec: &mut Value) {
    set_text(spec, "restartPolicy", "Always");
    set_text(spec, "dnsPolicy", "ClusterFirst");
    set_text(spec, "schedulerName", "default-scheduler");
    set(spec, "terminationGracePeriodSeconds", 30);
    set(spec, "securityContext", Map::new());
    let is_host_network = spec.get("hostNetwork").is_some_and(|it| it == true);
    for list in ["containers", "initContainers", "ephemeralContainers"] {
        for container in items(spec, list) {
            fill_container(container, is_host_network);
        }
    }
    for volume in items(spec, "volumes") {
        fill_volume(volume);
    }
}

fn fill_container(container: &mut Value, is_host_network: bool) {
    let image = container["image"].as_str().unwrap_or_default();
    let pull = if is_latest(image) {
        "Always"
    } else {
        "IfNotPresent"
    };
    set_text(container, "imagePullPolicy", pull);
    set_text(container, "terminationMessagePath", "/dev/termination-log");
    set_text(container, "terminationMessagePolicy", "File");
    if let Some(resources) = below(container, "resources") {
        fill_resources(resources);
    }
    for port in items(container, "ports") {
        set_text(port, "protocol", "TCP");
        if is_host_network {
            let number = port["containerPort"].clone();
            set(port, "hostPort", number);
        }
    }
    for variable in items(container, "env") {
        if let Some(field) = there(variable, "valueFrom").and_then(|it| there(it, "fieldRef")) {
            set_text(field, "apiVersion", "v1");
        }
    }
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(probe) = there(container, name) {
            fill_probe(probe);
        }
    }
    if let Some(lifecycle) = there(container, "lifecycle") {
        for name in ["postStart", "preStop"] {
            if let Some(handler) = there(lifecycle, name) {
                fill_http(handler);
            }
        }
    }
}

/// Requests that are left out are as large as the limits.
fn fill_resources(resources: &mut Value) {
    let Some(limits) = resources.get("limits").and_then(Value::as_object).cloned() else {
        return;
    };
    if let Some(requests) = below(resources, "requests") {
        for (name, amount) in limits {
            set(requests, &name, amount);
        }
    }
}

/// Whether an image reference names the newest image, which must be asked for each time.
fn is_latest(image: &str) -> bool {
    if image.contains('@') {
        return false;
    }
    let name = image.rsplit('/').next().unwrap_or(image);
    name.split_once(':').is_none_or(|(_, tag)| tag == "latest")
}

fn fill_probe(probe: &mut Value) {
    for (field, value) in [
        ("timeoutSeconds", 1),
        ("periodSeconds", 10),
        ("successThreshold", 1),
        ("failureThreshold", 3),
    ] {
        set(probe, field, value);
        if probe[field] == 0 {
            put(probe, field, value);
        }
    }
    fill_http(probe);
}

fn fill_http(handler: &mut Value) {
    if let Some(http) = there(handler, "httpGet") {
        set_text(http, "path", "/");
        set_text(http, "scheme", "HTTP");
    }
    if let Some(grpc) = there(handler, "grpc") {
        set(grpc, "service", "");
    }
}

fn fill_volume(volume: &mut Value) {
    let has_source = volume
        .as_object()
        .is_none_or(|it| it.keys().any(|it| it != "name"));
    if !has_source {
        put(volume, "emptyDir", json!({}));
    }
    for source in ["configMap", "secret", "downwardAPI", "projected"] {
        if let Some(source) = there(volume, source) {
            set(source, "defaultMode", 0o644);
            items(source, "items").for_each(fill_item);
            for source in items(source, "sources") {
                fill_projection(source);
            }
        }
    }
    if let Some(path) = there(volume, "hostPath") {
        set(path, "type", "");
    }
    if let Some(claim) = there(volume, "ephemeral").and_then(|it| there(it, "volumeClaimTemplate"))
        && let Some(spec) = there(claim, "spec")
    {
        set_text(spec, "volumeMode", "Filesystem");
    }
}

fn fill_projection(source: &mut Value) {
    if let Some(token) = there(source, "serviceAccountToken") {
        set(token, "expirationSeconds", 3600);
    }
    if let Some(downward) = there(source, "downwardAPI") {
        items(downward, "items").for_each(fill_item);
    }
}

fn fill_item(item: &mut Value) {
    if let Some(field) = there(item, "fieldRef") {
        set_text(field, "apiVersion", "v1");
    }
}

/// Returns the quality of service: limits equal requests for all containers, some say anything, or none does.
fn quality(spec: &Value) -> &'static str {
    let lists = ["containers", "initContainers"].map(|it| spec[it].as_array());
    let containers = || lists.iter().flatten().copied().flatten();
    let amounts = |it: &Value, of: &str| {
        let amounts = it["resources"][of].as_object();
        let is_counted = |name: &String| name == "cpu" || name == "memory";
        amounts.map_or(0, |it| it.keys().filter(|it| is_counted(it)).count())
    };
    let says_nothing = |it: &Value| amounts(it, "limits") == 0 && amounts(it, "requests") == 0;
    let is_fixed = |it: &Value| {
        let (limits, requests) = (&it["resources"]["limits"], &it["resources"]["requests"]);
        let same = |name| !limits[name].is_null() && limits[name] == requests[name];
        same("cpu") && same("memory")
    };
    if containers().all(says_nothing) {
        "BestEffort"
    } else if containers().all(is_fixed) {
        "Guaranteed"
    } else {
        "Burstable"
    }
}
