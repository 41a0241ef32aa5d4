//! What objects get when they come into the cluster, written into the objects as they came: fields that no
//! type of ours has stay as they are.
//!
//! Two things differ from upstream: disks without a bus get `virtio`, as there is no SATA controller on our
//! board that would be the better choice; and room for plugging processors and memory is set aside only
//! where the cluster asks for `LiveUpdate`.

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::system_uuid;
use crate::domain::DomainSpec;
use crate::features::gate;
use crate::kubevirt::Configuration;
use crate::labels;
use crate::quantity::Quantity;

/// CPU model of machines where nobody names one.
pub const DEFAULT_CPU_MODEL: &str = "host-model";
/// Machine type where nobody names one.
pub const DEFAULT_MACHINE_TYPE: &str = "q35";
/// Architecture where nobody names one.
pub const DEFAULT_ARCHITECTURE: &str = "amd64";
/// User of launchers that are not root.
pub const RUNTIME_USER: u64 = 107;
/// Binding of the interface that machines get that name none.
pub const DEFAULT_BINDING: &str = "bridge";
/// How many times its processors and memory a machine can grow where nobody says.
pub const DEFAULT_HOTPLUG_RATIO: u32 = 4;
/// Layout of the PCI buses of new machines.
pub const PCI_TOPOLOGY_VERSION: &str = "v3";

/// What every instance gets beside its specification's defaults.
#[derive(Clone, Debug, Default)]
pub struct Fresh {
    /// Identity of a virtual machine that has none, a random UUID; empty derives one from the name.
    pub uuid: String,
    /// Serial number of a virtual machine that has none, a random UUID; empty leaves it out.
    pub serial: String,
    /// The time (RFC 3339).
    pub now: String,
}

/// Fills in what a new instance leaves open (kubevirt.io's mutation of instances): its specification's
/// defaults, its finalizer, and the status of one that is pending.
pub fn default_vmi(vmi: &mut Value, config: &Configuration, fresh: &Fresh) {
    let name = text(vmi, "/metadata/name").to_owned();
    if let Some(spec) = object(vmi, "spec") {
        default_spec(spec, config);
        default_devices(spec);
        fill(spec, &["domain", "cpu", "model"], cpu_model(config).into());
        fill_uuid(spec, &name, "");
        if config.vm_rollout_strategy.as_deref() == Some("LiveUpdate") {
            default_room(spec, config);
        }
    }
    set_pci_topology(vmi);
    add_finalizer(vmi, labels::VMI_FINALIZER);
    default_status(vmi, config, &fresh.now);
}

/// Fills in what a virtual machine must keep over restarts: identity and serial number (of new ones only),
/// architecture and machine type.
pub fn default_vm(vm: &mut Value, config: &Configuration, is_new: bool, fresh: &Fresh) {
    if !text(vm, "/metadata/deletionTimestamp").is_empty() {
        return;
    }
    let name = text(vm, "/metadata/name").to_owned();
    let Some(template) = object(vm, "spec").and_then(|spec| object(spec, "template")) else {
        return;
    };
    if let Some(spec) = object(template, "spec") {
        default_architecture(spec, config);
        if is_new {
            fill_uuid(spec, &name, &fresh.uuid);
            if !fresh.serial.is_empty() {
                let serial = fresh.serial.clone();
                fill(spec, &["domain", "firmware", "serial"], serial.into());
            }
        }
    }
    if is_new {
        set_pci_topology(template);
    }
}

/// Fills in the identity of a machine: a fresh one, else the one that follows from its name. While the API server has
/// not made the name up there is none: all that are made from one `generateName` would share it.
fn fill_uuid(spec: &mut Value, name: &str, fresh: &str) {
    let uuid = match (fresh, name) {
        ("", "") => return,
        ("", name) => system_uuid(name).to_string(),
        (fresh, _) => fresh.to_owned(),
    };
    fill(spec, &["domain", "firmware", "uuid"], uuid.into());
}

/// Fills in the number of instances, which autoscalers need to read.
pub fn default_vmirs(replica_set: &mut Value, _config: &Configuration) {
    let replicas = crate::replica_set::DEFAULT_REPLICAS;
    fill(replica_set, &["spec", "replicas"], replicas.into());
}

/// Labels a migration with the name of its instance and gives it its finalizer.
pub fn default_migration(migration: &mut Value, _config: &Configuration) {
    let name = text(migration, "/spec/vmiName").to_owned();
    if let Some(labels) = object(migration, "metadata").and_then(|meta| object(meta, "labels")) {
        labels[labels::VMI_NAME] = name.into();
    }
    add_finalizer(migration, labels::MIGRATION_FINALIZER);
}

