//! ACPI tables (ACPI 6.5): what the guest's operating system learns of the board.
//!
//! The differentiated description is small on purpose: on the software CPU, interpreting it costs
//! boot time.

mod description;
mod loader;

use std::ops::Range;

use acpi_tables::fadt::{FADTBuilder, Flags};
use acpi_tables::gas::{AccessSize, AddressSpace, GAS};
use acpi_tables::mcfg::MCFG;
use acpi_tables::sdt::Sdt;
use acpi_tables::xsdt::XSDT;
use acpi_tables::{Aml, AmlSink};
use devices::acpi_pm;
use x86::cpuid::Topology;

pub(crate) use self::loader::files;
use crate::board::map;
use crate::config::MachineConfig;
use crate::hv::soft::model;
use crate::memory::{MemoryError, Ram};

const RSDP_GPA: u64 = 0xe_0000;
const TABLES_GPA: u64 = 0xe_0040;
/// SMBIOS follows.
const TABLES_END_GPA: u64 = 0xf_0000;

const OEM: [u8; 6] = *b"FERROV";
const TABLE: [u8; 8] = *b"FERROVRT";
const REVISION: u32 = 1;

const HEADER_BYTES: usize = 36;
/// Where a table has its checksum.
const CHECKSUM: usize = 9;
/// Where the fixed description has addresses: the old and the new field for each table (§5.2.9).
const FADT_POINTERS: [Pointer; 4] = [
    Pointer {
        offset: 36,
        len_bytes: 4,
    },
    Pointer {
        offset: 40,
        len_bytes: 4,
    },
    Pointer {
        offset: 132,
        len_bytes: 8,
    },
    Pointer {
        offset: 140,
        len_bytes: 8,
    },
];
/// The checksums of the root pointer: where each is, and the end of what it covers.
const RSDP_SUMS: [(usize, usize); 2] = [(8, 20), (32, 36)];

const RESET_PORT: u64 = 0xcf9;
const RESET_VALUE: u8 = 0x06;
/// Legacy devices are there; the keyboard controller is not worth a look; no VGA.
const BOOT_ARCHITECTURE: u16 = 1 | 1 << 2;
const CENTURY: u8 = devices::rtc::CENTURY;

/// What the tables depend on.
#[derive(Clone, Debug)]
pub struct Platform {
    /// The vCPUs, whose APIC IDs follow from it.
    pub topology: Topology,
    /// Whether a pvpanic port is there.
    pub pvpanic: bool,
    /// First address of the PCI window above RAM.
    pub high_window_gpa: u64,
}

impl Platform {
    /// Returns what a machine's tables depend on.
    #[must_use]
    pub fn new(config: &MachineConfig, ram: &Ram) -> Self {
        Self {
            topology: model::topology(&config.cpus),
            pvpanic: config.pvpanic,
            high_window_gpa: map::high_window_gpa(ram.high_end_gpa()),
        }
    }
}

/// Collects table bytes.
struct Bytes(Vec<u8>);

impl AmlSink for Bytes {
    fn byte(&mut self, byte: u8) {
        self.0.push(byte);
    }
}

/// Returns what makes bytes sum to zero.
fn sum_to_zero(bytes: &[u8]) -> u8 {
    let sum = bytes.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
    sum.wrapping_neg()
}

fn bytes_of(table: &dyn Aml) -> Vec<u8> {
    let mut bytes = Bytes(Vec::new());
    table.to_aml_bytes(&mut bytes);
    bytes.0
}

/// An address of a table inside another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Pointer {
    offset: usize,
    len_bytes: usize,
}

/// The tables behind each other, for a place that they will be at.
struct Tables {
    base_gpa: u64,
    bytes: Vec<u8>,
    /// The addresses among `bytes`.
    pointers: Vec<Pointer>,
    /// Where the tables with such addresses lie.
    linked: Vec<Range<usize>>,
    rsdt_gpa: u64,
    xsdt_gpa: u64,
}

