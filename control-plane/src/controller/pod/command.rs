//! The command line and environment of a launcher (KubeVirt §1.2).

use api::features::gate;
use api::{Vmi, labels, paths};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{Parts, is_root};
use crate::controller::configuration::Config;

/// Seconds that a launcher waits for its instance, and how far that is spread.
const WAIT_SECONDS: (u64, u64) = (240, 120);
/// Seconds beyond the instance's own patience after which the launcher ends the machine by itself.
const GRACE_MARGIN_SECONDS: u64 = 15;
/// Most memory of a look into a disk image, bytes.
const DISK_MEMORY_LIMIT: &str = "2097152000";
/// Verbosity that needs no word.
const VERBOSITY: u64 = api::kubevirt::DEFAULT_LOG_VERBOSITY;

/// Returns the program of a launcher and its arguments.
pub(super) fn launcher(vmi: &Vmi, config: &Config) -> Vec<String> {
    let run = paths::POD_RUN_DIR;
    let grace = vmi.spec.grace_period_seconds();
    let hypervisor = config.cluster.hypervisors.first();
    let hypervisor = hypervisor.map_or("kvm", |hypervisor| hypervisor.name.as_str());
    let mut command = vec!["/usr/bin/virt-launcher-monitor".to_owned()];
    for (flag, value) in [
        ("--qemu-timeout", format!("{}s", wait_seconds(vmi))),
        ("--name", vmi.metadata.name.clone()),
        ("--uid", vmi.metadata.uid.clone()),
        (
            "--namespace",
            vmi.metadata.namespace_or_default().to_owned(),
        ),
        (
            "--kubevirt-share-dir",
            format!("{run}/{}", paths::SHARE_DIR),
        ),
        (
            "--ephemeral-disk-dir",
            format!("{run}/{}", paths::EPHEMERAL_DISK_DIR),
        ),
        (
            "--container-disk-dir",
            format!("{run}/{}", paths::CONTAINER_DISK_DIR),
        ),
        (
            "--grace-period-seconds",
            grace.saturating_add(GRACE_MARGIN_SECONDS).to_string(),
        ),
        ("--hook-sidecars", "0".to_owned()),
        ("--ovmf-path", ovmf_path(vmi, config)),
        ("--disk-memory-limit", DISK_MEMORY_LIMIT.to_owned()),
    ] {
        command.extend([flag.to_owned(), value]);
    }
    for (switch, is_on) in [
        ("--run-as-nonroot", !is_root(vmi)),
        ("--allow-emulation", config.cluster.use_emulation()),
        (
            "--allow-cross-arch-emulation",
            config.cluster.is_on(gate::CROSS_ARCHITECTURE),
        ),
        ("--image-volume", config.image_volumes()),
        (
            "--keep-after-failure",
            annotation(vmi, labels::KEEP_LAUNCHER_ALIVE_AFTER_FAILURE) == Some("true"),
        ),
    ] {
        if is_on {
            command.push(switch.to_owned());
        }
    }
    command.extend(["--hypervisor".to_owned(), hypervisor.to_owned()]);
    if let Some(filters) = annotation(vmi, labels::LIBVIRT_LOG_FILTERS) {
        command.extend(["--libvirt-log-filters".to_owned(), filters.to_owned()]);
    }
    command.extend(config.launcher_arguments.iter().cloned());
    command
}

fn annotation<'v>(vmi: &'v Vmi, name: &str) -> Option<&'v str> {
    vmi.metadata.annotations.get(name).map(String::as_str)
}

/// Launchers of one moment don't give up at one moment; the same instance always gets the same time.
fn wait_seconds(vmi: &Vmi) -> u64 {
    let digest = Sha256::digest(vmi.metadata.uid.as_bytes());
    let spread = u64::from(digest[SPREAD_BYTE]) * WAIT_SECONDS.1 / 256;
    WAIT_SECONDS.0 + spread
}

/// Byte of the digest that the spread is made of; the first ones are in the pod's name.
const SPREAD_BYTE: usize = 8;

fn ovmf_path(vmi: &Vmi, config: &Config) -> String {
    let by_architecture = config.cluster.architecture_configuration.as_ref();
    let arm = vmi.spec.architecture == "arm64";
    let own = by_architecture.and_then(|all| {
        let own = if arm { &all.arm64 } else { &all.amd64 };
        own.as_ref().map(|own| own.ovmf_path.as_str())
    });
    let default = if arm {
        "/usr/share/AAVMF"
    } else {
        "/usr/share/OVMF"
    };
    [own.unwrap_or_default(), &config.cluster.ovmf_path]
        .into_iter()
        .find(|path| !path.is_empty())
        .unwrap_or(default)
        .to_owned()
}

/// Returns the environment of a launcher.
pub(super) fn environment(vmi: &Vmi, config: &Config, parts: &Parts) -> Vec<Value> {
    let run = paths::POD_RUN_DIR;
    let private = format!("{run}/{}", paths::PRIVATE_DIR);
    let mut environment = vec![
        json!({ "name": "XDG_CACHE_HOME", "value": private }),
        json!({ "name": "XDG_CONFIG_HOME", "value": private }),
        json!({ "name": "XDG_RUNTIME_DIR", "value": run }),
    ];
    let verbosity = config
        .cluster
        .developer_configuration
        .log_verbosity
        .as_ref();
    let verbosity = verbosity.and_then(|verbosity| verbosity.virt_launcher);
    let own = vmi.metadata.labels.get("logVerbosity");
    let verbosity = own.cloned().or_else(|| verbosity.map(|v| v.to_string()));
    if let Some(verbosity) = verbosity.filter(|verbosity| *verbosity != VERBOSITY.to_string()) {
        environment.push(json!({ "name": "VIRT_LAUNCHER_LOG_VERBOSITY", "value": verbosity }));
    }
    if !parts.shared.is_empty() {
        let value = parts.shared.join(":");
        environment.push(json!({ "name": "SHARED_FILESYSTEM_PATHS", "value": value }));
    }
    environment.push(json!({
        "name": "POD_NAME",
        "valueFrom": { "fieldRef": { "fieldPath": "metadata.name" } },
    }));
    environment
}
