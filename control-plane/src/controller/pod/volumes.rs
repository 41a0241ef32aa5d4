//! Volumes of a launcher's pod: its own folders, and what the instance's volumes need (KubeVirt §4.1).
//!
//! Mount points are where the launcher looks (`launcher/src/volumes/place.rs`).

use std::path::Path;

use api::volumes::{CloudInitSource, HOST_DISK_EXISTS_OR_CREATE, Volume};
use api::{Vmi, paths};
use serde_json::{Value, json};

use super::{Claims, Parts, container_security, networks};
use crate::controller::change::text;
use crate::controller::configuration::Config;

/// Volume of the launcher's private files.
pub(super) const PRIVATE: &str = "private";
/// Volume of the program that keeps containers of disks alive.
const PROGRAMS: &str = "virt-bin-share-dir";
/// Volume of a kernel's image.
const KERNEL_BOOT: &str = "kernel-boot-volume";
/// Volume with the networks' devices.
const NETWORK_INFO: &str = "network-info-annotation";

/// The launcher's own folders: name, path below `/var/run`, and whether mounts made later must show.
const FOLDERS: [(&str, &str, bool); 7] = [
    (PRIVATE, paths::PRIVATE_DIR, false),
    ("public", paths::SHARE_DIR, false),
    (paths::SOCKETS_VOLUME, paths::COMMAND_SOCKET_DIR, false),
    ("libvirt-runtime", paths::LIBVIRT_DIR, false),
    ("ephemeral-disks", paths::EPHEMERAL_DISK_DIR, false),
    (
        paths::CONTAINER_DISKS_VOLUME,
        paths::CONTAINER_DISK_DIR,
        true,
    ),
    (paths::HOTPLUG_DISKS_VOLUME, paths::HOTPLUG_DISK_DIR, true),
];

/// Returns the path of a folder below `/var/run`.
pub(super) fn in_run(folder: &str) -> String {
    format!("{}/{folder}", paths::POD_RUN_DIR)
}

/// Returns the path of the log of the guest's serial console.
pub(super) fn console_log_path(vmi: &Vmi) -> String {
    let uid = &vmi.metadata.uid;
    in_run(&format!(
        "{}/{uid}/{}",
        paths::PRIVATE_DIR,
        paths::SERIAL_LOG
    ))
}

/// Whether the guest's serial console is logged.
pub(super) fn logs_console(vmi: &Vmi, config: &Config) -> bool {
    let devices = &vmi.spec.domain.devices;
    let options = config.cluster.virtual_machine_options.as_ref();
    let is_disabled = options.is_some_and(|options| options.disable_serial_console_log.is_some());
    devices.autoattach_serial_console != Some(false)
        && devices.log_serial_console.unwrap_or(!is_disabled)
}

/// Returns the volumes, their mounts in `compute`, and the containers that they need.
pub(super) fn parts(vmi: &Vmi, raw: &Value, claims: &Claims, config: &Config) -> Parts {
    let mut parts = Parts::default();
    for (name, path, propagates) in FOLDERS {
        parts.volumes.push(json!({ "name": name, "emptyDir": {} }));
        let mut mount = json!({ "name": name, "mountPath": in_run(path) });
        if propagates {
            mount["mountPropagation"] = json!("HostToContainer");
        }
        parts.mounts.push(mount);
    }
    hugepages(&mut parts, vmi);
    if !vmi.spec.service_account_name.is_empty() {
        parts.service_account = Some(vmi.spec.service_account_name.clone());
    }
    let sources = raw.pointer("/spec/volumes").and_then(Value::as_array);
    for (index, volume) in vmi.spec.volumes.iter().enumerate() {
        let raw = sources.and_then(|sources| sources.get(index));
        let raw = raw.unwrap_or(&Value::Null);
        add(&mut parts, vmi, index, volume, raw, claims, config);
    }
    kernel_boot(&mut parts, vmi, config);
    access_credentials(&mut parts, vmi);
    if networks::needs_network_info(vmi, config) {
        network_info(&mut parts);
    }
    parts
}

impl Parts {
    /// Mounts a volume in a folder of `compute`.
    fn mount(&mut self, name: &str, path: &str, read_only: bool) {
        let mut mount = json!({ "name": name, "mountPath": path });
        if read_only {
            mount["readOnly"] = json!(true);
        }
        self.mounts.push(mount);
    }

    /// Adds a volume that is nothing but a mounted folder of an object's files.
    fn files(&mut self, name: &str, source: Value, folder: &str) {
        let name = pod_volume_name(name);
        let mut volume = source;
        volume["name"] = json!(name);
        self.volumes.push(volume);
        let path = in_run(&format!("{}/{folder}", paths::PRIVATE_DIR));
        self.mount(&name, &path, true);
    }
}

