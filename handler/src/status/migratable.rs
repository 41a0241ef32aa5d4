//! Why a machine stays on its node. No launcher of ours can move a running machine yet, so none may say that it can:
//! an eviction would count on it. The reason names what would stand in the way even then, where something does.

use api::Vmi;
use api::condition::{Condition, kind, reason};
use api::status::{BLOCK_MIGRATION, LIVE_MIGRATION, VmiStatus};
use api::volumes::Volume;

/// What every message ends with.
const NOT_YET: &str = "this launcher cannot move a running machine";

/// Returns the conditions `LiveMigratable` and `StorageLiveMigratable`.
pub(super) fn conditions(vmi: &Vmi, now: &str) -> [Condition; 2] {
    let elsewhere = device(vmi).or_else(|| interface(vmi));
    let disks = disk(vmi).filter(|_| elsewhere.is_none());
    [
        condition(
            kind::LIVE_MIGRATABLE,
            disks.or_else(|| elsewhere.clone()),
            now,
        ),
        condition(kind::STORAGE_LIVE_MIGRATABLE, elsewhere, now),
    ]
}

/// Returns how the machine would move: its disks stay where they are when other nodes reach all of them, else some are
/// copied or made anew (`status.migrationMethod`).
pub(super) fn method(vmi: &Vmi) -> &'static str {
    let mut volumes = vmi.spec.volumes.iter();
    let stays = |volume: &Volume| is_file_system(volume, vmi) || is_shared(volume, &vmi.status);
    if volumes.all(stays) {
        LIVE_MIGRATION
    } else {
        BLOCK_MIGRATION
    }
}

/// Whether the guest has the volume as a file system of the host's.
fn is_file_system(volume: &Volume, vmi: &Vmi) -> bool {
    let mut filesystems = vmi.spec.domain.devices.filesystems.iter();
    filesystems.any(|filesystem| filesystem.name == volume.name)
}

fn condition(kind: &str, obstacle: Option<(&'static str, String)>, now: &str) -> Condition {
    let (why, text) = match obstacle {
        Some((why, what)) => (why, format!("cannot migrate VMI: {what}; also, {NOT_YET}")),
        None => (
            reason::NOT_MIGRATABLE,
            format!("cannot migrate VMI: {NOT_YET}"),
        ),
    };
    Condition::new(kind, false, now).because(why, text)
}

fn device(vmi: &Vmi) -> Option<(&'static str, String)> {
    let devices = &vmi.spec.domain.devices;
    let host_device = devices.host_devices.iter().map(|device| &device.name);
    let gpu = devices.gpus.iter().map(|gpu| &gpu.name);
    if let Some(name) = host_device.chain(gpu).next() {
        let what = format!("device {name} of the host stays with it");
        return Some((reason::HOST_DEVICE_NOT_MIGRATABLE, what));
    }
    let shared = devices
        .filesystems
        .iter()
        .find(|fs| fs.virtiofs.is_some())?;
    let what = format!("file system {} is shared with the host", shared.name);
    Some((reason::VIRTIOFS_NOT_MIGRATABLE, what))
}

fn interface(vmi: &Vmi) -> Option<(&'static str, String)> {
    let on_pod_network = |name: &str| {
        let mut networks = vmi.spec.networks.iter();
        networks.any(|network| network.name == name && network.pod.is_some())
    };
    let mut interfaces = vmi.spec.domain.devices.interfaces.iter();
    let bound = interfaces.find(|i| i.bridge.is_some() && on_pod_network(&i.name))?;
    if vmi
        .metadata
        .annotations
        .contains_key(api::labels::ALLOW_POD_BRIDGE_MIGRATION)
    {
        return None;
    }
    let what = format!("interface {} is a bridge to the pod's network", bound.name);
    Some((reason::INTERFACE_NOT_MIGRATABLE, what))
}

fn disk(vmi: &Vmi) -> Option<(&'static str, String)> {
    let mut volumes = vmi.spec.volumes.iter();
    let local = volumes.find(|volume| is_local(volume, &vmi.status))?;
    let what = format!("volume {} can be reached from this node only", local.name);
    Some((reason::DISKS_NOT_MIGRATABLE, what))
}

/// Whether the volume's content is on this node only, and cannot be made anew on another.
fn is_local(volume: &Volume, status: &VmiStatus) -> bool {
    let may_last = volume.host_disk.is_some() || is_claim(volume);
    may_last && !is_shared(volume, status)
}

fn is_claim(volume: &Volume) -> bool {
    volume.persistent_volume_claim.is_some() || volume.data_volume.is_some()
}

/// Whether other nodes reach the same disk.
fn is_shared(volume: &Volume, status: &VmiStatus) -> bool {
    if let Some(host_disk) = &volume.host_disk {
        return host_disk.shared == Some(true);
    }
    if !is_claim(volume) {
        return false;
    }
    let claim = status
        .volume(&volume.name)
        .and_then(|v| v.persistent_volume_claim_info.as_ref());
    claim.is_some_and(|claim| {
        claim
            .access_modes
            .iter()
            .any(|mode| mode == "ReadWriteMany")
    })
}
