//! Checks of a configuration: every refusal names the field and the cure.

use std::collections::HashSet;

use super::{
    BootSource, CpuConfig, DiskBus, DiskConfig, DiskKind, DiskSource, MachineConfig, MemoryConfig,
};

/// Most vCPUs of a machine: as many as the platform's tables and tests cover.
pub(super) const CPUS_MAX: u32 = 64;
/// Least RAM that the loaders and tables fit in, in bytes.
pub(super) const MEMORY_MIN_BYTES: u64 = 16 << 20;
/// Most RAM that the address map has room for, in bytes.
pub(super) const MEMORY_MAX_BYTES: u64 = 1 << 40;
/// Most disks: slots that the PCI bus has left beside the machine's own functions.
pub(super) const DISKS_MAX: usize = 24;
/// Most named console ports: what one virtio console offers.
pub(super) const CONSOLE_PORTS_MAX: usize = 15;
/// Longest serial number of a virtio block device (virtio 1.3 §5.2.6).
pub(super) const DISK_SERIAL_MAX: usize = 20;
/// Longest serial number of a SCSI disk: what fits beside the rest of its device identification page.
pub(super) const SCSI_SERIAL_MAX: usize = 36;
/// Most request queues of a disk: more never helped any guest of 64 CPUs.
pub(super) const DISK_QUEUES_MAX: u16 = 64;

/// A field whose value a machine cannot have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("use {field}: {problem}; {cure}")]
pub struct ConfigError {
    /// The field, as a path from the configuration's root.
    pub field: String,
    /// What is wrong with its value.
    pub problem: String,
    /// What to do about it.
    pub cure: String,
}

fn refuse(
    field: impl Into<String>,
    problem: impl Into<String>,
    cure: impl Into<String>,
) -> ConfigError {
    ConfigError {
        field: field.into(),
        problem: problem.into(),
        cure: cure.into(),
    }
}

impl MachineConfig {
    /// Checks every field that can be checked without touching the host.
    ///
    /// # Errors
    /// The first field that is wrong, with the cure.
    pub fn validate(&self) -> Result<(), ConfigError> {
        self.cpus.validate()?;
        self.memory.validate()?;
        self.boot.validate()?;
        self.validate_disks()?;
        self.validate_console_ports()?;
        self.validate_smbios()
    }

    fn validate_disks(&self) -> Result<(), ConfigError> {
        if self.disks.len() > DISKS_MAX {
            let problem = format!("{} disks", self.disks.len());
            return Err(refuse(
                "disks",
                problem,
                format!("give at most {DISKS_MAX}"),
            ));
        }
        let mut names = HashSet::new();
        for (index, disk) in self.disks.iter().enumerate() {
            disk.validate(index)?;
            if !names.insert(&disk.name) {
                let problem = format!("{:?} names two disks", disk.name);
                return Err(refuse(
                    format!("disks[{index}].name"),
                    problem,
                    "give each its own name",
                ));
            }
        }
        Ok(())
    }

    fn validate_console_ports(&self) -> Result<(), ConfigError> {
        if self.console_ports.len() > CONSOLE_PORTS_MAX {
            let cure = format!("give at most {CONSOLE_PORTS_MAX}");
            return Err(refuse("console_ports", "too many ports", cure));
        }
        let mut names = HashSet::new();
        for (index, port) in self.console_ports.iter().enumerate() {
            if port.name.is_empty() || !names.insert(&port.name) {
                let field = format!("console_ports[{index}].name");
                let problem = format!("{:?} is empty or taken", port.name);
                return Err(refuse(field, problem, "give each port its own name"));
            }
        }
        Ok(())
    }

    fn validate_smbios(&self) -> Result<(), ConfigError> {
        let s = &self.smbios;
        let named = [
            ("manufacturer", &s.manufacturer),
            ("product", &s.product),
            ("version", &s.version),
            ("serial", &s.serial),
            ("sku", &s.sku),
            ("family", &s.family),
        ];
        let chassis = s.chassis.iter().map(|text| ("chassis", text));
        let oem = s.oem.iter().map(|text| ("oem", text));
        for (name, text) in named.into_iter().chain(chassis).chain(oem) {
            if text.contains('\0') || text.len() > 4096 {
                let problem = "a NUL byte, or more than 4096 bytes";
                return Err(refuse(
                    format!("smbios.{name}"),
                    problem,
                    "shorten the text or remove the byte",
                ));
            }
        }
        Ok(())
    }
}