/// The name of a pod's volume: that of the instance's, unless it is one of the launcher's own.
fn pod_volume_name(volume: &str) -> String {
    let ours = [PROGRAMS, KERNEL_BOOT, NETWORK_INFO, "hugepages"];
    let is_ours = ours.contains(&volume) || FOLDERS.iter().any(|(name, _, _)| *name == volume);
    if is_ours {
        format!("volume-{volume}")
    } else {
        volume.to_owned()
    }
}

fn add(
    parts: &mut Parts,
    vmi: &Vmi,
    index: usize,
    volume: &Volume,
    raw: &Value,
    claims: &Claims,
    config: &Config,
) {
    let name = volume.name.as_str();
    if let Some(disk) = &volume.container_disk {
        container_disk(parts, vmi, index, volume, config);
        if !disk.image_pull_secret.is_empty() {
            parts.pull_secrets.push(disk.image_pull_secret.clone());
        }
    } else if let Some(claim) = claim_of(volume) {
        add_claim(parts, name, &claim, claims);
    } else if let Some(disk) = &volume.host_disk {
        host_disk(parts, name, &disk.path, &disk.disk_type);
        if disk.shared == Some(true) {
            parts.shared.push(vmi_disk_path(name));
        }
    } else if let Some(source) = &volume.cloud_init_no_cloud {
        cloud_init(parts, name, source);
    } else if let Some(source) = &volume.cloud_init_config_drive {
        cloud_init(parts, name, source);
    } else if let Some(account) = &volume.service_account {
        parts.service_account = Some(account.service_account_name.clone());
        parts.mounts_token = true;
    } else if volume.downward_metrics.is_some() {
        let source = json!({ "emptyDir": { "medium": "Memory", "sizeLimit": "1Mi" } });
        let mut folder = source;
        folder["name"] = json!(pod_volume_name(name));
        parts.volumes.push(folder);
        let path = in_run(&format!("{}/downwardmetric-disk", paths::PRIVATE_DIR));
        parts.mount(&pod_volume_name(name), &path, false);
    } else {
        objects(parts, volume, raw);
    }
}

/// Volumes of which the pod has the files of an object.
fn objects(parts: &mut Parts, volume: &Volume, raw: &Value) {
    let name = volume.name.as_str();
    let optional = |source: &mut Value, is_optional: Option<bool>| {
        if let Some(is_optional) = is_optional {
            source["optional"] = json!(is_optional);
        }
    };
    if let Some(source) = &volume.config_map {
        let mut map = json!({ "name": source.name });
        optional(&mut map, source.optional);
        let folder = format!("config-map/{name}");
        parts.files(name, json!({ "configMap": map }), &folder);
    } else if let Some(source) = &volume.secret {
        let mut secret = json!({ "secretName": source.secret_name });
        optional(&mut secret, source.optional);
        let folder = format!("secret/{name}");
        parts.files(name, json!({ "secret": secret }), &folder);
    } else if let Some(fields) = raw.pointer("/downwardAPI/fields") {
        let source = json!({ "downwardAPI": { "items": fields } });
        parts.files(name, source, &format!("downwardapi/{name}"));
    } else if let Some(source) = &volume.sysprep {
        let map = source.config_map.as_ref();
        let secret = source.secret.as_ref();
        let source = match (map, secret) {
            (Some(map), _) => json!({ "configMap": { "name": map.name } }),
            (None, Some(secret)) => json!({ "secret": { "secretName": secret.name } }),
            (None, None) => return,
        };
        parts.files(name, source, &format!("sysprep/{name}"));
    }
}

/// A claim of an instance's volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ClaimUse {
    /// Name of the claim.
    pub(crate) name: String,
    /// Whether nobody writes to it.
    pub(crate) read_only: bool,
    /// Whether a data volume makes it.
    pub(crate) is_data_volume: bool,
}

/// Returns the claim that a volume needs before the pod can be made.
pub(crate) fn claim_of(volume: &Volume) -> Option<ClaimUse> {
    let claim = |name: &str, read_only, is_data_volume| ClaimUse {
        name: name.to_owned(),
        read_only,
        is_data_volume,
    };
    if let Some(source) = &volume.persistent_volume_claim {
        return Some(claim(
            &source.claim_name,
            source.read_only == Some(true),
            false,
        ));
    }
    if let Some(source) = &volume.data_volume {
        return Some(claim(&source.name, false, true));
    }
    let ephemeral = volume.ephemeral.as_ref()?;
    let source = ephemeral.persistent_volume_claim.as_ref()?;
    Some(claim(&source.claim_name, true, false))
}