impl Tables {
    fn new(platform: &Platform, base_gpa: u64) -> Self {
        let mut tables = Self {
            base_gpa,
            bytes: Vec::new(),
            pointers: Vec::new(),
            linked: Vec::new(),
            rsdt_gpa: 0,
            xsdt_gpa: 0,
        };
        let facs_gpa = tables.place(&bytes_of(&acpi_tables::facs::FACS::new()));
        let dsdt_gpa = tables.place(&dsdt(platform));
        let listed = [
            tables.link(&fadt(dsdt_gpa, facs_gpa), &FADT_POINTERS),
            tables.place(&madt(&platform.topology)),
            tables.place(&mcfg()),
        ];
        tables.rsdt_gpa = tables.link(&rsdt(&listed), &entries(listed.len(), 4));
        tables.xsdt_gpa = tables.link(&xsdt(&listed), &entries(listed.len(), 8));
        tables
    }

    /// Appends a table; returns its address.
    fn place(&mut self, table: &[u8]) -> u64 {
        let offset = u64::try_from(self.bytes.len()).unwrap_or(u64::MAX);
        self.bytes.extend(table);
        let padded = self.bytes.len().next_multiple_of(16);
        self.bytes.resize(padded, 0);
        self.base_gpa + offset
    }

    /// Appends a table with addresses of others.
    fn link(&mut self, table: &[u8], pointers: &[Pointer]) -> u64 {
        let start = self.bytes.len();
        self.linked.push(start..start + table.len());
        let pointers = pointers.iter().map(|pointer| Pointer {
            offset: start + pointer.offset,
            ..*pointer
        });
        self.pointers.extend(pointers);
        self.place(table)
    }

    /// Returns the root pointer (§5.2.5.3).
    fn rsdp(&self) -> Vec<u8> {
        let mut rsdp = b"RSD PTR \0".to_vec();
        rsdp.extend(OEM);
        rsdp.push(2);
        rsdp.extend(low(self.rsdt_gpa).to_le_bytes());
        rsdp.extend(36_u32.to_le_bytes());
        rsdp.extend(self.xsdt_gpa.to_le_bytes());
        rsdp.extend([0; 4]);
        for (at, end) in RSDP_SUMS {
            rsdp[at] = sum_to_zero(&rsdp[..end]);
        }
        rsdp
    }
}

/// Returns the places of the addresses in a table that lists others.
fn entries(count: usize, len_bytes: usize) -> Vec<Pointer> {
    let place = |at| Pointer {
        offset: HEADER_BYTES + at * len_bytes,
        len_bytes,
    };
    (0..count).map(place).collect()
}

/// Writes the tables into guest RAM; returns where the root pointer lies.
///
/// # Errors
/// If they do not fit below 1 MiB.
pub fn write(platform: &Platform, ram: &Ram) -> Result<u64, MemoryError> {
    let tables = Tables::new(platform, TABLES_GPA);
    let len_bytes = u64::try_from(tables.bytes.len()).unwrap_or(u64::MAX);
    if len_bytes > TABLES_END_GPA - TABLES_GPA {
        return Err(MemoryError::Place {
            gpa: TABLES_GPA,
            len_bytes,
        });
    }
    ram.write(TABLES_GPA, &tables.bytes)?;
    ram.write(RSDP_GPA, &tables.rsdp())?;
    Ok(RSDP_GPA)
}

/// The table of 32-bit addresses (§5.2.7), which firmware reads.
fn rsdt(listed: &[u64]) -> Vec<u8> {
    let mut table = Sdt::new(*b"RSDT", 36, 1, OEM, TABLE, REVISION);
    for gpa in listed {
        table.append_slice(&low(*gpa).to_le_bytes());
    }
    table.update_checksum();
    table.as_slice().to_vec()
}

fn xsdt(listed: &[u64]) -> Vec<u8> {
    let mut table = XSDT::new(OEM, TABLE, REVISION);
    listed.iter().for_each(|gpa| table.add_entry(*gpa));
    bytes_of(&table)
}

fn dsdt(platform: &Platform) -> Vec<u8> {
    let mut table = Sdt::new(*b"DSDT", 36, 2, OEM, TABLE, REVISION);
    table.append_slice(&description::bytes(platform));
    table.as_slice().to_vec()
}

fn mcfg() -> Vec<u8> {
    let mut table = MCFG::new(OEM, TABLE, REVISION);
    table.add_ecam(map::MMCONFIG_GPA, 0, 0, map::MMCONFIG_LAST_BUS);
    bytes_of(&table)
}

fn low(gpa: u64) -> u32 {
    u32::try_from(gpa).unwrap_or(0)
}

