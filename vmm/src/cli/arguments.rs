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
}

fn switch(value: &str) -> Result<bool, String> {
    match value {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err(format!("{value:?} is neither on nor off")),
    }
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
        };
        for part in parts {
            let (name, value) = part
                .split_once('=')
                .ok_or_else(|| format!("{part:?} is no option=value"))?;
            disk.set(name, value)?;
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
                self.format = Some(match value {
                    "raw" => Format::Raw,
                    "qcow2" => Format::Qcow2,
                    _ => return Err(format!("format={value}: give raw or qcow2")),
                });
            }
            "cache" => {
                self.cache = match value {
                    "writeback" => CacheMode::Writeback,
                    "writethrough" => CacheMode::Writethrough,
                    "none" => CacheMode::None,
                    _ => {
                        return Err(format!(
                            "cache={value}: give writeback, writethrough or none"
                        ));
                    }
                };
            }
            _ => {
                return Err(format!(
                    "option {name:?} is unknown: give readonly, format, serial, queues, cache or backing"
                ));
            }
        }
        Ok(())
    }

    /// Returns the disk as part of a machine.
    pub(super) fn config(self, index: usize) -> DiskConfig {
        DiskConfig {
            name: format!("disk{index}"),
            bus: DiskBus::VirtioBlk,
            kind: DiskKind::Disk,
            source: DiskSource::Image {
                path: self.path,
                format: self.format,
                follow_backing: self.follow_backing,
            },
            read_only: self.read_only,
            serial: self.serial,
            queues: self.queues,
            logical_block_bytes: 512,
            physical_block_bytes: 512,
            cache: self.cache,
            io: IoMode::Threads,
            discard: true,
            error_policy: ErrorPolicy::Report,
            io_thread: None,
            boot_order: None,
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
    fn wrong_disk_options_are_refused() {
        for wrong in [
            "",
            ",readonly=on",
            "/d,readonly",
            "/d,readonly=yes",
            "/d,format=vmdk",
            "/d,x=y",
        ] {
            assert!(wrong.parse::<DiskArgument>().is_err(), "{wrong}");
        }
    }
}
