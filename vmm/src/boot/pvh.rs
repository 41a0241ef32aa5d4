//! The start information of the PVH boot protocol (Xen `public/arch-x86/hvm/start_info.h`).

use super::e820::E820Entry;
use crate::memory::{MemoryError, Ram};

const INFO_GPA: u64 = 0x6000;
const MODULES_GPA: u64 = 0x6100;
const MAP_GPA: u64 = 0x6200;
const MAGIC: u32 = 0x336e_c578;
const VERSION: u32 = 1;

/// What the start information tells.
pub(super) struct Info<'a> {
    pub(super) cmdline_gpa: u64,
    pub(super) rsdp_gpa: u64,
    /// Address and length of the initial RAM disk.
    pub(super) initrd: Option<(u64, u64)>,
    pub(super) map: &'a [E820Entry],
}

/// Writes the start information; returns its address.
pub(super) fn write(ram: &Ram, info: &Info<'_>) -> Result<u64, MemoryError> {
    let modules: u32 = info.initrd.is_some().into();
    let entries = u32::try_from(info.map.len()).unwrap_or(0);
    let mut bytes = Vec::new();
    for word in [MAGIC, VERSION, 0, modules] {
        bytes.extend(word.to_le_bytes());
    }
    for word in [MODULES_GPA, info.cmdline_gpa, info.rsdp_gpa, MAP_GPA] {
        bytes.extend(word.to_le_bytes());
    }
    bytes.extend(entries.to_le_bytes());
    bytes.extend([0; 4]);
    ram.write(INFO_GPA, &bytes)?;
    let (gpa, len_bytes) = info.initrd.unwrap_or_default();
    let module: Vec<u8> = [gpa, len_bytes, 0, 0]
        .into_iter()
        .flat_map(u64::to_le_bytes)
        .collect();
    ram.write(MODULES_GPA, &module)?;
    let mut map = Vec::new();
    for entry in info.map {
        map.extend(entry.gpa.to_le_bytes());
        map.extend(entry.len_bytes.to_le_bytes());
        map.extend(entry.kind.code().to_le_bytes());
        map.extend([0; 4]);
    }
    ram.write(MAP_GPA, &map)?;
    Ok(INFO_GPA)
}
