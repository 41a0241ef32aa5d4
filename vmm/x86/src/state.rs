//! The architectural state of a CPU as one value: what moves between back ends, to disk and over the wire.

/// A segment register with its cached descriptor (SDM vol. 3 §3.4.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Segment {
    /// Visible part.
    pub selector: u16,
    /// Linear base address.
    pub base: u64,
    /// Limit in bytes, granularity applied.
    pub limit: u32,
    /// Descriptor bits 40..=55: type in 0..=3, S 4, DPL 5..=6, P 7, AVL 12, L 13, D/B 14, G 15.
    pub attributes: u16,
    /// Loaded with a null selector (or never).
    pub unusable: bool,
}

/// GDTR or IDTR.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TableRegister {
    /// Linear base address.
    pub base: u64,
    /// Limit in bytes.
    pub limit: u16,
}

/// Everything a CPU is, between two instructions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CpuState {
    /// RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8 to R15.
    pub gpr: [u64; 16],
    /// Instruction pointer.
    pub rip: u64,
    /// RFLAGS.
    pub rflags: u64,
    /// ES, CS, SS, DS, FS, GS.
    pub segments: [Segment; 6],
    /// Local descriptor table register.
    pub ldtr: Segment,
    /// Task register.
    pub tr: Segment,
    /// Global descriptor table register.
    pub gdtr: TableRegister,
    /// Interrupt descriptor table register.
    pub idtr: TableRegister,
    /// CR0.
    pub cr0: u64,
    /// CR2.
    pub cr2: u64,
    /// CR3.
    pub cr3: u64,
    /// CR4.
    pub cr4: u64,
    /// CR8.
    pub cr8: u64,
    /// XCR0.
    pub xcr0: u64,
    /// DR0 to DR3, DR6, DR7.
    pub dr: [u64; 6],
    /// IA32_EFER.
    pub efer: u64,
    /// The other MSRs, by index.
    pub msrs: Vec<(u32, u64)>,
    /// XSAVE image in the standard format: 512 bytes legacy area, 64 bytes header (SDM vol. 1 §13.4).
    pub xsave: Vec<u8>,
    /// Waiting in HLT.
    pub halted: bool,
    /// Interrupts are held off until after the next instruction (STI, MOV SS).
    pub interrupt_shadow: bool,
    /// Further NMIs are held off until IRET.
    pub nmi_blocked: bool,
}

/// Why a state cannot be taken over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    /// The field holds what no CPU could.
    #[error("field {0} holds a value that no CPU can have")]
    Field(&'static str),
    /// The MSR of this index does.
    #[error("MSR {0:#x} holds a value that no CPU can have")]
    Msr(u32),
}