impl CpuConfig {
    /// Returns the number of vCPUs.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.sockets
            .saturating_mul(self.cores)
            .saturating_mul(self.threads)
    }

    fn validate(&self) -> Result<(), ConfigError> {
        if (1..=CPUS_MAX).contains(&self.count()) {
            return Ok(());
        }
        let problem = format!(
            "{} sockets of {} cores of {} threads make {} vCPUs",
            self.sockets,
            self.cores,
            self.threads,
            self.count()
        );
        Err(refuse(
            "cpus",
            problem,
            format!("choose numbers whose product is 1 to {CPUS_MAX}"),
        ))
    }
}

impl MemoryConfig {
    fn validate(&self) -> Result<(), ConfigError> {
        let field = "memory.len_bytes";
        let len = self.len_bytes;
        if len < MEMORY_MIN_BYTES {
            let cure = format!("give at least {} MiB", MEMORY_MIN_BYTES >> 20);
            return Err(refuse(field, format!("{len} bytes are too few"), cure));
        }
        if len > MEMORY_MAX_BYTES {
            let cure = format!("give at most {} GiB", MEMORY_MAX_BYTES >> 30);
            return Err(refuse(field, format!("{len} bytes are too many"), cure));
        }
        if !len.is_multiple_of(1 << 20) {
            let problem = format!("{len} bytes are not whole mebibytes");
            return Err(refuse(field, problem, "round to a multiple of 1 MiB"));
        }
        match self.hugepage_bytes {
            Some(size) if !size.is_power_of_two() || !(2 << 20..=1 << 30).contains(&size) => {
                let problem = format!("{size} is no huge page size");
                Err(refuse(
                    "memory.hugepage_bytes",
                    problem,
                    "give 2 MiB or 1 GiB",
                ))
            }
            Some(size) if !len.is_multiple_of(size) => {
                let problem = format!("{len} bytes are not whole pages of {size} bytes");
                Err(refuse(field, problem, "round to a multiple of the page"))
            }
            _ => Ok(()),
        }
    }
}

impl BootSource {
    fn validate(&self) -> Result<(), ConfigError> {
        match self {
            Self::Kernel { cmdline, .. } if cmdline.contains('\0') => Err(refuse(
                "boot.cmdline",
                "it holds a NUL byte",
                "remove the byte",
            )),
            Self::Kernel { .. } | Self::Firmware { .. } => Ok(()),
        }
    }
}

impl DiskConfig {
    fn validate_kind(&self, index: usize) -> Result<(), ConfigError> {
        if self.kind != DiskKind::Disk && self.bus != DiskBus::VirtioScsi {
            let problem = format!("{:?} is no kind of virtio block device", self.kind);
            let cure = "put it on the bus VirtioScsi";
            return Err(refuse(format!("disks[{index}].kind"), problem, cure));
        }
        if self.source == DiskSource::Empty && self.kind != DiskKind::Cdrom {
            let field = format!("disks[{index}].source");
            return Err(refuse(
                field,
                "only a CD-ROM drive can be empty",
                "give an image",
            ));
        }
        Ok(())
    }

    fn validate(&self, index: usize) -> Result<(), ConfigError> {
        let field = |name: &str| format!("disks[{index}].{name}");
        self.validate_kind(index)?;
        let most = match self.bus {
            DiskBus::VirtioBlk => DISK_SERIAL_MAX,
            DiskBus::VirtioScsi => SCSI_SERIAL_MAX,
        };
        if let Some(serial) = self.serial.as_ref().filter(|s| s.len() > most) {
            let cure = format!("give at most {most} bytes");
            return Err(refuse(
                field("serial"),
                format!("{serial:?} is too long"),
                cure,
            ));
        }
        if !(1..=DISK_QUEUES_MAX).contains(&self.queues) {
            let problem = format!("{} request queues", self.queues);
            return Err(refuse(
                field("queues"),
                problem,
                format!("give 1 to {DISK_QUEUES_MAX}"),
            ));
        }
        if ![512, 4096].contains(&self.logical_block_bytes) {
            let problem = format!("{} bytes", self.logical_block_bytes);
            return Err(refuse(
                field("logical_block_bytes"),
                problem,
                "give 512 or 4096",
            ));
        }
        let physical = self.physical_block_bytes;
        if !physical.is_power_of_two() || physical < self.logical_block_bytes || physical > 2 << 20
        {
            let problem = format!("{physical} bytes");
            return Err(refuse(
                field("physical_block_bytes"),
                problem,
                "give a power of two from the logical block size to 2 MiB",
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
