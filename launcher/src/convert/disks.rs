//! Disks: which device a guest sees, and how its requests reach the host.

use api::devices::{BlockSize, Disk};
use api::domain::DomainSpec;
use api::{FieldError, FieldPath};
use block::CacheMode;
use vmm::config::{DiskBus, DiskConfig, DiskKind, DiskSource, ErrorPolicy, IoMode};

use super::io_threads::IoThreads;
use crate::support::Remarks;
use crate::volumes::{Medium, ResolvedDisk, ResolvedVolumes, is_read_only};

/// Longest serial number that virtio can tell (virtio 1.3 §5.2.6, `VIRTIO_BLK_T_GET_ID`).
const MAX_SERIAL_LEN: usize = 20;
/// Block sizes of a disk whose manifest says nothing, bytes.
const DEFAULT_BLOCK_BYTES: (u32, u32) = (512, 512);

/// Turns an instance's disks into a machine's.
pub(super) fn configs(
    domain: &DomainSpec,
    vcpus: u32,
    volumes: &ResolvedVolumes,
    remarks: &mut Remarks,
) -> Result<Vec<DiskConfig>, Vec<FieldError>> {
    let mut threads = IoThreads::new(domain, vcpus);
    let mut configs = Vec::new();
    let mut errors = Vec::new();
    for (index, disk) in domain.devices.disks.iter().enumerate() {
        let path = FieldPath::new("spec.domain.devices.disks").index(index);
        let queues = queues(domain, vcpus);
        match config(disk, &path, queues, volumes, remarks) {
            Ok(config) => configs.push(DiskConfig {
                io_thread: threads.of(disk),
                ..config
            }),
            Err(error) => errors.push(error),
        }
    }
    if errors.is_empty() {
        Ok(configs)
    } else {
        Err(errors)
    }
}

fn config(
    disk: &Disk,
    path: &FieldPath,
    queues: u16,
    volumes: &ResolvedVolumes,
    remarks: &mut Remarks,
) -> Result<DiskConfig, FieldError> {
    let volume = volumes.disks.get(&disk.name).ok_or_else(|| {
        let text = "its volume was not prepared: remove the disk";
        FieldError::new(path.child("name"), text)
    })?;
    let (kind, bus) = target(disk, path, remarks)?;
    let (logical_block_bytes, physical_block_bytes) =
        block_bytes(disk, volume.medium, path, remarks);
    let read_only = volume.read_only || is_read_only(disk);
    Ok(DiskConfig {
        name: disk.name.clone(),
        bus,
        kind,
        source: if is_open(disk) {
            DiskSource::Empty
        } else {
            volume.source.clone()
        },
        read_only,
        serial: serial(&disk.serial, path, remarks),
        queues,
        logical_block_bytes,
        physical_block_bytes,
        cache: cache(disk, volume, path)?,
        io: io(disk, volume.medium),
        discard: !read_only && !volume.medium.preallocated,
        error_policy: error_policy(disk),
        io_thread: None,
        boot_order: disk.boot_order,
    })
}

fn queues(domain: &DomainSpec, vcpus: u32) -> u16 {
    if domain.devices.block_multi_queue.unwrap_or(false) {
        u16::try_from(vcpus).unwrap_or(u16::MAX)
    } else {
        1
    }
}

/// What the guest sees. Disks are SCSI disks unless they ask for virtio: as on a SATA controller, which is
/// the default elsewhere, they are called `sda` and so on in the guest.
fn target(
    disk: &Disk,
    path: &FieldPath,
    remarks: &mut Remarks,
) -> Result<(DiskKind, DiskBus), FieldError> {
    let (kind, name, bus) = if let Some(lun) = &disk.lun {
        if lun.reservation.unwrap_or(false) {
            let text = "persistent reservations are not supported yet: remove it";
            return Err(FieldError::new(path.child("lun.reservation"), text));
        }
        (DiskKind::Lun, "lun", lun.bus.as_str())
    } else if let Some(cdrom) = &disk.cdrom {
        (DiskKind::Cdrom, "cdrom", cdrom.bus.as_str())
    } else {
        let bus = disk.disk.as_ref().map_or("", |disk| disk.bus.as_str());
        (DiskKind::Disk, "disk", bus)
    };
    if !matches!(bus, "" | "virtio" | "scsi") {
        remarks.warnings.push(FieldError::new(
            path.child(name).child("bus"),
            format!("bus {bus} is not supported yet: the guest gets a virtio SCSI device"),
        ));
    }
    let bus = match (kind, bus) {
        (DiskKind::Disk, "virtio") => DiskBus::VirtioBlk,
        _ => DiskBus::VirtioScsi,
    };
    Ok((kind, bus))
}

