//! Binds virtual functions to vfio-pci (`--bind-vfio`).
//!
//! Taken are virtual functions that a selector asks for, that have an IOMMU group and that nobody seems to use. Not taken is a
//! function whose network interface is up, or has a driver and no interface in our network namespace (a container may have
//! it), storage with a block device (it may be mounted), and the boot display. Physical functions are never taken, whether
//! they have virtual ones or not: the host may hang on them, and an operator binds the few there are.
//!
//! ```text
//!  driver_override = vfio-pci ──► driver/unbind, where it has one ──► drivers_probe ──► bound?
//! ```
//!
//! A function that vfio-pci does not take stays without a driver and kept for it: giving it back would make it come and go at
//! every look.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use super::function::{Function, Role};
use crate::source::Host;
use crate::sysfs;
use crate::unit::LeftOut;

const VFIO_PCI: &str = "vfio-pci";
/// Class of storage.
const STORAGE: u32 = 0x01;
/// Class of network cards.
const NETWORK: u32 = 0x02;
/// The flag of an interface that is up (`IFF_UP`).
const UP: u32 = 1;

/// Most folders below a function that are searched for a block device: far more than a disk has.
const FOLDERS_MAX: usize = 4096;

/// Writes a text to an attribute.
pub(super) type Write<'a> = &'a dyn Fn(&Path, &str) -> io::Result<()>;

/// Writes a text to an attribute that is there.
pub(super) fn write_attribute(path: &Path, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).open(path)?;
    file.write_all(text.as_bytes())
}

/// Binds what can be bound of `functions`, and tells what could not be.
pub(super) fn bind_all(host: &Host, functions: &[Function], write: Write<'_>) -> Vec<LeftOut> {
    let candidates = functions.iter().filter(|function| is_candidate(function));
    candidates
        .filter_map(|function| {
            bind(host, function, write)
                .err()
                .map(|reason| (function, reason))
        })
        .map(|(function, reason)| LeftOut {
            device: function.address.to_string(),
            reason,
        })
        .collect()
}

/// Whether binding it could make it fit to be given; what it lacks otherwise is told where offers are made.
fn is_candidate(function: &Function) -> bool {
    let is_free_part = matches!(
        function.role,
        Role::Virtual {
            is_physical_vfio: false,
            ..
        }
    );
    is_free_part && function.group.is_some() && !function.is_vfio
}

fn bind(host: &Host, function: &Function, write: Write<'_>) -> Result<(), String> {
    let folder = super::folder(host).join(function.address.to_string());
    if let Some(usage) = usage(&folder, function) {
        return Err(format!("is not bound to vfio-pci: {usage}"));
    }
    if !host.sys_dir.join("bus/pci/drivers").join(VFIO_PCI).is_dir() {
        return Err("cannot be bound, since vfio-pci is not loaded: modprobe vfio-pci".to_owned());
    }
    for (path, text) in steps(host, &folder, function) {
        write(&path, &text).map_err(|error| refusal(&path, &error))?;
    }
    if sysfs::link_name(&folder, "driver").as_deref() != Some(VFIO_PCI) {
        return Err("was not taken by vfio-pci: see the kernel's log for the reason".to_owned());
    }
    tracing::info!(device = %function.address, from = function.driver, "bound to vfio-pci");
    Ok(())
}

/// What is written, and where, to make vfio-pci take a function.
fn steps(host: &Host, folder: &Path, function: &Function) -> Vec<(PathBuf, String)> {
    let address = function.address.to_string();
    let mut steps = Vec::new();
    if function.driver_override.as_deref() != Some(VFIO_PCI) {
        steps.push((folder.join("driver_override"), VFIO_PCI.to_owned()));
    }
    if function.driver.is_some() {
        steps.push((folder.join("driver/unbind"), address.clone()));
    }
    steps.push((host.sys_dir.join("bus/pci/drivers_probe"), address));
    steps
}

/// Who may be using a function.
fn usage(folder: &Path, function: &Function) -> Option<String> {
    if sysfs::attribute(folder, "boot_vga").as_deref() == Some("1") {
        return Some("it is the display that the host booted with".to_owned());
    }
    let driver = function.driver.as_ref()?;
    match function.class.map(|class| class >> 16) {
        Some(NETWORK) => interface_usage(folder, driver),
        Some(STORAGE) => storage_usage(folder, driver),
        _ => None,
    }
}

fn storage_usage(folder: &Path, driver: &str) -> Option<String> {
    let device = block_device(folder)?;
    Some(format!(
        "its block device {device} may be in use; unbind it from {driver} first if it is not"
    ))
}

/// The first block device at or below a function, however deep its driver puts it.
fn block_device(folder: &Path) -> Option<String> {
    let mut folders = vec![folder.to_owned()];
    for _ in 0..FOLDERS_MAX {
        let folder = folders.pop()?;
        if sysfs::link_name(&folder, "subsystem").as_deref() == Some("block") {
            return Some(folder.file_name()?.to_string_lossy().into_owned());
        }
        let below = sysfs::entries(&folder).into_iter();
        folders.extend(below.filter(|entry| entry.is_dir() && !entry.is_symlink()));
    }
    Some("somewhere among very many".to_owned())
}

fn interface_usage(folder: &Path, driver: &str) -> Option<String> {
    let interfaces = sysfs::entries(&folder.join("net"));
    if interfaces.is_empty() {
        return Some(format!(
            "its driver {driver} has it and its network interface is not in the node agent's network namespace, so a container may be using it; unbind it from {driver} first if none is"
        ));
    }
    let up = interfaces.iter().find(|folder| is_up(folder))?;
    let name = up.file_name()?.to_string_lossy();
    Some(format!(
        "its network interface {name} is up; set it down if nobody uses it (ip link set {name} down)"
    ))
}

/// Whether an interface is up, or does not tell.
fn is_up(interface: &Path) -> bool {
    sysfs::hex_u32(interface, "flags").is_none_or(|flags| flags & UP != 0)
}

fn refusal(path: &Path, error: &io::Error) -> String {
    let path = path.display();
    let cure = match error.kind() {
        io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied => {
            "the node agent needs sysfs writable: run it privileged, as its DaemonSet does, or bind the function yourself"
        }
        io::ErrorKind::NotFound => "the function may just have gone",
        _ => "see the kernel's log for the reason",
    };
    format!("cannot be bound to vfio-pci: write {path}: {error}; {cure}")
}

#[cfg(test)]
mod tests;
