//! Tiny guests: programs of a few instructions with what they must report, as data, so that every back end
//! runs the same ones.
//!
//! A guest finds descriptor tables, page tables, a task state and a handler for each of the first 80
//! vectors in its RAM. The handlers report vector, error code (where there is one) and faulting address at
//! ports and stop; guests put their own code over them where they want to come back. The machine around a
//! guest has to do four things: collect what is written to the ports of [`port`] below [`port::END`], stop
//! the guest when it writes to that one, and raise what it asks for at [`port::NMI`] and
//! [`port::INTERRUPT`].

use crate::seg::attr;
use crate::seg::descriptor::kind;
use crate::{CpuState, Segment, TableRegister};

mod exceptions;
mod modes;
mod paging;
mod privilege;
mod privileged;
mod processor;
#[cfg(test)]
mod tests;

/// What a guest says at which port.
pub mod port {
    /// Vector of an exception or interrupt that a standard handler took.
    pub const VECTOR: u16 = 0x10;
    /// Its error code.
    pub const ERROR: u16 = 0x11;
    /// The low half of CR2.
    pub const ADDRESS: u16 = 0x12;
    /// Whatever the guest wants to tell.
    pub const NOTE: u16 = 0x13;
    /// Asks for an NMI now.
    pub const NMI: u16 = 0x18;
    /// Asks for an interrupt with the vector that is written.
    pub const INTERRUPT: u16 = 0x19;
    /// The guest is done.
    pub const END: u16 = 0x1f;
}

/// Bytes of RAM that a guest needs, from address 0.
pub const RAM_BYTES: u64 = 4 << 20;

const GDT: u64 = 0x1000;
const GDT_LIMIT: u16 = 0x7f;
const LDT: u64 = 0x1100;
const IDT: u64 = 0x2000;
const TSS: u64 = 0x3000;
const TASK: u64 = 0x3100;
const TSS_LIMIT: u32 = 0x6b;
pub(crate) const HANDLERS: u64 = 0xa000;
pub(crate) const HANDLER_BYTES: u64 = 32;
pub(crate) const VECTORS: u64 = 0x50;
pub(crate) const CODE: u64 = 0x8000;
pub(crate) const USER_CODE: u64 = 0x2_0000;
const STACK: u64 = 0x7000;
const STACK_0: u64 = 0x6000;
const INTERRUPT_STACK: u64 = 0x5000;
const USER_STACK: u64 = 0x2_f000;
const PML4: u64 = 0x1_0000;
const PDPT: u64 = 0x1_1000;
const DIRECTORY: u64 = 0x1_2000;
const PAGES: u64 = 0x1_3000;
const DIRECTORY_32: u64 = 0x1_4000;
const PAGES_32: u64 = 0x1_5000;
const PDPT_PAE: u64 = 0x1_6000;

/// Selectors.
const CODE_64: u16 = 0x08;
const DATA: u16 = 0x10;
const CODE_32: u16 = 0x18;
const USER_CODE_32: u16 = 0x23;
const USER_DATA: u16 = 0x2b;
const USER_CODE_64: u16 = 0x33;
const TASK_STATE: u16 = 0x40;

/// The mode in which a guest starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// Real mode, segments 0, at 0x8000.
    Real,
    /// Flat 32-bit code without paging.
    Protected,
    /// The same at privilege level 3.
    ProtectedUser,
    /// With 32-bit paging.
    Paged,
    /// With PAE paging.
    Pae,
    /// 64-bit mode.
    Long,
    /// The same at privilege level 3.
    User,
}

impl Start {
    fn is_long(self) -> bool {
        matches!(self, Self::Long | Self::User)
    }

    fn is_user(self) -> bool {
        matches!(self, Self::ProtectedUser | Self::User)
    }
}

/// How a guest ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It writes to [`port::END`].
    Done,
    /// By a triple fault.
    Shutdown,
}

