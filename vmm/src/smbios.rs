//! SMBIOS tables (DSP0134 3.6), which tell a guest what machine it runs on.

use crate::config::{MachineConfig, SmbiosConfig};
use crate::memory::{MemoryError, Ram};

/// Where the entry point lies: the first place where operating systems look.
const ENTRY_GPA: u64 = 0xf_0000;
const TABLES_GPA: u64 = 0xf_0020;
const TABLES_MAX_BYTES: usize = 0xffe0;
const ENTRY_LEN_BYTES: u8 = 24;

const VENDOR: &str = "Ferrovirt";
const KIND_FIRMWARE: u8 = 0;
const KIND_SYSTEM: u8 = 1;
const KIND_CHASSIS: u8 = 3;
const KIND_PROCESSOR: u8 = 4;
const KIND_OEM: u8 = 11;
const KIND_MEMORY_ARRAY: u8 = 16;
const KIND_MEMORY_DEVICE: u8 = 17;
const KIND_MEMORY_ADDRESS: u8 = 19;
const KIND_BOOT: u8 = 32;
const KIND_END: u8 = 127;

const FIRST_PROCESSOR: u16 = 0x400;
const MEMORY_ARRAY: u16 = 0x1000;
const MEMORY_DEVICE: u16 = 0x1100;
/// A size of 32 GiB - 1 MiB and above goes into the extended field.
const EXTENDED_SIZE: u16 = 0x7fff;

/// One structure: its formatted part and its strings.
struct Structure {
    bytes: Vec<u8>,
    strings: Vec<String>,
}

impl Structure {
    fn new(kind: u8, handle: u16) -> Self {
        let mut bytes = vec![kind, 0];
        bytes.extend(handle.to_le_bytes());
        Self {
            bytes,
            strings: Vec::new(),
        }
    }

    fn byte(self, value: u8) -> Self {
        self.put(&[value])
    }

    fn word(self, value: u16) -> Self {
        self.put(&value.to_le_bytes())
    }

    fn dword(self, value: u32) -> Self {
        self.put(&value.to_le_bytes())
    }

    fn qword(self, value: u64) -> Self {
        self.put(&value.to_le_bytes())
    }

    fn put(mut self, bytes: &[u8]) -> Self {
        self.bytes.extend(bytes);
        self
    }

    /// Appends the number of a string; an empty one is left out.
    fn text(mut self, text: &str) -> Self {
        if text.is_empty() {
            return self.byte(0);
        }
        self.strings.push(text.to_owned());
        let number = u8::try_from(self.strings.len()).unwrap_or(0);
        self.byte(number)
    }

    fn finish(mut self) -> Vec<u8> {
        self.bytes[1] = u8::try_from(self.bytes.len()).unwrap_or(u8::MAX);
        for text in &self.strings {
            self.bytes.extend(text.bytes().filter(|byte| *byte != 0));
            self.bytes.push(0);
        }
        if self.strings.is_empty() {
            self.bytes.push(0);
        }
        self.bytes.push(0);
        self.bytes
    }
}

/// Writes the tables into guest RAM.
///
/// # Errors
/// If guest RAM does not reach there.
pub fn write(config: &MachineConfig, ram: &Ram) -> Result<(), MemoryError> {
    let tables = tables(config, ram);
    ram.write(TABLES_GPA, &tables)?;
    ram.write(ENTRY_GPA, &entry(tables.len(), TABLES_GPA))
}

