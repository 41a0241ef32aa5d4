//! The processor state of the 64-bit boot protocol: long mode with the first 4 GiB mapped as they are.

use x86::{CpuState, Segment, TableRegister};

use super::mtrr;
use crate::memory::{MemoryError, Ram};

const GDT_GPA: u64 = 0x500;
const PML4_GPA: u64 = 0x9000;
const PDPT_GPA: u64 = 0xa000;
const PD_GPA: u64 = 0xb000;
const GIB_MAPPED: u64 = 4;

const PRESENT_WRITABLE: u64 = 3;
const PRESENT_WRITABLE_LARGE: u64 = 0x83;
const CR0_PG_NE_ET_PE: u64 = 0x8000_0031;
const CR0_NE_ET_PE: u64 = 0x31;
const CR4_PAE: u64 = 0x20;
const EFER_LMA_LME: u64 = 0x500;

/// `__BOOT_CS` and `__BOOT_DS` of the boot protocol.
const CODE: u16 = 0x10;
const DATA: u16 = 0x18;
const TASK: u16 = 0x20;
const CODE_64: u64 = 0x00af_9b00_0000_ffff;
const CODE_32: u64 = 0x00cf_9b00_0000_ffff;
const DATA_32: u64 = 0x00cf_9300_0000_ffff;
/// Number of RSI among the general registers.
const RSI: usize = 6;
const RBX: usize = 3;

fn segment(selector: u16, descriptor: u64) -> Segment {
    let [_, _, _, _, _, low, high, _] = descriptor.to_le_bytes();
    Segment {
        selector,
        base: 0,
        limit: 0xffff_ffff,
        attributes: u16::from_le_bytes([low, high & 0xf0]),
        unusable: false,
    }
}

fn flat(code: u64) -> CpuState {
    let mut state = CpuState::power_on();
    let data = segment(DATA, DATA_32);
    state.segments = [data, segment(CODE, code), data, data, data, data];
    state.tr.selector = TASK;
    state.tr.limit = 0x67;
    state.gdtr = TableRegister {
        base: GDT_GPA,
        limit: 39,
    };
    state.idtr = TableRegister { base: 0, limit: 0 };
    state.gpr[2] = 0;
    mtrr::add(&mut state);
    state
}

fn write_gdt(ram: &Ram, code: u64) -> Result<(), MemoryError> {
    let task = 0x0000_8b00_0000_0067_u64;
    let table = [0, 0, code, DATA_32, task];
    let bytes: Vec<u8> = table.into_iter().flat_map(u64::to_le_bytes).collect();
    ram.write(GDT_GPA, &bytes)
}

fn write_page_tables(ram: &Ram) -> Result<(), MemoryError> {
    let entries = |values: &mut dyn Iterator<Item = u64>| -> Vec<u8> {
        values.flat_map(u64::to_le_bytes).collect()
    };
    ram.write(PML4_GPA, &[0; 0x2000])?;
    ram.write(PML4_GPA, &(PDPT_GPA | PRESENT_WRITABLE).to_le_bytes())?;
    let mut directories = (0..GIB_MAPPED).map(|gib| (PD_GPA + gib * 0x1000) | PRESENT_WRITABLE);
    ram.write(PDPT_GPA, &entries(&mut directories))?;
    let mut pages = (0..GIB_MAPPED * 512).map(|page| (page << 21) | PRESENT_WRITABLE_LARGE);
    ram.write(PD_GPA, &entries(&mut pages))
}

/// Prepares the 64-bit entry at `entry_gpa` with RSI at the zero page.
pub(super) fn enter(
    ram: &Ram,
    entry_gpa: u64,
    zero_page_gpa: u64,
) -> Result<CpuState, MemoryError> {
    write_gdt(ram, CODE_64)?;
    write_page_tables(ram)?;
    let mut state = flat(CODE_64);
    state.rip = entry_gpa;
    state.gpr[RSI] = zero_page_gpa;
    state.cr0 = CR0_PG_NE_ET_PE;
    state.cr3 = PML4_GPA;
    state.cr4 = CR4_PAE;
    state.efer = EFER_LMA_LME;
    Ok(state)
}

/// Prepares the 32-bit entry of the PVH protocol with EBX at the start info.
pub(super) fn enter_pvh(ram: &Ram, entry_gpa: u64, info_gpa: u64) -> Result<CpuState, MemoryError> {
    write_gdt(ram, CODE_32)?;
    let mut state = flat(CODE_32);
    state.rip = entry_gpa;
    state.gpr[RBX] = info_gpa;
    state.cr0 = CR0_NE_ET_PE;
    Ok(state)
}
