//! The virtio devices of a board.

use std::collections::BTreeMap;
use std::sync::Arc;

use block::{Disk, OpenOptions};
use devices::pci::lpc::Lpc;
use devices::pci::{PciAddress, Pin};
use devices::virtio::blk::{Blk, BlkOptions, OnDiskError};
use devices::virtio::console::{Console, OnPort, PortOptions};
use devices::virtio::scsi::OnEject;
use devices::virtio::{
    DiskHandle, IoThread, Rng, Scsi, ScsiDiskOptions, ScsiKind, ScsiOptions, VirtioDevice,
    VirtioPci, VirtioPciOptions,
};
use devices::{GuestMemory, MsiSink};

use super::BoardError;
use super::slots::{self, DiskPlace};
use crate::config::{DiskBus, DiskConfig, DiskKind, DiskSource, ErrorPolicy, MachineConfig};

/// What the virtio devices are built from.
pub(super) struct VirtioSetup<'a> {
    pub(super) config: &'a MachineConfig,
    pub(super) memory: GuestMemory,
    pub(super) msi: Arc<dyn MsiSink>,
    pub(super) on_disk_error: OnDiskError,
    pub(super) on_eject: OnEject,
    pub(super) on_port: OnPort,
}

/// The virtio devices of a machine.
pub(super) struct VirtioDevices {
    /// Each with its slot.
    pub(super) functions: Vec<(u8, Arc<VirtioPci>)>,
    /// In the order of the configuration.
    pub(super) disks: Vec<DiskHandle>,
}

/// Makes every virtio device.
pub(super) fn build(setup: &VirtioSetup<'_>, lpc: &Arc<Lpc>) -> Result<VirtioDevices, BoardError> {
    let mut functions = Vec::new();
    let mut add = |slot: u8, name: &str, device: Arc<dyn VirtioDevice>| {
        let at = PciAddress::new(slot, 0).expect("disks are fewer than slots");
        let options = VirtioPciOptions {
            name: name.to_owned(),
            memory: setup.memory.clone(),
            msi: Arc::clone(&setup.msi),
            line: lpc.line(at, Pin::A),
        };
        functions.push((slot, VirtioPci::new(device, options)?));
        Ok::<(), BoardError>(())
    };
    if setup.config.rng {
        add(slots::RNG, "rng", Arc::new(Rng))?;
    }
    if !setup.config.console_ports.is_empty() {
        let console = Console::new(None, &ports(setup))?;
        add(slots::CONSOLE, "console", Arc::new(console))?;
    }
    let threads = io_threads(setup.config)?;
    let scsi = scsi(setup.config, &threads)?;
    let mut disks = Vec::new();
    let places = slots::disk_places(&setup.config.disks);
    for (index, (config, place)) in setup.config.disks.iter().zip(places).enumerate() {
        let medium = open_medium(config).map_err(|source| BoardError::Disk {
            index,
            name: config.name.clone(),
            source: Box::new(source),
        })?;
        match (place, &scsi, medium) {
            (DiskPlace::Target(target), Some(scsi), medium) => {
                disks.push(scsi.plug(target, medium, &scsi_options(config, setup))?);
            }
            (DiskPlace::Slot(slot), _, Some(disk)) => {
                let blk = Blk::new(&disk, blk_options(config, setup, &threads));
                disks.push(blk.handle());
                add(slot, &format!("disk-{}", config.name), Arc::new(blk))?;
            }
            _ => unreachable!("the configuration was validated"),
        }
    }
    if let Some(scsi) = scsi {
        add(slots::SCSI, "scsi", Arc::new(scsi))?;
    }
    Ok(VirtioDevices { functions, disks })
}

/// Starts the threads that disks share.
fn io_threads(config: &MachineConfig) -> Result<BTreeMap<u16, Arc<IoThread>>, BoardError> {
    let mut threads = BTreeMap::new();
    for number in config.disks.iter().filter_map(|disk| disk.io_thread) {
        if let std::collections::btree_map::Entry::Vacant(place) = threads.entry(number) {
            let thread = IoThread::new(&format!("io-{number}"));
            place.insert(thread.map_err(BoardError::IoThread)?);
        }
    }
    Ok(threads)
}

