//! The pod of a launcher, as an instance and the cluster's configuration want it (KubeVirt §6.2). Pure.

mod command;
mod networks;
mod permission;
mod placement;
mod probes;
mod resources;
mod volumes;

use std::collections::BTreeMap;
use std::sync::Arc;

use api::features::gate;
use api::{Vmi, components, labels};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::configuration::Config;
use super::key::Kind;
pub(crate) use networks::{Attachments, definitions, missing as missing_network};
pub(crate) use permission::unpermitted;
pub(crate) use resources::overhead_bytes;
pub(crate) use volumes::{ClaimUse, claim_of};

/// Claims of an instance's namespace by name.
pub(crate) type Claims = BTreeMap<String, Arc<Value>>;

/// User and group of launchers that aren't root.
const LAUNCHER_USER: u64 = 107;
/// Seconds that the pod gets beyond the launcher's own patience.
const POD_GRACE_MARGIN_SECONDS: u64 = 30;
/// Longest name of a pod: its host's name is made of it.
const POD_NAME_LEN_MAX: usize = 63;
/// Digits that tell pods of instances of the same name apart.
const SUFFIX_LEN: usize = 5;
/// Letters of the suffix: those that Kubernetes makes names of.
const SUFFIX_LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
/// Longest value of a label.
const LABEL_LEN_MAX: usize = 63;

/// Annotation of an instance, and label of its pod, that asks for a proxy of the service mesh.
const ISTIO: &str = "sidecar.istio.io/inject";

/// Annotations of an instance that its pod doesn't get.
const ANNOTATIONS_KEPT_AWAY: [&str; 3] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    labels::LATEST_OBSERVED_API_VERSION,
    labels::STORAGE_OBSERVED_API_VERSION,
];

/// What the parts of a pod's specification are gathered in.
#[derive(Debug, Default)]
struct Parts {
    volumes: Vec<Value>,
    mounts: Vec<Value>,
    devices: Vec<Value>,
    containers: Vec<Value>,
    init_containers: Vec<Value>,
    pull_secrets: Vec<String>,
    service_account: Option<String>,
    /// Whether the pod gets the token of its service account.
    mounts_token: bool,
    /// Folders of file systems that several nodes have at once.
    shared: Vec<String>,
}

/// Returns the name of an instance's pod. It follows from the instance, so that an attempt whose answer was lost leads to
/// no second pod.
pub(crate) fn name(vmi: &Vmi) -> String {
    let name = format!("virt-launcher-{}", vmi.metadata.name);
    with_suffix(&name, &Sha256::digest(vmi.metadata.uid.as_bytes()))
}

/// Returns a name for an object: `name`, shortened where it must be, and some letters that stand for a digest.
pub(crate) fn with_suffix(name: &str, digest: &[u8]) -> String {
    let suffix: String = digest
        .iter()
        .take(SUFFIX_LEN)
        .map(|byte| char::from(SUFFIX_LETTERS[usize::from(*byte) % SUFFIX_LETTERS.len()]))
        .collect();
    let name: String = name
        .chars()
        .take(POD_NAME_LEN_MAX - SUFFIX_LEN - 1)
        .collect();
    format!("{}-{suffix}", name.trim_end_matches(['-', '.']))
}

/// Returns the pod of an instance whose defaults are filled in; `raw` is the instance as the API server has it.
pub(crate) fn render(
    vmi: &Vmi,
    raw: &Value,
    claims: &Claims,
    attachments: &Attachments,
    config: &Config,
) -> Value {
    let mut parts = volumes::parts(vmi, raw, claims, config);
    let compute = compute(vmi, config, attachments, &mut parts);
    parts.containers.insert(0, compute);
    if volumes::logs_console(vmi, config) {
        parts.init_containers.insert(0, console_log(vmi, config));
    }
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name(vmi),
            "namespace": vmi.metadata.namespace_or_default(),
            "labels": pod_labels(vmi),
            "annotations": annotations(vmi, config),
            "ownerReferences": [{
                "apiVersion": Kind::Instance.api_version(),
                "kind": Kind::Instance.name(),
                "name": vmi.metadata.name,
                "uid": vmi.metadata.uid,
                "controller": true,
                "blockOwnerDeletion": true,
            }],
        },
        "spec": spec(vmi, raw, config, parts),
    })
}