/// Returns the files that firmware puts where it likes, by name: it sets the address in the entry point.
pub(crate) fn files(config: &MachineConfig, ram: &Ram) -> [(&'static str, Vec<u8>); 2] {
    let tables = tables(config, ram);
    [
        ("etc/smbios/smbios-anchor", entry(tables.len(), 0)),
        ("etc/smbios/smbios-tables", tables),
    ]
}

/// The 64-bit entry point (§5.2.2).
fn entry(tables_len: usize, tables_gpa: u64) -> Vec<u8> {
    let mut entry = b"_SM3_\0".to_vec();
    entry.extend([ENTRY_LEN_BYTES, 3, 6, 0, 1, 0]);
    entry.extend(u32::try_from(tables_len).unwrap_or(0).to_le_bytes());
    entry.extend(tables_gpa.to_le_bytes());
    let sum = entry.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
    entry[5] = sum.wrapping_neg();
    entry
}

fn tables(config: &MachineConfig, ram: &Ram) -> Vec<u8> {
    let structures = structures(config, ram);
    let tables: Vec<u8> = structures.into_iter().flat_map(Structure::finish).collect();
    if tables.len() > TABLES_MAX_BYTES {
        tracing::warn!("the SMBIOS strings are too long: the guest gets none");
        return Structure::new(KIND_END, 0x7f00).finish();
    }
    tables
}

fn structures(config: &MachineConfig, ram: &Ram) -> Vec<Structure> {
    let mut all = vec![firmware(), system(&config.smbios), chassis(&config.smbios)];
    for socket in 0..config.cpus.sockets {
        all.push(processor(config, socket));
    }
    if !config.smbios.oem.is_empty() {
        all.push(oem(&config.smbios.oem));
    }
    all.push(memory_array(config));
    all.push(memory_device(config));
    for (index, range) in ram.ranges().iter().filter(|r| !r.read_only).enumerate() {
        all.push(memory_address(index, range.gpa, range.len_bytes));
    }
    all.push(Structure::new(KIND_BOOT, 0x2000).put(&[0; 7]));
    all.push(Structure::new(KIND_END, 0x7f00));
    all
}

fn firmware() -> Structure {
    Structure::new(KIND_FIRMWARE, 0)
        .text(VENDOR)
        .text(env!("CARGO_PKG_VERSION"))
        .word(0xe800)
        .text("01/01/2026")
        .byte(0)
        // Characteristics are not supported; a virtual machine, ACPI.
        .qword(1 << 3)
        .byte(1)
        .byte(1 << 4)
        .put(&[0, 0, 0xff, 0xff])
}

/// Orders a UUID as SMBIOS does: its first three fields are little-endian (§7.2.1).
fn wire_uuid(uuid: [u8; 16]) -> [u8; 16] {
    let [a, b, c, d, e, f, g, h, rest @ ..] = uuid;
    let [i, j, k, l, m, n, o, p] = rest;
    [d, c, b, a, f, e, h, g, i, j, k, l, m, n, o, p]
}

fn or_ours(text: &str, ours: &'static str) -> String {
    if text.is_empty() { ours } else { text }.to_owned()
}

fn system(smbios: &SmbiosConfig) -> Structure {
    Structure::new(KIND_SYSTEM, 0x100)
        .text(&or_ours(&smbios.manufacturer, VENDOR))
        .text(&or_ours(&smbios.product, "Virtual Machine"))
        .text(&smbios.version)
        .text(&smbios.serial)
        .put(&wire_uuid(smbios.uuid.unwrap_or_default()))
        .byte(6)
        .text(&smbios.sku)
        .text(&smbios.family)
}

fn chassis(smbios: &SmbiosConfig) -> Structure {
    let [manufacturer, version, serial, asset, sku] = &smbios.chassis;
    Structure::new(KIND_CHASSIS, 0x300)
        .text(&or_ours(manufacturer, VENDOR))
        .byte(1)
        .text(version)
        .text(serial)
        .text(asset)
        .put(&[3, 3, 3, 2])
        .dword(0)
        .put(&[0, 0, 0, 0])
        .text(sku)
}

fn processor(config: &MachineConfig, socket: u32) -> Structure {
    let threads = config.cpus.cores.saturating_mul(config.cpus.threads);
    let byte = |count: u32| u8::try_from(count).unwrap_or(u8::MAX);
    let word = |count: u32| u16::try_from(count).unwrap_or(u16::MAX);
    let handle = FIRST_PROCESSOR + word(socket);
    Structure::new(KIND_PROCESSOR, handle)
        .text(&format!("CPU {socket}"))
        .put(&[3, 1])
        .text(VENDOR)
        .qword(0)
        .text("")
        .byte(0)
        .word(0)
        .dword(0)
        .byte(0x41)
        .byte(1)
        .put(&[0xff; 6])
        .put(&[0, 0, 0])
        .put(&[byte(config.cpus.cores); 2])
        .byte(byte(threads))
        .word(2)
        .word(1)
        .put(&[word(config.cpus.cores).to_le_bytes(); 2].concat())
        .word(word(threads))
}

fn oem(strings: &[String]) -> Structure {
    let count = u8::try_from(strings.len()).unwrap_or(u8::MAX);
    let mut structure = Structure::new(KIND_OEM, 0xe00).byte(count);
    let texts = strings.iter().filter(|text| !text.is_empty());
    structure.strings = texts.take(usize::from(count)).cloned().collect();
    structure
}

fn memory_array(config: &MachineConfig) -> Structure {
    Structure::new(KIND_MEMORY_ARRAY, MEMORY_ARRAY)
        .put(&[1, 3, 6])
        .dword(0x8000_0000)
        .word(0xfffe)
        .word(1)
        .qword(config.memory.len_bytes)
}

fn memory_device(config: &MachineConfig) -> Structure {
    let mib = config.memory.len_bytes >> 20;
    let short = u16::try_from(mib)
        .ok()
        .filter(|mib| *mib < EXTENDED_SIZE)
        .unwrap_or(EXTENDED_SIZE);
    Structure::new(KIND_MEMORY_DEVICE, MEMORY_DEVICE)
        .word(MEMORY_ARRAY)
        .word(0xfffe)
        .put(&[0; 4])
        .word(short)
        .put(&[9, 0])
        .text("DIMM 0")
        .text("")
        .byte(7)
        .word(2)
        .word(0)
        .text(VENDOR)
        .put(&[0, 0, 0, 0])
        .dword(u32::try_from(mib).unwrap_or(0))
        .put(&[0; 8])
}

fn memory_address(index: usize, gpa: u64, len_bytes: u64) -> Structure {
    let handle = 0x1300 + u16::try_from(index).unwrap_or(0);
    // Addresses go into the extended fields.
    Structure::new(KIND_MEMORY_ADDRESS, handle)
        .dword(u32::MAX)
        .dword(u32::MAX)
        .word(MEMORY_ARRAY)
        .byte(1)
        .qword(gpa)
        .qword(gpa + len_bytes - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_follow_the_formatted_part() {
        let bytes = Structure::new(1, 0x100)
            .text("ab")
            .text("")
            .text("c")
            .finish();
        assert_eq!(bytes, [1, 7, 0, 1, 1, 0, 2, b'a', b'b', 0, b'c', 0, 0]);
    }

    #[test]
    fn a_structure_without_strings_ends_with_two_zeroes() {
        assert_eq!(Structure::new(127, 1).finish(), [127, 4, 1, 0, 0, 0]);
    }

    #[test]
    fn the_entry_point_sums_to_zero() {
        let sum = entry(100, TABLES_GPA)
            .iter()
            .fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
        assert_eq!(sum, 0);
    }

    #[test]
    fn a_uuid_keeps_its_text_form() {
        let uuid = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];
        let wire = wire_uuid(uuid);
        assert_eq!(wire, [3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15]);
    }
}