/// Whether the tray is open: the medium is beside the drive.
fn is_open(disk: &Disk) -> bool {
    disk.cdrom
        .as_ref()
        .is_some_and(|cdrom| cdrom.tray == "open")
}

fn serial(serial: &str, path: &FieldPath, remarks: &mut Remarks) -> Option<String> {
    if serial.len() > MAX_SERIAL_LEN {
        remarks.warnings.push(FieldError::new(
            path.child("serial"),
            format!("guests are told the first {MAX_SERIAL_LEN} bytes only: shorten it"),
        ));
    }
    // Validation has left nothing but ASCII.
    let end = serial.len().min(MAX_SERIAL_LEN);
    (!serial.is_empty()).then(|| serial[..end].to_owned())
}

/// Unset, data go past the page cache where they can, else every write is flushed. What an overlay
/// takes dies with it, and what is below never changes: the page cache serves both best.
fn cache(disk: &Disk, volume: &ResolvedDisk, path: &FieldPath) -> Result<CacheMode, FieldError> {
    let shareable = disk.shareable.unwrap_or(false);
    match disk.cache.as_str() {
        "none" => Ok(CacheMode::None),
        _ if shareable && !disk.cache.is_empty() => {
            let text = "a shareable disk goes past the page cache of its node: use none";
            Err(FieldError::new(path.child("cache"), text))
        }
        "writethrough" => Ok(CacheMode::Writethrough),
        "writeback" => Ok(CacheMode::Writeback),
        _ if shareable => Ok(CacheMode::None),
        _ => Ok(match (&volume.source, volume.medium.direct_io) {
            (DiskSource::Overlay { .. } | DiskSource::Empty, _) => CacheMode::Writeback,
            (DiskSource::Image { .. }, true) => CacheMode::None,
            (DiskSource::Image { .. }, false) => CacheMode::Writethrough,
        }),
    }
}

/// The host's native interface, if it is asked for or a write never has to find room first.
fn io(disk: &Disk, medium: Medium) -> IoMode {
    match disk.io.as_str() {
        "native" => IoMode::Native,
        "threads" => IoMode::Threads,
        _ if medium.preallocated && medium.direct_io => IoMode::Native,
        _ => IoMode::Threads,
    }
}

fn error_policy(disk: &Disk) -> ErrorPolicy {
    match disk.error_policy.as_deref() {
        Some("report") => ErrorPolicy::Report,
        Some("ignore") => ErrorPolicy::Ignore,
        Some("enospace") => ErrorPolicy::StopOnEnospc,
        _ => ErrorPolicy::Stop,
    }
}

/// Logical and physical block size.
fn block_bytes(disk: &Disk, medium: Medium, path: &FieldPath, remarks: &mut Remarks) -> (u32, u32) {
    let Some(BlockSize {
        custom,
        match_volume,
    }) = &disk.block_size
    else {
        return DEFAULT_BLOCK_BYTES;
    };
    if let Some(custom) = custom {
        let logical = custom.logical.unwrap_or(DEFAULT_BLOCK_BYTES.0);
        return (logical, custom.physical.unwrap_or(logical));
    }
    let matches = match_volume.as_ref();
    if !matches.is_some_and(|matches| matches.enabled.unwrap_or(true)) {
        return DEFAULT_BLOCK_BYTES;
    }
    match medium.block_bytes {
        Some((logical, physical)) if is_usable(logical, physical) => (logical, physical),
        _ => {
            let text = "the volume's block size is unknown or none that a guest could use: the guest sees 512 bytes";
            let field = path.child("blockSize.matchVolume");
            remarks.warnings.push(FieldError::new(field, text));
            DEFAULT_BLOCK_BYTES
        }
    }
}

fn is_usable(logical: u32, physical: u32) -> bool {
    matches!(logical, 512 | 4096)
        && physical.is_power_of_two()
        && (logical..=2 << 20).contains(&physical)
}