fn spec(vmi: &Vmi, raw: &Value, config: &Config, parts: Parts) -> Value {
    let mut spec = Map::new();
    let grace = vmi.spec.grace_period_seconds();
    for (field, value) in [
        ("restartPolicy", json!("Never")),
        ("enableServiceLinks", json!(false)),
        (
            "automountServiceAccountToken",
            json!(parts.mounts_token || injects_istio(vmi)),
        ),
        ("hostname", json!(host_name(vmi))),
        ("securityContext", security_context(vmi, config)),
        (
            "terminationGracePeriodSeconds",
            json!(grace.saturating_add(POD_GRACE_MARGIN_SECONDS)),
        ),
        (
            "readinessGates",
            json!([{ "conditionType": labels::UNPAUSED_READINESS_GATE }]),
        ),
        ("containers", Value::Array(parts.containers)),
        ("volumes", Value::Array(parts.volumes)),
    ] {
        spec.insert(field.to_owned(), value);
    }
    let optional = |value: &str| (!value.is_empty()).then(|| json!(value));
    let mut secrets = parts.pull_secrets;
    secrets.extend(config.image_pull_secrets.iter().cloned());
    secrets.sort();
    secrets.dedup();
    let secrets = (!secrets.is_empty())
        .then(|| Value::from_iter(secrets.iter().map(|name| json!({ "name": name }))));
    let init = (!parts.init_containers.is_empty()).then_some(parts.init_containers);
    for (field, value) in [
        ("subdomain", optional(&vmi.spec.subdomain)),
        ("initContainers", init.map(Value::Array)),
        ("imagePullSecrets", secrets),
        ("serviceAccountName", parts.service_account.map(Value::from)),
        (
            "runtimeClassName",
            optional(&config.cluster.default_runtime_class),
        ),
    ] {
        if let Some(value) = value {
            spec.insert(field.to_owned(), value);
        }
    }
    for field in [
        "dnsPolicy",
        "dnsConfig",
        "schedulerName",
        "priorityClassName",
        "tolerations",
        "topologySpreadConstraints",
        "resourceClaims",
    ] {
        let given = raw.pointer("/spec").and_then(|spec| spec.get(field));
        if let Some(given) = given.filter(|given| !is_empty(given)) {
            spec.insert(field.to_owned(), given.clone());
        }
    }
    placement::add(&mut spec, vmi, raw, config);
    Value::Object(spec)
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        _ => false,
    }
}

/// The container with the machine.
fn compute(vmi: &Vmi, config: &Config, attachments: &Attachments, parts: &mut Parts) -> Value {
    let mut compute = json!({
        "name": components::COMPUTE_CONTAINER,
        "image": config.launcher_image,
        "command": command::launcher(vmi, config),
        "env": command::environment(vmi, config, parts),
        "resources": resources::compute(vmi, config, attachments),
        "securityContext": container_security(vmi, true),
        "volumeMounts": std::mem::take(&mut parts.mounts),
    });
    if !config.image_pull_policy.is_empty() {
        compute["imagePullPolicy"] = json!(config.image_pull_policy);
    }
    let devices = std::mem::take(&mut parts.devices);
    if !devices.is_empty() {
        compute["volumeDevices"] = Value::Array(devices);
    }
    for (field, probe) in [
        ("readinessProbe", &vmi.spec.readiness_probe),
        ("livenessProbe", &vmi.spec.liveness_probe),
    ] {
        if let Some(probe) = probe {
            compute[field] = probes::render(probe, vmi);
        }
    }
    let ports = networks::ports(vmi);
    if !ports.is_empty() {
        compute["ports"] = Value::Array(ports);
    }
    compute
}

/// The container whose log is the guest's serial console.
fn console_log(vmi: &Vmi, config: &Config) -> Value {
    let mut container = json!({
        "name": components::CONSOLE_LOG_CONTAINER,
        "image": config.launcher_image,
        "command": ["/usr/bin/virt-tail", "--logfile", volumes::console_log_path(vmi)],
        "restartPolicy": "Always",
        "resources": {
            "requests": { "cpu": "5m", "memory": "35M" },
            "limits": { "cpu": "15m", "memory": "60M" },
        },
        "securityContext": container_security(vmi, false),
        "volumeMounts": [{
            "name": volumes::PRIVATE,
            "mountPath": volumes::in_run(api::paths::PRIVATE_DIR),
            "readOnly": true,
        }],
    });
    if !config.image_pull_policy.is_empty() {
        container["imagePullPolicy"] = json!(config.image_pull_policy);
    }
    container
}

fn is_root(vmi: &Vmi) -> bool {
    vmi.status.runtime_user == Some(0)
}

fn security_context(vmi: &Vmi, config: &Config) -> Value {
    let user = if is_root(vmi) { 0 } else { LAUNCHER_USER };
    let mut context = json!({
        "runAsUser": user,
        "runAsNonRoot": user != 0,
    });
    if user != 0 {
        context["runAsGroup"] = json!(user);
        context["fsGroup"] = json!(user);
    }
    let selinux = &config.cluster.selinux_launcher_type;
    if !selinux.is_empty() {
        context["seLinuxOptions"] = json!({ "type": selinux });
    }
    if let Some(profile) = seccomp_profile(config) {
        context["seccompProfile"] = profile;
    }
    context
}