/// Fills in what a specification leaves open, for an instance that is made or a template that is checked.
pub fn default_spec(spec: &mut Value, config: &Configuration) {
    default_architecture(spec, config);
    default_cpu_request(spec, config);
    let domain = domain_of(spec);
    default_memory(spec, &domain);
    default_topology(spec, &domain);
    if let Some(strategy) = &config.eviction_strategy {
        fill(spec, &["evictionStrategy"], strategy.clone().into());
    }
    for volume in list(spec, "/volumes") {
        default_pull_policy(volume);
    }
    default_interface(spec, config);
    add_missing_disks(spec);
}

fn default_architecture(spec: &mut Value, config: &Configuration) {
    let architectures = config.architecture_configuration.as_ref();
    let architecture = architectures
        .map(|of| of.default_architecture.as_str())
        .filter(|name| !name.is_empty())
        .unwrap_or(DEFAULT_ARCHITECTURE);
    fill(spec, &["architecture"], architecture.into());
    let machine = architectures
        .and_then(|of| of.amd64.as_ref())
        .map_or("", |of| of.machine_type.as_str());
    let machine = [machine, &config.machine_type, DEFAULT_MACHINE_TYPE]
        .into_iter()
        .find(|name| !name.is_empty())
        .unwrap_or(DEFAULT_MACHINE_TYPE);
    fill(spec, &["domain", "machine", "type"], machine.into());
}

fn cpu_model(config: &Configuration) -> &str {
    match config.cpu_model.as_str() {
        "" => DEFAULT_CPU_MODEL,
        model => model,
    }
}

fn default_cpu_request(spec: &mut Value, config: &Configuration) {
    let domain = domain_of(spec);
    let is_set = |amount: &&Quantity| amount.units() != Some(0);
    let request = ["domain", "resources", "requests", "cpu"];
    let requests = domain.resources.requests.get("cpu");
    if let Some(limit) = domain.resources.limits.get("cpu").filter(is_set) {
        if requests.filter(is_set).is_none() {
            set(spec, &request, limit.as_str().into());
        }
        return;
    }
    let is_dedicated = domain.cpu.and_then(|cpu| cpu.dedicated_cpu_placement) == Some(true);
    if let Some(amount) = &config.cpu_request
        && requests.is_none()
        && !is_dedicated
    {
        set(spec, &request, amount.as_str().into());
    }
}

fn default_memory(spec: &mut Value, domain: &DomainSpec) {
    let resources = &domain.resources;
    let is_set = |amount: &&Quantity| amount.units() != Some(0);
    let page = domain.memory.as_ref().and_then(|memory| {
        let hugepages = memory.hugepages.as_ref()?;
        hugepages.page_size.as_ref()
    });
    let amount = resources.requests.get("memory").filter(is_set);
    let amount = amount
        .or_else(|| resources.limits.get("memory").filter(is_set))
        .or(page);
    if let Some(amount) = amount {
        fill(spec, &["domain", "memory", "guest"], amount.as_str().into());
    }
}

fn default_topology(spec: &mut Value, domain: &DomainSpec) {
    let cpu = domain.cpu.clone().unwrap_or_default();
    let is_given = [cpu.sockets, cpu.cores, cpu.threads]
        .iter()
        .any(|count| count.is_some_and(|count| count > 0));
    let wanted = domain.resources.limit_or_request("cpu");
    let sockets = wanted.and_then(Quantity::units).unwrap_or(1);
    let sockets = if is_given { 1 } else { sockets };
    for (level, given, default) in [
        ("sockets", cpu.sockets, sockets),
        ("cores", cpu.cores, 1),
        ("threads", cpu.threads, 1),
    ] {
        if given.is_none() || !is_given {
            set(spec, &["domain", "cpu", level], default.into());
        }
    }
}

/// An image that may change under its name is fetched each time.
fn default_pull_policy(volume: &mut Value) {
    let Some(source) = volume.get_mut("containerDisk").filter(|s| s.is_object()) else {
        return;
    };
    let image = text(source, "/image");
    let may_change = image.ends_with(":latest") || !image.contains([':', '@']);
    let policy = if may_change { "Always" } else { "IfNotPresent" };
    fill(source, &["imagePullPolicy"], policy.into());
}

