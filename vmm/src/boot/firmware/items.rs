//! What firmware asks for through the firmware configuration device (QEMU `docs/specs/fw_cfg.rst`; the names of files
//! are SeaBIOS's `docs/Runtime_config.md`).

use devices::chipset::SERIAL_PORT;
use devices::fw_cfg::{FwCfgError, FwCfgItems, key};

use crate::acpi::{self, Platform};
use crate::board::slots::{self, DiskPlace};
use crate::boot::e820::RangeKind;
use crate::config::{DiskConfig, MachineConfig};
use crate::memory::Ram;
use crate::smbios;

/// Milliseconds until firmware that found nothing to boot starts anew: never.
const NO_RETRY: u32 = u32::MAX;

/// Returns the items of a machine that starts with firmware.
///
/// # Errors
/// If a file is offered twice, or is too large: a mistake in this crate.
pub(crate) fn items(config: &MachineConfig, ram: &Ram) -> Result<FwCfgItems, FwCfgError> {
    let mut items = FwCfgItems::new();
    let cpus = u16::try_from(config.cpus.count()).unwrap_or(u16::MAX);
    items.set(key::RAM_SIZE, ram.len_bytes().to_le_bytes());
    items.set(key::NO_GRAPHIC, 1_u16.to_le_bytes());
    items.set(key::CPUS, cpus.to_le_bytes());
    items.set(key::MAX_CPUS, cpus.to_le_bytes());
    items.set(key::NUMA, 0_u64.to_le_bytes());
    items.set(key::BOOT_MENU, 0_u16.to_le_bytes());
    items.set(key::IRQ0_OVERRIDE, 1_u32.to_le_bytes());
    items.add_file("etc/e820", e820(ram))?;
    items.add_file("etc/boot-fail-wait", NO_RETRY.to_le_bytes())?;
    // There is no display: the serial port takes the firmware's text, and that of boot loaders.
    items.add_file("etc/sercon-port", SERIAL_PORT.to_le_bytes())?;
    items.add_file("bootorder", boot_order(&config.disks))?;
    for (name, bytes) in acpi::files(&Platform::new(config, ram)) {
        items.add_file(name, bytes)?;
    }
    for (name, bytes) in smbios::files(config, ram) {
        items.add_file(name, bytes)?;
    }
    Ok(items)
}

/// RAM; what of it is reserved is firmware's own affair.
fn e820(ram: &Ram) -> Vec<u8> {
    let mut bytes = Vec::new();
    for range in ram.ranges().iter().filter(|range| !range.read_only) {
        bytes.extend(range.gpa.to_le_bytes());
        bytes.extend(range.len_bytes.to_le_bytes());
        bytes.extend(RangeKind::Usable.code().to_le_bytes());
    }
    bytes
}

/// Returns the disks' Open Firmware paths, a line each, in the order in which they are tried.
fn boot_order(disks: &[DiskConfig]) -> Vec<u8> {
    let mut order: Vec<_> = disks.iter().zip(slots::disk_places(disks)).collect();
    // The sort is stable: disks without a number stay in the order of the configuration.
    order.sort_by_key(|(disk, _)| disk.boot_order.unwrap_or(u32::MAX));
    let paths = order.into_iter().map(|(_, place)| match place {
        DiskPlace::Slot(slot) => format!("/pci@i0cf8/scsi@{slot:x}/disk@0,0"),
        DiskPlace::Target(target) => {
            let host = slots::SCSI;
            format!("/pci@i0cf8/scsi@{host:x}/channel@0/disk@{target:x},0")
        }
    });
    let mut text = paths.collect::<Vec<_>>().join("\n").into_bytes();
    text.push(0);
    text
}

#[cfg(test)]
mod tests;
