//! Arguments with a syntax of their own.

use std::path::PathBuf;
use std::str::FromStr;

use block::{CacheMode, Format};

use crate::config::{DiskBus, DiskConfig, DiskKind, DiskSource, ErrorPolicy, IoMode};

/// Reads a size: a number with K, M, G or T for powers of 1024.
pub(super) fn size(text: &str) -> Result<u64, String> {
    let (digits, shift) = match text.char_indices().last() {
        Some((at, 'K' | 'k')) => (&text[..at], 10),
        Some((at, 'M' | 'm')) => (&text[..at], 20),
        Some((at, 'G' | 'g')) => (&text[..at], 30),
        Some((at, 'T' | 't')) => (&text[..at], 40),
        _ => (text, 0),
    };
    digits
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(1 << shift))
        .ok_or_else(|| "give a number with K, M, G or T, for example 256M".to_owned())
}

/// A disk on the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct DiskArgument {
    path: PathBuf,
    read_only: bool,
    format: Option<Format>,
    serial: Option<String>,
    queues: u16,
    cache: CacheMode,
    follow_backing: bool,
    bus: DiskBus,
    kind: DiskKind,
    discard: bool,
    errors: ErrorPolicy,
    block_bytes: u32,
    boot_order: Option<u32>,
}

fn switch(value: &str) -> Result<bool, String> {
    match value {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err(format!("{value:?} is neither on nor off")),
    }
}

/// Returns what `value` stands for among `choices`.
fn one_of<T: Copy>(name: &str, value: &str, choices: &[(&str, T)]) -> Result<T, String> {
    let found = choices.iter().find(|(choice, _)| *choice == value);
    found.map(|(_, meaning)| *meaning).ok_or_else(|| {
        let choices: Vec<&str> = choices.iter().map(|(choice, _)| *choice).collect();
        format!("{name}={value}: give {}", choices.join(" or "))
    })
}

impl FromStr for DiskArgument {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = text.split(',');
        let path = parts.next().filter(|path| !path.is_empty());
        let mut disk = Self {
            path: PathBuf::from(path.ok_or("the path is missing")?),
            read_only: false,
            format: None,
            serial: None,
            queues: 1,
            cache: CacheMode::default(),
            follow_backing: false,
            bus: DiskBus::default(),
            kind: DiskKind::default(),
            discard: true,
            errors: ErrorPolicy::default(),
            block_bytes: 512,
            boot_order: None,
        };
        for part in parts {
            let (name, value) = part
                .split_once('=')
                .ok_or_else(|| format!("{part:?} is no option=value"))?;
            disk.set(name, value)?;
        }
        if disk.kind == DiskKind::Cdrom && disk.bus != DiskBus::VirtioScsi {
            return Err("kind=cdrom: give bus=scsi too".to_owned());
        }
        Ok(disk)
    }
}

impl DiskArgument {
    fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        match name {
            "readonly" => self.read_only = switch(value)?,
            "backing" => self.follow_backing = switch(value)?,
            "serial" => self.serial = Some(value.to_owned()),
            "queues" => {
                self.queues = value
                    .parse()
                    .map_err(|_| format!("queues={value}: give a number"))?;
            }
            "format" => {
                let formats = [("raw", Format::Raw), ("qcow2", Format::Qcow2)];
                self.format = Some(one_of(name, value, &formats)?);
            }
            "cache" => {
                let modes = [
                    ("writeback", CacheMode::Writeback),
                    ("writethrough", CacheMode::Writethrough),
                    ("none", CacheMode::None),
                ];
                self.cache = one_of(name, value, &modes)?;
            }
            "bus" => {
                let buses = [
                    ("virtio", DiskBus::VirtioBlk),
                    ("scsi", DiskBus::VirtioScsi),
                ];
                self.bus = one_of(name, value, &buses)?;
            }
            "kind" => {
                let kinds = [("disk", DiskKind::Disk), ("cdrom", DiskKind::Cdrom)];
                self.kind = one_of(name, value, &kinds)?;
            }
            "discard" => self.discard = switch(value)?,
            "errors" => {
                let policies = [
                    ("report", ErrorPolicy::Report),
                    ("stop", ErrorPolicy::Stop),
                    ("ignore", ErrorPolicy::Ignore),
                    ("enospc", ErrorPolicy::StopOnEnospc),
                ];
                self.errors = one_of(name, value, &policies)?;
            }
            "block-size" => {
                self.block_bytes = one_of(name, value, &[("512", 512), ("4096", 4096)])?;
            }
            "boot" => {
                let order = value.parse();
                self.boot_order = Some(order.map_err(|_| format!("boot={value}: give a number"))?);
            }
            _ => {
                return Err(format!(
                    "option {name:?} is unknown: give readonly, format, serial, queues, cache, backing, bus, kind, \
                     discard, errors, block-size or boot"
                ));
            }
        }
        Ok(())
    }

    /// Returns the disk as part of a machine.
    pub(super) fn config(self, index: usize) -> DiskConfig {
        DiskConfig {
            name: format!("disk{index}"),
            bus: self.bus,
            kind: self.kind,
            source: DiskSource::Image {
                path: self.path,
                format: self.format,
                follow_backing: self.follow_backing,
            },
            read_only: self.read_only,
            serial: self.serial,
            queues: self.queues,
            logical_block_bytes: self.block_bytes,
            physical_block_bytes: self.block_bytes,
            cache: self.cache,
            io: IoMode::Threads,
            discard: self.discard,
            error_policy: self.errors,
            io_thread: None,
            boot_order: self.boot_order,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_binary_units() {
        assert_eq!(size("256M"), Ok(256 << 20));
        assert_eq!(size("4096"), Ok(4096));
        assert_eq!(size("1T"), Ok(1 << 40));
        for wrong in ["", "M", "-1M", "1X", "99999999999T"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_disk_has_a_path_and_options() {
        let disk: DiskArgument = "/d.img,readonly=on,format=qcow2,serial=abc"
            .parse()
            .unwrap();
        assert!(disk.read_only);
        assert_eq!(disk.format, Some(Format::Qcow2));
        let config = disk.config(1);
        assert_eq!(
            (config.name.as_str(), config.serial.as_deref()),
            ("disk1", Some("abc"))
        );
    }

    #[test]
    fn a_disk_has_a_bus_a_kind_and_a_policy() {
        let disk: DiskArgument =
            "/d,bus=scsi,kind=cdrom,discard=off,errors=enospc,block-size=4096,boot=2"
                .parse()
                .unwrap();
        let config = disk.config(0);
        assert_eq!(
            (config.bus, config.kind),
            (DiskBus::VirtioScsi, DiskKind::Cdrom)
        );
        assert_eq!(config.error_policy, ErrorPolicy::StopOnEnospc);
        assert_eq!(
            (config.logical_block_bytes, config.boot_order),
            (4096, Some(2))
        );
        assert!(!config.discard);
    }

    #[test]
    fn wrong_disk_options_are_refused() {
        for wrong in [
            "",
            ",readonly=on",
            "/d,readonly",
            "/d,readonly=yes",
            "/d,format=vmdk",
            "/d,x=y",
            "/d,bus=ide",
            "/d,kind=cdrom",
            "/d,errors=never",
            "/d,block-size=520",
        ] {
            assert!(wrong.parse::<DiskArgument>().is_err(), "{wrong}");
        }
    }
}
