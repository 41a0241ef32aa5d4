//! Which place on the PCI bus each device has.

use crate::config::{DiskBus, DiskConfig};

/// The entropy device.
pub(super) const RNG: u8 = 1;
/// The console.
pub(super) const CONSOLE: u8 = 2;
/// Block devices follow from here on, in the order of the configuration.
const FIRST_DISK: u8 = 3;
/// The SCSI controller, behind as many block devices as there may be.
pub(crate) const SCSI: u8 = 27;

/// Where a disk is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DiskPlace {
    /// A PCI device with this number.
    Slot(u8),
    /// This target of the SCSI controller.
    Target(u8),
}

/// Returns the disks' places, in their order.
pub(crate) fn disk_places(disks: &[DiskConfig]) -> Vec<DiskPlace> {
    let (mut slots, mut targets) = (FIRST_DISK.., 0..);
    let place = |disk: &DiskConfig| match disk.bus {
        DiskBus::VirtioBlk => slots.next().map(DiskPlace::Slot),
        DiskBus::VirtioScsi => targets.next().map(DiskPlace::Target),
    };
    // The configuration was validated: there are places for all.
    disks.iter().filter_map(place).collect()
}