/// Whether a claim is a block device.
pub(crate) fn is_block(claim: &Value) -> bool {
    text(claim, "/spec/volumeMode") == "Block"
}

fn is_shared(claim: &Value) -> bool {
    let modes = claim.pointer("/spec/accessModes").and_then(Value::as_array);
    let mut modes = modes.into_iter().flatten();
    modes.any(|mode| mode == "ReadWriteMany")
}

fn vmi_disk_path(volume: &str) -> String {
    in_run(&format!("{}/{volume}", paths::VMI_DISKS_DIR))
}

fn add_claim(parts: &mut Parts, volume: &str, claim: &ClaimUse, claims: &Claims) {
    let name = pod_volume_name(volume);
    let mut source = json!({ "claimName": claim.name });
    if claim.read_only {
        source["readOnly"] = json!(true);
    }
    parts
        .volumes
        .push(json!({ "name": name, "persistentVolumeClaim": source }));
    let known = claims.get(&claim.name);
    if known.is_some_and(|known| is_block(known)) {
        let path = format!("/dev/{volume}");
        parts
            .devices
            .push(json!({ "name": name, "devicePath": path }));
        return;
    }
    let path = vmi_disk_path(volume);
    if known.is_some_and(|known| is_shared(known)) {
        parts.shared.push(path.clone());
    }
    parts.mount(&name, &path, claim.read_only);
}

fn host_disk(parts: &mut Parts, volume: &str, path: &str, disk_type: &str) {
    let folder = Path::new(path).parent().and_then(Path::to_str);
    let kind = if disk_type == HOST_DISK_EXISTS_OR_CREATE {
        "DirectoryOrCreate"
    } else {
        "Directory"
    };
    let name = pod_volume_name(volume);
    parts.volumes.push(json!({
        "name": name,
        "hostPath": { "path": folder.unwrap_or("/"), "type": kind },
    }));
    parts.mounts.push(json!({
        "name": name,
        "mountPath": vmi_disk_path(volume),
        "mountPropagation": "HostToContainer",
    }));
}

/// Secrets with user data and network data, all in one folder.
fn cloud_init(parts: &mut Parts, volume: &str, source: &CloudInitSource) {
    let references = [&source.network_data_secret_ref, &source.secret_ref];
    let mut names: Vec<&str> = references
        .into_iter()
        .flatten()
        .map(|reference| reference.name.as_str())
        .collect();
    names.dedup();
    let folder = format!("secret/{volume}");
    match names.as_slice() {
        [] => {}
        [name] => {
            let source = json!({ "secret": { "secretName": name } });
            parts.files(volume, source, &folder);
        }
        _ => {
            // The later source wins where both have a key; user data is the more important.
            let sources = names
                .iter()
                .map(|name| json!({ "secret": { "name": name } }));
            let sources = Value::from_iter(sources);
            parts.files(
                volume,
                json!({ "projected": { "sources": sources } }),
                &folder,
            );
        }
    }
}

fn access_credentials(parts: &mut Parts, vmi: &Vmi) {
    let mut seen = Vec::new();
    for credential in &vmi.spec.access_credentials {
        let secret = credential.secret_name();
        if secret.is_empty() || seen.contains(&secret) {
            continue;
        }
        seen.push(secret);
        let name = format!("{secret}-access-cred");
        let source = json!({ "secret": { "secretName": secret } });
        parts.files(&name, source, &format!("secret/{name}"));
    }
}

fn hugepages(parts: &mut Parts, vmi: &Vmi) {
    let memory = vmi.spec.domain.memory.as_ref();
    if memory.is_none_or(|memory| memory.hugepages.is_none()) {
        return;
    }
    let source = json!({ "name": "hugepages", "emptyDir": { "medium": "HugePages" } });
    parts.volumes.push(source);
    parts.mount("hugepages", "/dev/hugepages", false);
}

fn network_info(parts: &mut Parts) {
    let annotation = format!("metadata.annotations['{}']", api::labels::NETWORK_INFO);
    parts.volumes.push(json!({
        "name": NETWORK_INFO,
        "downwardAPI": {
            "items": [{ "path": "network-info", "fieldRef": { "fieldPath": annotation } }],
        },
    }));
    parts.mount(NETWORK_INFO, "/etc/podinfo", true);
}

/// An image that the kubelet mounts.
fn image_volume(parts: &mut Parts, name: &str, image: &str, policy: &str, path: &str) {
    let mut source = json!({ "reference": image });
    if !policy.is_empty() {
        source["pullPolicy"] = json!(policy);
    }
    parts.volumes.push(json!({ "name": name, "image": source }));
    parts.mount(name, path, true);
}

