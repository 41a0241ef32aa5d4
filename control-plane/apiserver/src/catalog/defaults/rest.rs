//! Defaults of kinds that make no pods.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::{below, items, put, set, set_text, there};

const RBAC: &str = "rbac.authorization.k8s.io";

/// Fills an object of the core group.
pub(super) fn fill_core(kind: &str, object: &mut Value) {
    match kind {
        "Secret" => secret(object),
        "Namespace" => namespace(object),
        "Service" => service(object),
        "PersistentVolumeClaim" => claim(object),
        "PersistentVolume" => volume(object),
        "Endpoints" => {
            for subset in items(object, "subsets") {
                items(subset, "ports").for_each(|it| set_text(it, "protocol", "TCP"));
            }
        }
        "Event" => {
            set_text(object, "type", "Normal");
            set(object, "source", Map::new());
            set(object, "reportingComponent", "");
            set(object, "reportingInstance", "");
        }
        _ => {}
    }
}

/// Fills an object of any other group.
pub(super) fn fill(kind: &str, object: &mut Value) {
    match kind {
        "RoleBinding" | "ClusterRoleBinding" => binding(object),
        "StorageClass" => {
            set_text(object, "reclaimPolicy", "Delete");
            set_text(object, "volumeBindingMode", "Immediate");
        }
        "PriorityClass" => set_text(object, "preemptionPolicy", "PreemptLowerPriority"),
        "MutatingWebhookConfiguration" | "ValidatingWebhookConfiguration" => webhooks(kind, object),
        "APIService" => {
            if let Some(service) = there(object, "spec").and_then(|it| there(it, "service")) {
                set(service, "port", 443);
            }
        }
        "CustomResourceDefinition" => definition(object),
        "NetworkPolicy" => network_policy(object),
        "EndpointSlice" => {
            for port in items(object, "ports") {
                set(port, "name", "");
                set_text(port, "protocol", "TCP");
            }
        }
        "HorizontalPodAutoscaler" => {
            if let Some(spec) = there(object, "spec") {
                set(spec, "minReplicas", 1);
            }
        }
        _ => {}
    }
}

/// Texts become data, which has them in base64 and wins nothing over them.
fn secret(secret: &mut Value) {
    set_text(secret, "type", "Opaque");
    let Some(Value::Object(texts)) = secret
        .as_object_mut()
        .and_then(|it| it.remove("stringData"))
    else {
        return;
    };
    if let Some(data) = below(secret, "data") {
        for (name, text) in texts {
            if let Some(text) = text.as_str() {
                put(data, &name, STANDARD.encode(text));
            }
        }
    }
}

fn namespace(namespace: &mut Value) {
    let name = namespace["metadata"]["name"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    if let Some(spec) = below(namespace, "spec") {
        set(spec, "finalizers", json!(["kubernetes"]));
    }
    if let Some(status) = below(namespace, "status") {
        set_text(status, "phase", "Active");
    }
    if !name.is_empty()
        && let Some(labels) = below(namespace, "metadata").and_then(|it| below(it, "labels"))
    {
        put(labels, "kubernetes.io/metadata.name", name);
    }
}

fn service(service: &mut Value) {
    if let Some(status) = below(service, "status") {
        set(status, "loadBalancer", Map::new());
    }
    let Some(spec) = there(service, "spec") else {
        return;
    };
    set_text(spec, "type", "ClusterIP");
    set_text(spec, "sessionAffinity", "None");
    let kind = spec["type"].as_str().unwrap_or_default().to_owned();
    if kind != "ExternalName" {
        set_text(spec, "internalTrafficPolicy", "Cluster");
        set_text(spec, "ipFamilyPolicy", "SingleStack");
        set(spec, "ipFamilies", json!(["IPv4"]));
    }
    if matches!(kind.as_str(), "NodePort" | "LoadBalancer") {
        set_text(spec, "externalTrafficPolicy", "Cluster");
    }
    if kind == "LoadBalancer" {
        set(spec, "allocateLoadBalancerNodePorts", true);
    }
    for port in items(spec, "ports") {
        set_text(port, "protocol", "TCP");
        // Clients in Go cannot leave a number or name out: they write 0 or "" for it.
        let is_left_out = |it: &Value| *it == json!(0) || *it == json!("");
        if port.get("targetPort").is_none_or(is_left_out) {
            let number = port["port"].clone();
            put(port, "targetPort", number);
        }
    }
}

fn claim(claim: &mut Value) {
    if let Some(spec) = there(claim, "spec") {
        set_text(spec, "volumeMode", "Filesystem");
    }
    if let Some(status) = below(claim, "status") {
        set_text(status, "phase", "Pending");
    }
}

fn volume(volume: &mut Value) {
    if let Some(spec) = there(volume, "spec") {
        set_text(spec, "volumeMode", "Filesystem");
        set_text(spec, "persistentVolumeReclaimPolicy", "Retain");
        if let Some(path) = there(spec, "hostPath") {
            set(path, "type", "");
        }
    }
    if let Some(status) = below(volume, "status") {
        set_text(status, "phase", "Pending");
    }
}

fn binding(binding: &mut Value) {
    if let Some(role) = there(binding, "roleRef") {
        set_text(role, "apiGroup", RBAC);
    }
    for subject in items(binding, "subjects") {
        if subject["kind"] != "ServiceAccount" {
            set_text(subject, "apiGroup", RBAC);
        }
    }
}

fn webhooks(kind: &str, configuration: &mut Value) {
    for webhook in items(configuration, "webhooks") {
        set_text(webhook, "failurePolicy", "Fail");
        set_text(webhook, "matchPolicy", "Equivalent");
        set(webhook, "namespaceSelector", Map::new());
        set(webhook, "objectSelector", Map::new());
        set(webhook, "timeoutSeconds", 10);
        if kind == "MutatingWebhookConfiguration" {
            set_text(webhook, "reinvocationPolicy", "Never");
        }
        if let Some(service) = there(webhook, "clientConfig").and_then(|it| there(it, "service")) {
            set(service, "port", 443);
        }
        items(webhook, "rules").for_each(|it| set_text(it, "scope", "*"));
    }
}

fn definition(definition: &mut Value) {
    let Some(spec) = there(definition, "spec") else {
        return;
    };
    set(spec, "conversion", json!({"strategy": "None"}));
    if let Some(names) = there(spec, "names") {
        let kind = names["kind"].as_str().unwrap_or_default().to_owned();
        if !kind.is_empty() {
            set_text(names, "singular", &kind.to_lowercase());
            set_text(names, "listKind", &format!("{kind}List"));
        }
    }
}

fn network_policy(policy: &mut Value) {
    let Some(spec) = there(policy, "spec") else {
        return;
    };
    let sends = spec["egress"].as_array().is_some_and(|it| !it.is_empty());
    let kinds = if sends {
        json!(["Ingress", "Egress"])
    } else {
        json!(["Ingress"])
    };
    set(spec, "policyTypes", kinds);
    for rules in ["ingress", "egress"] {
        for rule in items(spec, rules) {
            items(rule, "ports").for_each(|it| set_text(it, "protocol", "TCP"));
        }
    }
}
