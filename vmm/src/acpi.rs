//! ACPI tables (ACPI 6.5): what the guest's operating system learns of the board.
//!
//! The differentiated description is small on purpose: on the software CPU, interpreting it costs
//! boot time.

mod description;

use acpi_tables::fadt::{FADTBuilder, Flags};
use acpi_tables::gas::{AccessSize, AddressSpace, GAS};
use acpi_tables::mcfg::MCFG;
use acpi_tables::rsdp::Rsdp;
use acpi_tables::sdt::Sdt;
use acpi_tables::xsdt::XSDT;
use acpi_tables::{Aml, AmlSink};
use devices::acpi_pm;
use x86::cpuid::Topology;

use crate::board::map;
use crate::memory::{MemoryError, Ram};

const RSDP_GPA: u64 = 0xe_0000;
const TABLES_GPA: u64 = 0xe_0040;
/// SMBIOS follows.
const TABLES_END_GPA: u64 = 0xf_0000;

const OEM: [u8; 6] = *b"FERROV";
const TABLE: [u8; 8] = *b"FERROVRT";
const REVISION: u32 = 1;

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

/// Collects table bytes.
struct Bytes(Vec<u8>);

impl AmlSink for Bytes {
    fn byte(&mut self, byte: u8) {
        self.0.push(byte);
    }
}

fn bytes_of(table: &dyn Aml) -> Vec<u8> {
    let mut bytes = Bytes(Vec::new());
    table.to_aml_bytes(&mut bytes);
    bytes.0
}

/// Puts tables behind each other.
struct Placer<'a> {
    ram: &'a Ram,
    next_gpa: u64,
}

impl Placer<'_> {
    fn place(&mut self, bytes: &[u8]) -> Result<u64, MemoryError> {
        let gpa = self.next_gpa;
        let len_bytes = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        let end_gpa = gpa.saturating_add(len_bytes);
        if end_gpa > TABLES_END_GPA {
            return Err(MemoryError::Place { gpa, len_bytes });
        }
        self.ram.write(gpa, bytes)?;
        self.next_gpa = end_gpa.next_multiple_of(16);
        Ok(gpa)
    }
}

/// Writes the tables into guest RAM; returns where the root pointer lies.
///
/// # Errors
/// If they do not fit below 1 MiB.
pub fn write(platform: &Platform, ram: &Ram) -> Result<u64, MemoryError> {
    let mut placer = Placer {
        ram,
        next_gpa: TABLES_GPA,
    };
    let facs_gpa = placer.place(&bytes_of(&acpi_tables::facs::FACS::new()))?;
    let dsdt_gpa = placer.place(&dsdt(platform))?;
    let mut xsdt = XSDT::new(OEM, TABLE, REVISION);
    for table in [fadt(dsdt_gpa, facs_gpa), madt(&platform.topology), mcfg()] {
        xsdt.add_entry(placer.place(&table)?);
    }
    let xsdt_gpa = placer.place(&bytes_of(&xsdt))?;
    ram.write(RSDP_GPA, &bytes_of(&Rsdp::new(OEM, xsdt_gpa)))?;
    Ok(RSDP_GPA)
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
    bytes_of(&table.finalize())
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