fn default_interface(spec: &mut Value, config: &Configuration) {
    let devices = "/domain/devices";
    let is_off = spec.pointer(&format!("{devices}/autoattachPodInterface")) == Some(&false.into());
    let interfaces = format!("{devices}/interfaces");
    if is_off || !list(spec, &interfaces).is_empty() || !list(spec, "/networks").is_empty() {
        return;
    }
    let network = config.network.as_ref();
    let may_bridge =
        network.is_none_or(|n| n.permit_bridge_interface_on_pod_network != Some(false));
    let chosen = network.map_or("", |network| network.default_network_interface.as_str());
    let binding = match chosen {
        "" if !may_bridge => "masquerade",
        "" => DEFAULT_BINDING,
        chosen => chosen,
    };
    let mut interface = Map::from_iter([("name".to_owned(), "default".into())]);
    interface.insert(binding.to_owned(), json!({}));
    let interfaces = ["domain", "devices", "interfaces"];
    set(spec, &interfaces, Value::Array(vec![interface.into()]));
    set(spec, &["networks"], json!([{"name": "default", "pod": {}}]));
}

/// A volume that no device uses gets a disk.
fn add_missing_disks(spec: &mut Value) {
    let name_of = |entry: &Value| text(entry, "/name").to_owned();
    let devices = ["/domain/devices/disks", "/domain/devices/filesystems"];
    let used: Vec<String> = devices
        .into_iter()
        .flat_map(|path| list(spec, path).iter().map(name_of).collect::<Vec<_>>())
        .collect();
    let volumes = list(spec, "/volumes");
    let unused: Vec<String> = volumes
        .iter()
        .filter(|volume| volume.get("memoryDump").is_none())
        .map(name_of)
        .filter(|name| !name.is_empty() && !used.contains(name))
        .collect();
    if unused.is_empty() {
        return;
    }
    fill(spec, &["domain", "devices", "disks"], json!([]));
    if let Some(Value::Array(disks)) = spec.pointer_mut("/domain/devices/disks") {
        disks.extend(unused.into_iter().map(|name| json!({ "name": name })));
    }
}

fn default_devices(spec: &mut Value) {
    for disk in list(spec, "/domain/devices/disks") {
        default_disk(disk);
    }
    for input in list(spec, "/domain/devices/inputs") {
        fill(input, &["bus"], "usb".into());
        fill(input, &["type"], "tablet".into());
    }
    let has_watchdog = spec
        .pointer("/domain/devices/watchdog")
        .is_some_and(Value::is_object);
    if has_watchdog {
        let action = ["domain", "devices", "watchdog", "i6300esb", "action"];
        fill(spec, &action, "reset".into());
    }
    for probe in ["readinessProbe", "livenessProbe"] {
        if let Some(probe) = spec.get_mut(probe).filter(|probe| probe.is_object()) {
            default_probe(probe);
        }
    }
    default_hyperv(spec);
}

fn default_disk(disk: &mut Value) {
    let kinds = ["disk", "lun", "cdrom"];
    let kind = kinds
        .into_iter()
        .find(|kind| disk.get(kind).is_some_and(|k| !k.is_null()));
    match kind.unwrap_or("disk") {
        "lun" => fill(disk, &["lun", "bus"], "scsi".into()),
        "cdrom" => {
            fill(disk, &["cdrom", "bus"], "sata".into());
            fill(disk, &["cdrom", "readonly"], true.into());
            fill(disk, &["cdrom", "tray"], "closed".into());
        }
        _ => fill(disk, &["disk", "bus"], "virtio".into()),
    }
}

fn default_probe(probe: &mut Value) {
    for (field, default) in [
        ("timeoutSeconds", 1),
        ("periodSeconds", 10),
        ("successThreshold", 1),
        ("failureThreshold", 3),
    ] {
        if probe.get(field).and_then(Value::as_i64).unwrap_or(0) == 0 {
            set(probe, &[field], default.into());
        }
    }
}

/// Switches on what enlightenments need that are on; what somebody switched off stays off.
fn default_hyperv(spec: &mut Value) {
    let features = domain_of(spec).features.unwrap_or_default();
    let Some(hyperv) = features.hyperv else {
        return;
    };
    let mut needed = Vec::new();
    for (feature, need) in HYPERV_NEEDS {
        let is_wanted = hyperv.has(feature) || needed.contains(&feature);
        let is_open = hyperv
            .switches()
            .iter()
            .any(|(name, state)| *name == need && state.is_none());
        if is_wanted && is_open {
            needed.push(need);
        }
    }
    for need in needed {
        let path = ["domain", "features", "hyperv", need, "enabled"];
        fill(spec, &path, true.into());
    }
}

/// Enlightenments and what they need, those that need others first.
pub(crate) const HYPERV_NEEDS: [(&str, &str); 5] = [
    ("evmcs", "vapic"),
    ("ipi", "vpindex"),
    ("tlbflush", "vpindex"),
    ("synictimer", "synic"),
    ("synic", "vpindex"),
];

