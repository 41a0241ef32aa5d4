//! Devices as the Domain JSON tells them: what the node agent copies into the instance's status.

use std::path::Path;

use api::Vmi;
use proto::domain::{
    Alias, Channel, ChannelSource, ChannelTarget, Devices, Disk, DiskSource as Source, DiskTarget,
    Present,
};
use vmm::config::{ConsolePortConfig, DiskBus, DiskConfig, DiskKind, DiskSource, MachineConfig};

/// Folder of block devices.
const DEVICE_DIR: &str = "/dev";

/// Returns disks and channels of a machine, the channels disconnected.
///
/// Disks are called `vda`, `vdb` and on by the virtio bus, `sda` and on by the SCSI bus, each in the
/// instance's order, and have their volumes' names as aliases. Sizes are left out.
pub fn domain_devices(vmi: &Vmi, config: &MachineConfig) -> Devices {
    let (mut virtio, mut scsi) = (0, 0);
    let disks = config.disks.iter().map(|disk| {
        let (prefix, count) = match disk.bus {
            DiskBus::VirtioBlk => ("vd", &mut virtio),
            DiskBus::VirtioScsi => ("sd", &mut scsi),
        };
        let device = format!("{prefix}{}", letters(*count));
        *count += 1;
        domain_disk(vmi, disk, device)
    });
    Devices {
        disks: disks.collect(),
        channels: config.console_ports.iter().map(channel).collect(),
        ..Devices::default()
    }
}

fn domain_disk(vmi: &Vmi, disk: &DiskConfig, device: String) -> Disk {
    let path = match &disk.source {
        DiskSource::Image { path, .. } => Some(path),
        DiskSource::Overlay { overlay, .. } => Some(overlay),
        DiskSource::Empty => None,
    };
    let is_device = path.is_some_and(|path| path.starts_with(DEVICE_DIR));
    Disk {
        device: match disk.kind {
            DiskKind::Disk => "disk",
            DiskKind::Cdrom => "cdrom",
            DiskKind::Lun => "lun",
        }
        .to_owned(),
        type_: if is_device { "block" } else { "file" }.to_owned(),
        source: source(path.map(|path| path.as_path()), is_device),
        target: DiskTarget {
            bus: match disk.bus {
                DiskBus::VirtioBlk => "virtio",
                DiskBus::VirtioScsi => "scsi",
            }
            .to_owned(),
            device,
            tray: tray(vmi, disk),
        },
        serial: disk.serial.clone().unwrap_or_default(),
        read_only: disk.read_only.then_some(Present {}),
        alias: Some(Alias::user_defined(&disk.name)),
        capacity: None,
    }
}

fn source(path: Option<&Path>, is_device: bool) -> Source {
    let path = path.map(|path| path.to_string_lossy().into_owned());
    let path = path.unwrap_or_default();
    if is_device {
        Source {
            dev: path,
            ..Source::default()
        }
    } else {
        Source {
            file: path,
            ..Source::default()
        }
    }
}

/// The tray of a drive as the instance wants it in the beginning.
fn tray(vmi: &Vmi, disk: &DiskConfig) -> String {
    if disk.kind != DiskKind::Cdrom {
        return String::new();
    }
    let mut disks = vmi.spec.domain.devices.disks.iter();
    let wanted = disks.find(|wanted| wanted.name == disk.name);
    let wanted = wanted.and_then(|wanted| wanted.cdrom.as_ref());
    match wanted.map(|cdrom| cdrom.tray.as_str()) {
        Some("open") => "open",
        _ => "closed",
    }
    .to_owned()
}

fn channel(port: &ConsolePortConfig) -> Channel {
    Channel {
        type_: "unix".to_owned(),
        source: Some(ChannelSource {
            mode: "bind".to_owned(),
            path: port.socket.to_string_lossy().into_owned(),
        }),
        target: Some(ChannelTarget {
            name: port.name.clone(),
            type_: "virtio".to_owned(),
            state: ChannelTarget::DISCONNECTED.to_owned(),
        }),
    }
}

/// Numbers as the kernel writes them in the names of disks: a, b, … z, aa, ab, …
fn letters(number: usize) -> String {
    let mut name = Vec::new();
    let mut rest = number + 1;
    while rest > 0 {
        rest -= 1;
        let letter = u8::try_from(rest % 26).unwrap_or_default();
        name.push(char::from(b'a' + letter));
        rest /= 26;
    }
    name.iter().rev().collect()
}

#[cfg(test)]
mod tests {
    use super::letters;

    #[test]
    fn names_of_disks_count_in_letters() {
        let names = [0, 1, 25, 26, 51, 52, 701, 702].map(letters);
        assert_eq!(names, ["a", "b", "z", "aa", "az", "ba", "zz", "aaa"]);
    }
}