fn seccomp_profile(config: &Config) -> Option<Value> {
    let configured = serde_json::to_value(&config.cluster.seccomp_configuration).ok()?;
    let custom = configured.pointer("/virtualMachineInstanceProfile/customProfile");
    if let Some(custom) = custom {
        if custom["runtimeDefaultProfile"] == true {
            return Some(json!({ "type": "RuntimeDefault" }));
        }
        let file = custom["localhostProfile"].as_str()?;
        return Some(json!({ "type": "Localhost", "localhostProfile": file }));
    }
    config
        .cluster
        .is_on(gate::KUBEVIRT_SECCOMP_PROFILE)
        .then(|| json!({ "type": "Localhost", "localhostProfile": "kubevirt/kubevirt.json" }))
}

fn container_security(vmi: &Vmi, serves_dhcp: bool) -> Value {
    let root = is_root(vmi);
    let user = if root { 0 } else { LAUNCHER_USER };
    let mut capabilities = json!({ "drop": ["ALL"] });
    if serves_dhcp {
        let added: &[&str] = if root {
            &["NET_BIND_SERVICE", "SYS_NICE"]
        } else {
            &["NET_BIND_SERVICE"]
        };
        capabilities["add"] = json!(added);
    }
    json!({
        "runAsUser": user,
        "runAsGroup": user,
        "runAsNonRoot": !root,
        "privileged": false,
        "allowPrivilegeEscalation": false,
        "capabilities": capabilities,
    })
}

/// The name of the pod's host: that of the guest, up to its first dot.
fn host_name(vmi: &Vmi) -> String {
    let name = vmi.guest_hostname().split('.').next().unwrap_or_default();
    let name: String = name.chars().take(LABEL_LEN_MAX).collect();
    name.trim_end_matches('-').to_owned()
}

/// Whether the pod gets a proxy of the service mesh, which must know who it is.
fn injects_istio(vmi: &Vmi) -> bool {
    vmi.metadata
        .annotations
        .get(ISTIO)
        .is_some_and(|value| value == "true")
}

fn pod_labels(vmi: &Vmi) -> BTreeMap<String, String> {
    let mut labels = vmi.metadata.labels.clone();
    for ours in [
        labels::NODE_NAME,
        labels::MIGRATION_TARGET_NODE_NAME,
        labels::OUTDATED_LAUNCHER_IMAGE,
    ] {
        labels.remove(ours);
    }
    for (label, value) in [
        (labels::APP, components::VIRT_LAUNCHER.to_owned()),
        (labels::CREATED_BY, vmi.metadata.uid.clone()),
        (labels::VM_NAME, labels::value_of(&vmi.metadata.name)),
        (labels::VMI_ID, labels::value_of(&vmi.metadata.name)),
    ] {
        labels.insert(label.to_owned(), value);
    }
    if injects_istio(vmi) {
        labels.insert(ISTIO.to_owned(), "true".to_owned());
    }
    labels
}

fn annotations(vmi: &Vmi, config: &Config) -> BTreeMap<String, String> {
    let mut annotations = vmi.metadata.annotations.clone();
    annotations.retain(|name, _| !ANNOTATIONS_KEPT_AWAY.contains(&name.as_str()));
    let freezer = |action: &str| {
        let name = &vmi.metadata.name;
        let namespace = vmi.metadata.namespace_or_default();
        json!([
            "/usr/bin/virt-freezer",
            action,
            "--name",
            name,
            "--namespace",
            namespace
        ])
        .to_string()
    };
    let compute = components::COMPUTE_CONTAINER.to_owned();
    for (annotation, value) in [
        (labels::DOMAIN, vmi.metadata.name.clone()),
        ("kubectl.kubernetes.io/default-container", compute.clone()),
        (labels::MIGRATION_TRANSPORT_UNIX, "true".to_owned()),
        (
            "descheduler.alpha.kubernetes.io/request-evict-only",
            String::new(),
        ),
        (
            labels::MEMORY_OVERHEAD_BYTES,
            overhead_bytes(vmi, config).to_string(),
        ),
        ("pre.hook.backup.velero.io/container", compute.clone()),
        ("pre.hook.backup.velero.io/command", freezer("--freeze")),
        ("post.hook.backup.velero.io/container", compute),
        ("post.hook.backup.velero.io/command", freezer("--unfreeze")),
    ] {
        annotations.insert(annotation.to_owned(), value);
    }
    annotations.extend(networks::annotations(vmi, config));
    annotations
}

#[cfg(test)]
mod tests;