/// Sets room aside for plugging processors and memory.
fn default_room(spec: &mut Value, config: &Configuration) {
    let limits = config.live_update_configuration.clone().unwrap_or_default();
    let ratio = limits.max_hotplug_ratio.filter(|ratio| *ratio > 0);
    let ratio = ratio.unwrap_or(DEFAULT_HOTPLUG_RATIO);
    let domain = domain_of(spec);
    let sockets = domain.cpu.and_then(|cpu| cpu.sockets).unwrap_or(1);
    let max = match limits.max_cpu_sockets {
        Some(max) => max.max(sockets),
        None => sockets.saturating_mul(ratio),
    };
    fill(spec, &["domain", "cpu", "maxSockets"], max.into());
    let guest = domain.memory.and_then(|memory| memory.guest);
    let max = limits
        .max_guest
        .map(|max| max.as_str().to_owned())
        .or_else(|| {
            let bytes = guest?.units()?.checked_mul(ratio.into())?;
            Some(bytes.to_string())
        });
    if let Some(max) = max {
        fill(spec, &["domain", "memory", "maxGuest"], max.into());
    }
}

fn default_status(vmi: &mut Value, config: &Configuration, now: &str) {
    let domain = vmi.get("spec").map(domain_of).unwrap_or_default();
    fill(vmi, &["status", "phase"], "Pending".into());
    let began = json!([{"phase": "Pending", "phaseTransitionTimestamp": now}]);
    fill(vmi, &["status", "phaseTransitionTimestamps"], began);
    if !config.is_on(gate::ROOT) {
        fill(vmi, &["status", "runtimeUser"], RUNTIME_USER.into());
    }
    if let Some(cpu) = domain.cpu {
        let topology = json!({"sockets": cpu.sockets, "cores": cpu.cores, "threads": cpu.threads});
        fill(vmi, &["status", "currentCPUTopology"], topology);
    }
    if let Some(guest) = domain.memory.and_then(|memory| memory.guest) {
        for field in ["guestAtBoot", "guestCurrent", "guestRequested"] {
            fill(vmi, &["status", "memory", field], guest.as_str().into());
        }
    }
}

fn set_pci_topology(object: &mut Value) {
    let path = ["metadata", "annotations", labels::PCI_TOPOLOGY_VERSION];
    fill(object, &path, PCI_TOPOLOGY_VERSION.into());
}

fn add_finalizer(object: &mut Value, finalizer: &str) {
    fill(object, &["metadata", "finalizers"], json!([]));
    if let Some(Value::Array(finalizers)) = object.pointer_mut("/metadata/finalizers")
        && !finalizers.iter().any(|known| known == finalizer)
    {
        finalizers.push(finalizer.into());
    }
}

/// The machine of a specification; an empty one when it cannot be read, which validation reports.
fn domain_of(spec: &Value) -> DomainSpec {
    spec.get("domain")
        .and_then(|domain| DomainSpec::deserialize(domain).ok())
        .unwrap_or_default()
}

fn text<'v>(value: &'v Value, pointer: &str) -> &'v str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or("")
}

fn list<'v>(value: &'v mut Value, pointer: &str) -> &'v mut [Value] {
    match value.pointer_mut(pointer) {
        Some(Value::Array(items)) => items,
        _ => &mut [],
    }
}

/// The object in a field, made when it is not there; `None` when something else is.
fn object<'v>(value: &'v mut Value, field: &str) -> Option<&'v mut Value> {
    let fields = value.as_object_mut()?;
    let inner = fields.entry(field).or_insert(Value::Null);
    if inner.is_null() {
        *inner = json!({});
    }
    inner.is_object().then_some(inner)
}

/// Sets a field, unless something that is no object is in the way.
fn set(value: &mut Value, path: &[&str], new: Value) {
    let Some((last, parents)) = path.split_last() else {
        return;
    };
    let mut place = value;
    for parent in parents {
        match object(place, parent) {
            Some(inner) => place = inner,
            None => return,
        }
    }
    if let Some(fields) = place.as_object_mut() {
        fields.insert((*last).to_owned(), new);
    }
}

/// Sets a field that is not there, `null` or an empty text.
fn fill(value: &mut Value, path: &[&str], default: Value) {
    let given = path
        .iter()
        .try_fold(&*value, |value, field| value.get(field));
    if given.is_none_or(|given| given.is_null() || given == "") {
        set(value, path, default);
    }
}

#[cfg(test)]
mod tests;