/// Makes the SCSI controller if a disk needs it, on the thread of the first such disk that names one.
fn scsi(
    config: &MachineConfig,
    threads: &BTreeMap<u16, Arc<IoThread>>,
) -> Result<Option<Scsi>, BoardError> {
    let disks = || {
        let disks = config.disks.iter();
        disks.filter(|disk| disk.bus == DiskBus::VirtioScsi)
    };
    let Some(queues) = disks().map(|disk| disk.queues).max() else {
        return Ok(None);
    };
    let options = ScsiOptions {
        queues,
        thread: disks()
            .find_map(|disk| threads.get(&disk.io_thread?))
            .cloned(),
        ..ScsiOptions::default()
    };
    Ok(Some(Scsi::new(&options)?))
}

fn policy(policy: ErrorPolicy) -> devices::virtio::ErrorPolicy {
    use devices::virtio::ErrorPolicy as Device;
    match policy {
        ErrorPolicy::Report => Device::Report,
        ErrorPolicy::Stop => Device::Stop,
        ErrorPolicy::Ignore => Device::Ignore,
        ErrorPolicy::StopOnEnospc => Device::StopOnEnospc,
    }
}

fn scsi_options(config: &DiskConfig, setup: &VirtioSetup<'_>) -> ScsiDiskOptions {
    let kind = match config.kind {
        DiskKind::Cdrom => ScsiKind::Cdrom,
        DiskKind::Disk | DiskKind::Lun => ScsiKind::Disk,
    };
    let is_disk = kind == ScsiKind::Disk;
    ScsiDiskOptions {
        serial: config.serial.clone().unwrap_or_default(),
        logical_block_bytes: is_disk.then_some(config.logical_block_bytes),
        physical_block_bytes: is_disk.then_some(config.physical_block_bytes),
        discard: config.discard,
        policy: policy(config.error_policy),
        on_error: Arc::clone(&setup.on_disk_error),
        on_eject: Arc::clone(&setup.on_eject),
        ..ScsiDiskOptions::new(&config.name, kind)
    }
}

fn blk_options(
    config: &DiskConfig,
    setup: &VirtioSetup<'_>,
    threads: &BTreeMap<u16, Arc<IoThread>>,
) -> BlkOptions {
    let thread = config.io_thread.and_then(|number| threads.get(&number));
    BlkOptions {
        serial: config.serial.clone().unwrap_or_default(),
        queues: config.queues,
        logical_block_bytes: Some(config.logical_block_bytes),
        physical_block_bytes: Some(config.physical_block_bytes),
        discard: config.discard,
        thread: thread.cloned(),
        policy: policy(config.error_policy),
        on_error: Arc::clone(&setup.on_disk_error),
        ..BlkOptions::new(&config.name)
    }
}

fn ports(setup: &VirtioSetup<'_>) -> Vec<PortOptions> {
    let ports = setup.config.console_ports.iter();
    ports
        .map(|port| PortOptions {
            on_port: Arc::clone(&setup.on_port),
            ..PortOptions::new(&port.name, &port.socket)
        })
        .collect()
}

/// Opens what is in a disk, or nothing for a drive without medium.
///
/// # Errors
/// If an image cannot be used.
pub(crate) fn open_medium(config: &DiskConfig) -> Result<Option<Arc<dyn Disk>>, block::OpenError> {
    let options = |format, read_only, follow_backing| OpenOptions {
        format,
        read_only: read_only || config.kind == DiskKind::Cdrom,
        follow_backing,
        cache: config.cache,
    };
    let disk = match &config.source {
        DiskSource::Image {
            path,
            format,
            follow_backing,
        } => block::open(path, &options(*format, config.read_only, *follow_backing))?,
        DiskSource::Overlay {
            base,
            base_format,
            overlay,
        } => {
            let base = block::open(base, &options(*base_format, true, false))?;
            block::open_or_create_overlay(base, overlay, None, config.cache)?
        }
        DiskSource::Empty => return Ok(None),
    };
    Ok(Some(disk))
}
