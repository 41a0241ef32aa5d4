//! The tables as files for firmware, which finds their place itself, and the script that makes it put addresses and
//! checksums right (QEMU `docs/specs/acpi_hw_reduced.rst` and `include/hw/acpi/bios-linker-loader.h`: the wire format of
//! `etc/table-loader`).

use super::{CHECKSUM, Platform, Pointer, RSDP_SUMS, Tables};

const TABLES: &str = "etc/acpi/tables";
const RSDP: &str = "etc/acpi/rsdp";
const SCRIPT: &str = "etc/table-loader";

const COMMAND_BYTES: usize = 128;
const NAME_BYTES: usize = 56;
const ALLOCATE: u32 = 1;
const ADD_POINTER: u32 = 2;
const ADD_CHECKSUM: u32 = 3;
/// Any place below 4 GiB.
const ZONE_HIGH: u8 = 1;
/// Where operating systems look for the root pointer.
const ZONE_BELOW_1_MIB: u8 = 2;
/// The firmware's control structure comes first, and wants that (ACPI 6.5 §5.2.10).
const TABLES_ALIGN_BYTES: u32 = 64;
const RSDP_ALIGN_BYTES: u32 = 16;

const RSDP_POINTERS: [Pointer; 2] = [
    Pointer {
        offset: 16,
        len_bytes: 4,
    },
    Pointer {
        offset: 24,
        len_bytes: 8,
    },
];

/// Files by name.
pub(crate) type FirmwareFiles = [(&'static str, Vec<u8>); 3];

/// Returns the files that firmware makes the tables from.
pub(crate) fn files(platform: &Platform) -> FirmwareFiles {
    // An address is where its table is in the file, to which firmware adds where it has put the file.
    let mut tables = Tables::new(platform, 0);
    let mut rsdp = tables.rsdp();
    let mut script = Script(Vec::new());
    script.allocate(RSDP, RSDP_ALIGN_BYTES, ZONE_BELOW_1_MIB);
    script.allocate(TABLES, TABLES_ALIGN_BYTES, ZONE_HIGH);
    for pointer in &tables.pointers {
        script.add_pointer(TABLES, *pointer);
    }
    for pointer in RSDP_POINTERS {
        script.add_pointer(RSDP, pointer);
    }
    // Firmware takes the checksum's own place for zero.
    for table in &tables.linked {
        tables.bytes[table.start + CHECKSUM] = 0;
        script.add_checksum(TABLES, table.start + CHECKSUM, table.start, table.len());
    }
    for (at, end) in RSDP_SUMS {
        rsdp[at] = 0;
        script.add_checksum(RSDP, at, 0, end);
    }
    [(TABLES, tables.bytes), (RSDP, rsdp), (SCRIPT, script.0)]
}

struct Script(Vec<u8>);

impl Script {
    fn command(&mut self, parts: &[&[u8]]) {
        let end = self.0.len() + COMMAND_BYTES;
        parts.iter().for_each(|part| self.0.extend(*part));
        self.0.resize(end, 0);
    }

    fn allocate(&mut self, file: &str, align_bytes: u32, zone: u8) {
        let kind = ALLOCATE.to_le_bytes();
        let align = align_bytes.to_le_bytes();
        self.command(&[&kind, &name(file), &align, &[zone]]);
    }

    /// Adds the address of the tables to what a field of `file` says.
    fn add_pointer(&mut self, file: &str, pointer: Pointer) {
        let kind = ADD_POINTER.to_le_bytes();
        let len_bytes = u8::try_from(pointer.len_bytes).unwrap_or(0);
        let offset = word(pointer.offset);
        self.command(&[&kind, &name(file), &name(TABLES), &offset, &[len_bytes]]);
    }

    fn add_checksum(&mut self, file: &str, at: usize, start: usize, len: usize) {
        let kind = ADD_CHECKSUM.to_le_bytes();
        self.command(&[&kind, &name(file), &word(at), &word(start), &word(len)]);
    }
}

fn word(value: usize) -> [u8; 4] {
    u32::try_from(value).unwrap_or(u32::MAX).to_le_bytes()
}

fn name(file: &str) -> [u8; NAME_BYTES] {
    let mut name = [0; NAME_BYTES];
    name[..file.len()].copy_from_slice(file.as_bytes());
    name
}

#[cfg(test)]
mod tests;