fn container_disk(parts: &mut Parts, vmi: &Vmi, index: usize, volume: &Volume, config: &Config) {
    let Some(source) = &volume.container_disk else {
        return;
    };
    if config.image_volumes() {
        let path = in_run(&format!("{}/disk_{index}", paths::IMAGE_VOLUME_DIR));
        let name = pod_volume_name(&volume.name);
        return image_volume(
            parts,
            &name,
            &source.image,
            &source.image_pull_policy,
            &path,
        );
    }
    let disk = DiskContainer {
        name: format!("volume{}", volume.name),
        image: &source.image,
        policy: &source.image_pull_policy,
        file: format!("disk_{index}"),
    };
    disk.add(parts, vmi, config);
}

fn kernel_boot(parts: &mut Parts, vmi: &Vmi, config: &Config) {
    let firmware = vmi.spec.domain.firmware.as_ref();
    let boot = firmware.and_then(|firmware| firmware.kernel_boot.as_ref());
    let Some(source) = boot.and_then(|boot| boot.container.as_ref()) else {
        return;
    };
    if !source.image_pull_secret.is_empty() {
        parts.pull_secrets.push(source.image_pull_secret.clone());
    }
    if config.image_volumes() {
        let path = in_run(paths::KERNEL_BOOT_IMAGE_DIR);
        let policy = &source.image_pull_policy;
        return image_volume(parts, KERNEL_BOOT, &source.image, policy, &path);
    }
    let disk = DiskContainer {
        name: KERNEL_BOOT.to_owned(),
        image: &source.image,
        policy: &source.image_pull_policy,
        file: "kernel-boot".to_owned(),
    };
    disk.add(parts, vmi, config);
}

/// A container whose image holds a disk, which the node agent mounts from there (KubeVirt §2.11).
struct DiskContainer<'a> {
    name: String,
    image: &'a str,
    policy: &'a str,
    file: String,
}

impl DiskContainer<'_> {
    fn add(&self, parts: &mut Parts, vmi: &Vmi, config: &Config) {
        if !parts.has_volume(PROGRAMS) {
            parts
                .volumes
                .push(json!({ "name": PROGRAMS, "emptyDir": {} }));
            parts.init_containers.push(program_copy(vmi, config));
        }
        let folder = in_run(&format!(
            "{}/{}",
            paths::CONTAINER_DISK_DIR,
            vmi.metadata.uid
        ));
        let file = format!("{folder}/{}", self.file);
        let disks = json!({ "name": paths::CONTAINER_DISKS_VOLUME, "mountPath": folder });
        let limits = ("10m", "40M");
        parts.containers.push(self.container(
            vmi,
            &self.name,
            &["--copy-path", &file],
            &disks,
            ("1m", limits),
        ));
        let init = format!("{}-init", self.name);
        let limits = ("100m", "40M");
        parts.init_containers.push(self.container(
            vmi,
            &init,
            &["--no-op"],
            &disks,
            ("10m", limits),
        ));
    }

    fn container(
        &self,
        vmi: &Vmi,
        name: &str,
        arguments: &[&str],
        disks: &Value,
        (cpu, (cpu_limit, memory_limit)): (&str, (&str, &str)),
    ) -> Value {
        let mut container = json!({
            "name": name,
            "image": self.image,
            "command": ["/usr/bin/container-disk"],
            "args": arguments,
            "resources": {
                "requests": { "cpu": cpu, "memory": "1M", "ephemeral-storage": "50M" },
                "limits": { "cpu": cpu_limit, "memory": memory_limit },
            },
            "securityContext": container_security(vmi, false),
            "volumeMounts": [disks, { "name": PROGRAMS, "mountPath": "/usr/bin" }],
        });
        if !self.policy.is_empty() {
            container["imagePullPolicy"] = json!(self.policy);
        }
        container
    }
}

impl Parts {
    fn has_volume(&self, name: &str) -> bool {
        self.volumes.iter().any(|volume| volume["name"] == name)
    }
}

/// Copies the program that keeps containers of disks alive out of the launcher's image.
fn program_copy(vmi: &Vmi, config: &Config) -> Value {
    let mut container = json!({
        "name": "container-disk-binary",
        "image": config.launcher_image,
        "command": [
            "/usr/bin/cp", "--preserve=all", "/usr/bin/container-disk", "/init/usr/bin/container-disk"
        ],
        "resources": {
            "requests": { "cpu": "10m", "memory": "1M" },
            "limits": { "cpu": "100m", "memory": "40M" },
        },
        "securityContext": container_security(vmi, false),
        "volumeMounts": [{ "name": PROGRAMS, "mountPath": "/init/usr/bin" }],
    });
    if !config.image_pull_policy.is_empty() {
        container["imagePullPolicy"] = json!(config.image_pull_policy);
    }
    container
}