fn fadt(dsdt_gpa: u64, facs_gpa: u64) -> Vec<u8> {
    let pm = |offset: u16| u32::from(acpi_pm::DEFAULT_BASE + offset).into();
    let mut table = FADTBuilder::new(OEM, TABLE, REVISION)
        .dsdt_32(low(dsdt_gpa))
        .dsdt_64(dsdt_gpa)
        .firmware_ctrl_32(low(facs_gpa))
        .flag(Flags::Wbinvd)
        .flag(Flags::ProcC1)
        .flag(Flags::SlpButton)
        .flag(Flags::TmrValExt)
        .flag(Flags::ResetRegSup)
        .flag(Flags::Headless);
    table.sci_int = u16::try_from(map::GSI_SCI).unwrap_or(9).into();
    table.pm1a_evt_blk = pm(acpi_pm::PM1_EVENT);
    table.pm1_evt_len = 4;
    table.pm1a_cnt_blk = pm(acpi_pm::PM1_CONTROL);
    table.pm1_cnt_len = 2;
    table.pm_tmr_blk = pm(acpi_pm::PM_TIMER);
    table.pm_tmr_len = 4;
    table.gpe0_blk = pm(acpi_pm::GPE0);
    table.gpe0_blk_len = 16;
    table.century = CENTURY;
    table.iapc_boot_arch = BOOT_ARCHITECTURE.into();
    table.reset_reg = GAS::new(
        AddressSpace::SystemIo,
        8,
        0,
        AccessSize::ByteAccess,
        RESET_PORT,
    );
    table.reset_value = RESET_VALUE;
    let mut bytes = bytes_of(&table.finalize());
    // The old fields are empty beside the new ones, but SeaBIOS reads no others.
    bytes[36..40].copy_from_slice(&low(facs_gpa).to_le_bytes());
    bytes[40..44].copy_from_slice(&low(dsdt_gpa).to_le_bytes());
    bytes[CHECKSUM] = 0;
    bytes[CHECKSUM] = sum_to_zero(&bytes);
    bytes
}

/// The interrupt controllers (§5.2.12).
fn madt(topology: &Topology) -> Vec<u8> {
    /// A pair of 8259 is there too.
    const PCAT_COMPAT: u32 = 1;
    /// Level-triggered, active high.
    const LEVEL_HIGH: u16 = 0xd;
    let mut table = Sdt::new(*b"APIC", 36, 5, OEM, TABLE, REVISION);
    table.append_slice(&low(devices::apic::BASE_GPA).to_le_bytes());
    table.append_slice(&PCAT_COMPAT.to_le_bytes());
    for cpu in 0..topology.cpus() {
        madt_cpu(&mut table, cpu, topology.apic_id(cpu));
    }
    let mut ioapic = vec![1, 12, 0, 0];
    ioapic.extend(low(devices::ioapic::BASE_GPA).to_le_bytes());
    ioapic.extend([0; 4]);
    table.append_slice(&ioapic);
    let mut redirect = |irq: u8, gsi: u32, flags: u16| {
        let mut entry = vec![2, 10, 0, irq];
        entry.extend(gsi.to_le_bytes());
        entry.extend(flags.to_le_bytes());
        table.append_slice(&entry);
    };
    redirect(0, map::GSI_PIT, 0);
    redirect(9, map::GSI_SCI, LEVEL_HIGH);
    // LINT1 of every processor is its NMI.
    table.append_slice(&[4, 6, 0xff, 0, 0, 1]);
    table.update_checksum();
    table.as_slice().to_vec()
}

/// A processor: the form for old IDs as long as they do, else the one for x2APIC.
fn madt_cpu(table: &mut Sdt, cpu: u32, apic_id: u32) {
    const ENABLED: u32 = 1;
    match (u8::try_from(cpu), u8::try_from(apic_id)) {
        (Ok(cpu), Ok(apic_id)) if apic_id < 0xff => {
            table.append_slice(&[0, 8, cpu, apic_id, 1, 0, 0, 0]);
        }
        _ => {
            let words = [apic_id, ENABLED, cpu].map(u32::to_le_bytes).concat();
            table.append_slice(&[&[9, 16, 0, 0], words.as_slice()].concat());
        }
    }
}

#[cfg(test)]
mod tests;
