//! The virtio devices of a board.

use std::sync::Arc;

use block::{Disk, OpenOptions};
use devices::pci::lpc::Lpc;
use devices::pci::{PciAddress, Pin};
use devices::virtio::blk::{Blk, BlkOptions, OnDiskError};
use devices::virtio::console::{Console, PortOptions};
use devices::virtio::{Rng, VirtioDevice, VirtioPci, VirtioPciOptions};
use devices::{GuestMemory, MsiSink};

use super::BoardError;
use crate::config::{DiskConfig, DiskSource, MachineConfig};

const SLOT_RNG: u8 = 1;
const SLOT_CONSOLE: u8 = 2;
/// Disks follow from here on, in the order of the configuration.
const SLOT_FIRST_DISK: u8 = 3;

/// What the virtio devices are built from.
pub(super) struct VirtioSetup<'a> {
    pub(super) config: &'a MachineConfig,
    pub(super) memory: GuestMemory,
    pub(super) msi: Arc<dyn MsiSink>,
    pub(super) on_disk_error: OnDiskError,
}

/// Makes every virtio device; returns each with its slot.
pub(super) fn build(
    setup: &VirtioSetup<'_>,
    lpc: &Arc<Lpc>,
) -> Result<Vec<(u8, Arc<VirtioPci>)>, BoardError> {
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
        add(SLOT_RNG, "rng", Arc::new(Rng))?;
    }
    if !setup.config.console_ports.is_empty() {
        let console = Console::new(None, &ports(setup.config))?;
        add(SLOT_CONSOLE, "console", Arc::new(console))?;
    }
    for (index, config) in setup.config.disks.iter().enumerate() {
        let disk = open(config).map_err(|source| BoardError::Disk {
            index,
            name: config.name.clone(),
            source: Box::new(source),
        })?;
        let options = BlkOptions {
            serial: config.serial.clone().unwrap_or_default(),
            queues: config.queues,
            on_error: Arc::clone(&setup.on_disk_error),
            ..BlkOptions::new(&config.name)
        };
        let slot = SLOT_FIRST_DISK + u8::try_from(index).unwrap_or(u8::MAX - SLOT_FIRST_DISK);
        let name = format!("disk-{}", config.name);
        add(slot, &name, Arc::new(Blk::new(&disk, options)))?;
    }
    Ok(functions)
}

fn ports(config: &MachineConfig) -> Vec<PortOptions> {
    let ports = config.console_ports.iter();
    ports
        .map(|port| PortOptions {
            name: port.name.clone(),
            socket: port.socket.clone(),
        })
        .collect()
}

fn open(config: &DiskConfig) -> Result<Arc<dyn Disk>, block::OpenError> {
    let options = |format, read_only, follow_backing| OpenOptions {
        format,
        read_only,
        follow_backing,
        cache: config.cache,
    };
    match &config.source {
        DiskSource::Image {
            path,
            format,
            follow_backing,
        } => block::open(path, &options(*format, config.read_only, *follow_backing)),
        DiskSource::Overlay {
            base,
            base_format,
            overlay,
        } => {
            let base = block::open(base, &options(*base_format, true, false))?;
            block::overlay(base, overlay, None)
        }
        DiskSource::Empty => Err(block::OpenError::NotADisk {
            path: std::path::PathBuf::new(),
        }),
    }
}