/// Bytes at a guest physical address.
type Piece = (u64, &'static [u8]);

/// A program and what it must report.
#[derive(Clone, Debug)]
pub struct TinyGuest {
    /// What it shows, as a sentence.
    pub name: &'static str,
    /// Where it starts.
    pub start: Start,
    /// What it writes to which ports, in order.
    pub expect: &'static [(u16, u32)],
    /// How it ends.
    pub end: End,
    pieces: Vec<Piece>,
    cr0: u64,
    cr4: u64,
}

fn guest(
    name: &'static str,
    start: Start,
    pieces: &[Piece],
    expect: &'static [(u16, u32)],
    end: End,
) -> TinyGuest {
    TinyGuest {
        name,
        start,
        expect,
        end,
        pieces: pieces.to_vec(),
        cr0: 0,
        cr4: 0,
    }
}

/// All guests.
#[must_use]
pub fn all() -> Vec<TinyGuest> {
    let mut guests = exceptions::guests();
    guests.extend(paging::guests());
    guests.extend(privilege::guests());
    guests.extend(privileged::guests());
    guests.extend(processor::guests());
    guests.extend(modes::guests());
    guests
}

impl TinyGuest {
    /// With more bits in CR0.
    fn cr0(mut self, bits: u64) -> Self {
        self.cr0 |= bits;
        self
    }

    /// With more bits in CR4.
    fn cr4(mut self, bits: u64) -> Self {
        self.cr4 |= bits;
        self
    }

    /// With more bytes in memory.
    fn bytes(mut self, gpa: u64, bytes: &'static [u8]) -> Self {
        self.pieces.push((gpa, bytes));
        self
    }

    /// The CPU's state at the start.
    #[must_use]
    pub fn state(&self) -> CpuState {
        let mut state = CpuState::power_on();
        state.gpr = [0; 16];
        state.gpr[4] = if self.start.is_user() {
            USER_STACK
        } else {
            STACK
        };
        state.rip = if self.start.is_user() {
            USER_CODE
        } else {
            CODE
        };
        if self.start == Start::Real {
            state.segments[1].selector = 0;
            state.segments[1].base = 0;
            return state;
        }
        self.protect(&mut state);
        self.page(&mut state);
        state
    }

    fn protect(&self, state: &mut CpuState) {
        let (code, data) = match self.start {
            Start::Long => (CODE_64, DATA),
            Start::User => (USER_CODE_64, USER_DATA),
            Start::ProtectedUser => (USER_CODE_32, USER_DATA),
            _ => (CODE_32, DATA),
        };
        let size = if self.start.is_long() {
            attr::L
        } else {
            attr::DB
        };
        let dpl = (code & 3) << 5;
        let code = Segment::flat(code, attr::CODE_SEGMENT | attr::G | size | dpl);
        let data = Segment::flat(data, attr::DATA_SEGMENT | attr::G | attr::DB | dpl);
        state.segments = [data, code, data, data, data, data];
        state.tr = Segment {
            selector: TASK_STATE,
            base: TSS,
            limit: TSS_LIMIT,
            attributes: attr::P | kind::TSS_BUSY,
            unusable: false,
        };
        state.ldtr = Segment::null(0);
        state.gdtr = TableRegister {
            base: GDT,
            limit: GDT_LIMIT,
        };
        let gate_bytes: u16 = if self.start.is_long() { 16 } else { 8 };
        state.idtr = TableRegister {
            base: IDT,
            limit: gate_bytes * VECTORS as u16 - 1,
        };
        // PE, ET, NE, WP.
        state.cr0 = 0x1_0031 | self.cr0;
        state.cr4 = self.cr4;
    }

    fn page(&self, state: &mut CpuState) {
        const PG: u64 = 1 << 31;
        const PSE: u64 = 1 << 4;
        const PAE: u64 = 1 << 5;
        const NXE: u64 = 1 << 11;
        let (cr3, cr4, efer) = match self.start {
            Start::Long | Start::User => (PML4, PAE, NXE | 0x500),
            Start::Paged => (DIRECTORY_32, PSE, 0),
            Start::Pae => (PDPT_PAE, PAE, NXE),
            _ => return,
        };
        state.cr0 |= PG;
        state.cr3 = cr3;
        state.cr4 |= cr4;
        state.efer = efer;
    }

    /// What the RAM holds at the start; the rest is zero. Later pieces lie over earlier ones.
    #[must_use]
    pub fn memory(&self) -> Vec<(u64, Vec<u8>)> {
        let mut memory = self.descriptor_tables();
        memory.extend(page_tables());
        for vector in 0..VECTORS {
            let at = HANDLERS + vector * HANDLER_BYTES;
            memory.push((at, handler(vector as u8, self.start)));
        }
        memory.extend(self.pieces.iter().map(|&(gpa, b)| (gpa, b.to_vec())));
        memory
    }

    fn descriptor_tables(&self) -> Vec<(u64, Vec<u8>)> {
        let long = self.start.is_long() || self.start == Start::Real;
        let mut gdt = vec![
            0,
            0x00af_9b00_0000_ffff,
            0x00cf_9300_0000_ffff,
            0x00cf_9b00_0000_ffff,
            0x00cf_fb00_0000_ffff,
            0x00cf_f300_0000_ffff,
            0x00af_fb00_0000_ffff,
            0x0040_9200_0000_0fff,
            system(TSS, u64::from(TSS_LIMIT), kind::TSS_BUSY),
            if long {
                0
            } else {
                system(TASK, 0x67, kind::TSS)
            },
            0x0000_9b00_0000_ffff,
            system(LDT, 0x1f, kind::LDT),
            // A call gate for everybody, to 0x8800 in 64-bit code.
            0x0000_ec00_0008_8800,
            0,
            // An absent data segment.
            0x0040_1200_0000_0fff,
            0,
        ];
        if self.start == Start::Real {
            // Not busy: the guest may load it.
            gdt[8] = system(TSS, u64::from(TSS_LIMIT), kind::TSS);
        }
        let ldt = [0, 0x0000_9204_4000_ffff];
        vec![
            (GDT, words(&gdt)),
            (LDT, words(&ldt)),
            (TSS, self.task_state()),
            (TASK, second_task()),
            self.interrupt_table(),
        ]
    }

    fn task_state(&self) -> Vec<u8> {
        let mut tss = vec![0; TSS_LIMIT as usize + 1];
        if self.start.is_long() {
            put(&mut tss, 4, STACK_0);
            put(&mut tss, 0x24, INTERRUPT_STACK);
        } else {
            put(&mut tss, 4, STACK_0 | u64::from(DATA) << 32);
        }
        tss[0x66] = 0x68;
        tss[0x68..].fill(0xff);
        tss
    }

    /// Gates to the handlers: at address 0 in real mode.
    fn interrupt_table(&self) -> (u64, Vec<u8>) {
        if self.start == Start::Real {
            let vectors = (0..VECTORS).map(|v| (HANDLERS + v * HANDLER_BYTES) as u32);
            return (0, vectors.flat_map(u32::to_le_bytes).collect());
        }
        let selector = u64::from(if self.start.is_long() {
            CODE_64
        } else {
            CODE_32
        });
        let mut table = Vec::new();
        for vector in 0..VECTORS {
            let open = matches!(vector, 3..=5 | 0x21);
            let access = if open { 0xee } else { 0x8e };
            // #DF has a stack of its own in long mode.
            let stack = u64::from(vector == 8 && self.start.is_long());
            let offset = HANDLERS + vector * HANDLER_BYTES;
            table.push(offset | selector << 16 | stack << 32 | access << 40);
            if self.start.is_long() {
                table.push(0);
            }
        }
        (IDT, words(&table))
    }
}

fn words(values: &[u64]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

fn put(bytes: &mut [u8], at: usize, value: u64) {
    bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
}

/// A present system descriptor below 16 MiB.
fn system(base: u64, limit: u64, kind: u16) -> u64 {
    limit | base << 16 | (u64::from(kind) | 0x80) << 40
}

/// The task that a task switch leads to: EBX 0x77, at 0x8800.
fn second_task() -> Vec<u8> {
    let mut tss = vec![0; 0x68];
    let fields: [(usize, u32); 12] = [
        (0x20, 0x8800),
        (0x24, 2),
        (0x34, 0x77),
        (0x38, 0x6800),
        (0x48, 0x10),
        (0x4c, 0x18),
        (0x50, 0x10),
        (0x54, 0x10),
        (0x58, 0x10),
        (0x5c, 0x10),
        (0x60, 0),
        (0x64, 0x68_0000),
    ];
    for (at, value) in fields {
        tss[at..at + 4].copy_from_slice(&value.to_le_bytes());
    }
    tss
}

/// A handler that reports and stops: the same bytes in 16-, 32- and 64-bit code.
fn handler(vector: u8, start: Start) -> Vec<u8> {
    // mov al, vector; out VECTOR, al
    let mut code = vec![0xb0, vector, 0xe6, port::VECTOR as u8];
    if matches!(vector, 8 | 10..=14 | 17) && start != Start::Real {
        // pop rax; out ERROR, eax
        code.extend([0x58, 0xe7, port::ERROR as u8]);
    }
    if vector == 14 && start != Start::Real {
        // mov rax, cr2; out ADDRESS, eax
        code.extend([0x0f, 0x20, 0xd0, 0xe7, port::ADDRESS as u8]);
    }
    // out END, al; hlt
    code.extend([0xe6, port::END as u8, 0xf4]);
    code
}

const PRESENT: u64 = 1;
const WRITABLE: u64 = 2;
const USER: u64 = 4;
const LARGE: u64 = 1 << 7;
const NO_EXECUTE: u64 = 1 << 63;

/// Rights of the pages below 2 MiB, which are all mapped to themselves.
fn rights(page: u64) -> u64 {
    match page {
        0x23 => PRESENT | USER,
        0x20..=0x2f => PRESENT | WRITABLE | USER,
        0x40 => 0,
        0x41 => PRESENT,
        0x42 => PRESENT | WRITABLE | NO_EXECUTE,
        _ => PRESENT | WRITABLE,
    }
}

/// The tables of 4-level, 32-bit and PAE paging. The second directory entry is a large page: the second
/// 2 MiB, or in 32-bit paging the first 4 MiB once more. The second entry of the top table has a reserved
/// bit set.
fn page_tables() -> Vec<(u64, Vec<u8>)> {
    let all = PRESENT | WRITABLE | USER;
    let pages: Vec<u64> = (0..512).map(|n| n << 12 | rights(n)).collect();
    let narrow = |n: u64| (n << 12 | rights(n) & 7) as u32;
    vec![
        (PML4, words(&[PDPT | all, LARGE | PRESENT | WRITABLE])),
        (PDPT, words(&[DIRECTORY | all])),
        (
            DIRECTORY,
            words(&[PAGES | all, 0x20_0000 | LARGE | PRESENT | WRITABLE]),
        ),
        (PAGES, words(&pages)),
        (
            DIRECTORY_32,
            words(&[PAGES_32 | all | (LARGE | PRESENT | WRITABLE) << 32]),
        ),
        (
            PAGES_32,
            (0..1024).flat_map(|n| narrow(n).to_le_bytes()).collect(),
        ),
        (PDPT_PAE, words(&[DIRECTORY | PRESENT])),
    ]
}
