//! Linux's zero page, `struct boot_params` (Linux `arch/x86/zero-page.rst`).

use super::e820::E820Entry;
use crate::memory::{MemoryError, Ram};

/// Where the zero page lies.
pub(super) const ZERO_PAGE_GPA: u64 = 0x7000;

const PAGE_BYTES: usize = 0x1000;
const RSDP_AT: usize = 0x070;
const E820_COUNT_AT: usize = 0x1e8;
const HEADER_AT: usize = 0x1f1;
const BOOT_FLAG_AT: usize = 0x1fe;
const MAGIC_AT: usize = 0x202;
const VERSION_AT: usize = 0x206;
const LOADER_AT: usize = 0x210;
const LOADFLAGS_AT: usize = 0x211;
const INITRD_AT: usize = 0x218;
const INITRD_LEN_AT: usize = 0x21c;
const CMDLINE_AT: usize = 0x228;
const E820_AT: usize = 0x2d0;
const E820_MAX: usize = 128;

const LOADER_UNKNOWN: u8 = 0xff;
const LOADED_HIGH: u8 = 1;

/// What the zero page tells the kernel.
pub(super) struct ZeroPage<'a> {
    /// The setup header of a bzImage; without one the least that a kernel wants is made up.
    pub(super) header: Option<&'a [u8]>,
    pub(super) rsdp_gpa: u64,
    pub(super) cmdline_gpa: u32,
    /// Address and length of the initial RAM disk.
    pub(super) initrd: Option<(u32, u32)>,
    pub(super) map: &'a [E820Entry],
}

/// Writes the zero page; returns its address.
pub(super) fn write(ram: &Ram, zero_page: &ZeroPage<'_>) -> Result<u64, MemoryError> {
    ram.write(ZERO_PAGE_GPA, &zero_page.bytes())?;
    Ok(ZERO_PAGE_GPA)
}

impl ZeroPage<'_> {
    fn bytes(&self) -> Vec<u8> {
        let mut page = vec![0; PAGE_BYTES];
        let mut put = |at: usize, bytes: &[u8]| page[at..at + bytes.len()].copy_from_slice(bytes);
        put(RSDP_AT, &self.rsdp_gpa.to_le_bytes());
        match self.header {
            // A header is at most 0x202 - 0x1f1 + 255 bytes long and ends before the map.
            Some(header) => put(HEADER_AT, &header[..header.len().min(E820_AT - HEADER_AT)]),
            None => {
                put(BOOT_FLAG_AT, &0xaa55_u16.to_le_bytes());
                put(MAGIC_AT, b"HdrS");
                put(VERSION_AT, &0x20c_u16.to_le_bytes());
            }
        }
        put(LOADER_AT, &[LOADER_UNKNOWN]);
        let flags = self
            .header
            .map_or(0, |header| header[LOADFLAGS_AT - HEADER_AT]);
        put(LOADFLAGS_AT, &[flags | LOADED_HIGH]);
        put(CMDLINE_AT, &self.cmdline_gpa.to_le_bytes());
        let (initrd, initrd_len) = self.initrd.unwrap_or_default();
        put(INITRD_AT, &initrd.to_le_bytes());
        put(INITRD_LEN_AT, &initrd_len.to_le_bytes());
        let entries = &self.map[..self.map.len().min(E820_MAX)];
        put(E820_COUNT_AT, &[u8::try_from(entries.len()).unwrap_or(0)]);
        for (index, entry) in entries.iter().enumerate() {
            let at = E820_AT + 20 * index;
            put(at, &entry.gpa.to_le_bytes());
            put(at + 8, &entry.len_bytes.to_le_bytes());
            put(at + 16, &entry.kind.code().to_le_bytes());
        }
        page
    }
}
