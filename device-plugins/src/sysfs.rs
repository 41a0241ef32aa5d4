//! Small files and links of sysfs.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Most bytes of an attribute that are read: sysfs gives a page.
const ATTRIBUTE_LEN_MAX: u64 = 4096;
/// Most entries of a folder that are looked at.
const ENTRIES_MAX: usize = 65_536;

/// Reads an attribute without the white space around it; none where it is not to be had.
pub(crate) fn attribute(folder: &Path, name: &str) -> Option<String> {
    let file = fs::File::open(folder.join(name)).ok()?;
    let mut bytes = Vec::new();
    file.take(ATTRIBUTE_LEN_MAX).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).trim().to_owned())
}

/// Reads a hexadecimal attribute of 16 bits, with or without `0x`.
pub(crate) fn hex(folder: &Path, name: &str) -> Option<u16> {
    u16::try_from(hex_u32(folder, name)?).ok()
}

/// Reads a hexadecimal attribute, with or without `0x`.
pub(crate) fn hex_u32(folder: &Path, name: &str) -> Option<u32> {
    let text = attribute(folder, name)?;
    u32::from_str_radix(text.strip_prefix("0x").unwrap_or(&text), 16).ok()
}

/// The NUMA node of a device; none where the host has none or says -1.
pub(crate) fn numa_node(folder: &Path) -> Option<u32> {
    attribute(folder, "numa_node")?.parse().ok()
}

/// The last part of where a link leads: the name of the driver for `driver`, the group's number for `iommu_group`.
pub(crate) fn link_name(folder: &Path, name: &str) -> Option<String> {
    let target = fs::read_link(folder.join(name)).ok()?;
    Some(target.file_name()?.to_string_lossy().into_owned())
}

/// The entries of a folder in the order of their names; none where it is not to be had.
pub(crate) fn entries(folder: &Path) -> Vec<PathBuf> {
    let found = fs::read_dir(folder).into_iter().flatten();
    let mut paths: Vec<PathBuf> = found
        .filter_map(|entry| Some(entry.ok()?.path()))
        .take(ENTRIES_MAX)
        .collect();
    paths.sort();
    paths
}
