//! Records what sysfs and `/dev` show of devices, in the lines that trees of sysfs are planted from.

use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

/// Attributes of PCI functions.
const PCI: [&str; 11] = [
    "vendor",
    "device",
    "class",
    "subsystem_vendor",
    "subsystem_device",
    "numa_node",
    "driver_override",
    "sriov_totalvfs",
    "sriov_numvfs",
    "sriov_drivers_autoprobe",
    "sriov_vf_device",
];

/// Attributes of USB devices and of their interfaces.
const USB: [&str; 16] = [
    "idVendor",
    "idProduct",
    "bcdDevice",
    "bDeviceClass",
    "serial",
    "manufacturer",
    "product",
    "busnum",
    "devnum",
    "devpath",
    "speed",
    "dev",
    "bNumInterfaces",
    "bInterfaceClass",
    "bInterfaceNumber",
    "authorized",
];

/// Folders whose device nodes are recorded, with those below them.
const NODES: [&str; 4] = ["/dev/bus/usb", "/dev/net", "/dev/vfio", "/dev"];

/// Device nodes in `/dev` itself.
const SHARED: [&str; 3] = ["kvm", "vhost-net", "vhost-vsock"];

/// Describes the node's PCI and USB devices.
pub(super) fn devices() -> String {
    let mut lines = Vec::new();
    for (bus, attributes) in [("pci", &PCI[..]), ("usb", &USB[..])] {
        for link in entries(format!("/sys/bus/{bus}/devices")) {
            let Some(device) = device(&link) else {
                continue;
            };
            lines.extend(link_line(&link));
            lines.extend(
                attributes
                    .iter()
                    .filter_map(|name| file_line(&device.join(name))),
            );
            let links = entries(&device).into_iter().filter(|it| is_told(it));
            lines.extend(links.filter_map(|it| link_line(&it)));
            let folders = entries(device.join("vfio-dev"));
            lines.extend(folders.iter().map(|it| format!("d {}", below_root(it))));
        }
    }
    for group in entries("/sys/kernel/iommu_groups") {
        lines.extend(file_line(&group.join("type")));
        lines.extend(
            entries(group.join("devices"))
                .iter()
                .filter_map(|it| link_line(it.as_path())),
        );
    }
    for misc in ["kvm", "tun", "vhost-net", "vhost-vsock", "vfio"] {
        lines.extend(file_line(
            &Path::new("/sys/class/misc").join(misc).join("dev"),
        ));
    }
    for driver in entries("/sys/bus/pci/drivers") {
        lines.push(format!("d {}", below_root(&driver)));
    }
    lines.extend(
        NODES
            .iter()
            .flat_map(|folder| node_lines(Path::new(folder))),
    );
    lines.join("\n") + "\n"
}

/// Where a link of a bus leads: to a folder below `/sys`.
fn device(link: &Path) -> Option<PathBuf> {
    let target = fs::read_link(link).ok()?;
    let below = target.strip_prefix("../../..").ok()?;
    Some(Path::new("/sys").join(below))
}

/// Links between devices, groups and drivers.
fn is_told(link: &Path) -> bool {
    let name = link.file_name().unwrap_or_default().to_string_lossy();
    let is_link = ["driver", "iommu_group", "physfn", "subsystem"].contains(&name.as_ref());
    is_link || name.starts_with("virtfn")
}

fn entries(folder: impl AsRef<Path>) -> Vec<PathBuf> {
    let found = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut paths: Vec<_> = found.map(|entry| entry.path()).collect();
    paths.sort();
    paths
}

fn below_root(path: &Path) -> String {
    let path = path.display().to_string();
    path.trim_start_matches('/').to_owned()
}

fn link_line(link: &Path) -> Option<String> {
    let target = fs::read_link(link).ok()?;
    Some(format!("l {} -> {}", below_root(link), target.display()))
}

fn file_line(file: &Path) -> Option<String> {
    let text = fs::read_to_string(file).ok()?.replace('\n', "\\n");
    Some(format!("f {} {text}", below_root(file)))
}

/// Device nodes in a folder and below it; of `/dev` just those that machines share.
fn node_lines(folder: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    for path in entries(folder) {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if folder == Path::new("/dev") && !SHARED.contains(&name.as_ref()) {
            continue;
        }
        let kind = path.symlink_metadata().map(|it| it.file_type());
        if kind.as_ref().is_ok_and(fs::FileType::is_dir) {
            lines.extend(node_lines(&path));
        } else if kind.is_ok_and(|it| it.is_char_device()) {
            lines.push(format!("f {}", below_root(&path)));
        }
    }
    lines
}
