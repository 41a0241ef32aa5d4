//! The CPU: its registers, laid out for the handlers, and its life from outside.

#![expect(
    unsafe_code,
    reason = "handlers and the dispatcher reach the CPU through a raw pointer"
)]

use std::sync::Arc;
use std::sync::atomic::AtomicU32;

use crate::bus::Bus;
use crate::fault::Fault;
use crate::fpu::Fpu;
use crate::memory::{Attention, Memory};
use crate::state::{Segment, TableRegister};
use crate::tlb::{Tlb, TlbEntry};
use crate::trace::TraceCache;

/// Slot of [`Cpu::regs`] that always holds zero: the base or index that an operand does not have.
pub(crate) const ZERO: usize = 16;
/// Slot of [`Cpu::regs`] with the RIP at which the running trace starts.
pub(crate) const TRACE_RIP: usize = 17;

/// Segment numbers in their encoding order; [`NO_SEG`] has base 0 for ever.
pub(crate) const ES: usize = 0;
pub(crate) const CS: usize = 1;
pub(crate) const SS: usize = 2;
pub(crate) const DS: usize = 3;
pub(crate) const FS: usize = 4;
pub(crate) const GS: usize = 5;
pub(crate) const NO_SEG: usize = 6;

/// General registers by their number in an encoding.
pub(crate) const RAX: usize = 0;
pub(crate) const RCX: usize = 1;
pub(crate) const RDX: usize = 2;
pub(crate) const RBX: usize = 3;
pub(crate) const RSP: usize = 4;
pub(crate) const RBP: usize = 5;
pub(crate) const RSI: usize = 6;
pub(crate) const RDI: usize = 7;

/// How instructions decode now: the key, with the physical address, of a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mode {
    /// 16, 32 or 64.
    pub(crate) bits: u8,
    /// Whether the stack pointer is ESP (or RSP) rather than SP.
    pub(crate) wide_stack: bool,
}

impl Mode {
    pub(crate) fn key(self) -> u8 {
        self.bits >> 5 | u8::from(self.wide_stack) << 2
    }
}

/// MSRs that the core itself holds.
#[derive(Clone, Debug, Default)]
pub(crate) struct Msrs {
    pub(crate) efer: u64,
    pub(crate) star: u64,
    pub(crate) lstar: u64,
    pub(crate) cstar: u64,
    pub(crate) sfmask: u64,
    pub(crate) kernel_gs_base: u64,
    pub(crate) sysenter_cs: u64,
    pub(crate) sysenter_esp: u64,
    pub(crate) sysenter_eip: u64,
    pub(crate) tsc_aux: u64,
    pub(crate) pat: u64,
    pub(crate) misc_enable: u64,
    pub(crate) mtrr_def_type: u64,
    pub(crate) mtrr_fixed: [u64; 11],
    pub(crate) mtrr_variable: [u64; 16],
    pub(crate) spec_ctrl: u64,
    pub(crate) tsc_adjust: u64,
}

/// RFLAGS bits outside the six status flags.
pub(crate) mod rflags {
    pub(crate) const CF: u64 = 1;
    pub(crate) const FIXED: u64 = 1 << 1;
    pub(crate) const PF: u64 = 1 << 2;
    pub(crate) const AF: u64 = 1 << 4;
    pub(crate) const ZF: u64 = 1 << 6;
    pub(crate) const SF: u64 = 1 << 7;
    pub(crate) const TF: u64 = 1 << 8;
    pub(crate) const IF: u64 = 1 << 9;
    pub(crate) const DF: u64 = 1 << 10;
    pub(crate) const OF: u64 = 1 << 11;
    pub(crate) const IOPL: u64 = 3 << 12;
    pub(crate) const NT: u64 = 1 << 14;
    pub(crate) const RF: u64 = 1 << 16;
    pub(crate) const VM: u64 = 1 << 17;
    pub(crate) const AC: u64 = 1 << 18;
    pub(crate) const VIF: u64 = 1 << 19;
    pub(crate) const VIP: u64 = 1 << 20;
    pub(crate) const ID: u64 = 1 << 21;
    pub(crate) const STATUS: u64 = CF | PF | AF | ZF | SF | OF;
    /// Everything that exists.
    pub(crate) const KNOWN: u64 =
        STATUS | FIXED | TF | IF | DF | IOPL | NT | RF | VM | AC | VIF | VIP | ID;
}

/// Control register bits.
pub(crate) mod cr {
    pub(crate) const CR0_PE: u64 = 1;
    pub(crate) const CR0_MP: u64 = 1 << 1;
    pub(crate) const CR0_EM: u64 = 1 << 2;
    pub(crate) const CR0_TS: u64 = 1 << 3;
    pub(crate) const CR0_ET: u64 = 1 << 4;
    pub(crate) const CR0_NE: u64 = 1 << 5;
    pub(crate) const CR0_WP: u64 = 1 << 16;
    pub(crate) const CR0_AM: u64 = 1 << 18;
    pub(crate) const CR0_NW: u64 = 1 << 29;
    pub(crate) const CR0_CD: u64 = 1 << 30;
    pub(crate) const CR0_PG: u64 = 1 << 31;
    pub(crate) const CR4_VME: u64 = 1;
    pub(crate) const CR4_TSD: u64 = 1 << 2;
    pub(crate) const CR4_DE: u64 = 1 << 3;
    pub(crate) const CR4_PSE: u64 = 1 << 4;
    pub(crate) const CR4_PAE: u64 = 1 << 5;
    pub(crate) const CR4_MCE: u64 = 1 << 6;
    pub(crate) const CR4_PGE: u64 = 1 << 7;
    pub(crate) const CR4_PCE: u64 = 1 << 8;
    pub(crate) const CR4_OSFXSR: u64 = 1 << 9;
    pub(crate) const CR4_OSXMMEXCPT: u64 = 1 << 10;
    pub(crate) const CR4_UMIP: u64 = 1 << 11;
    pub(crate) const CR4_FSGSBASE: u64 = 1 << 16;
    pub(crate) const CR4_PCIDE: u64 = 1 << 17;
    pub(crate) const CR4_OSXSAVE: u64 = 1 << 18;
    pub(crate) const CR4_SMEP: u64 = 1 << 20;
    pub(crate) const CR4_SMAP: u64 = 1 << 21;
    pub(crate) const EFER_SCE: u64 = 1;
    pub(crate) const EFER_LME: u64 = 1 << 8;
    pub(crate) const EFER_LMA: u64 = 1 << 10;
    pub(crate) const EFER_NXE: u64 = 1 << 11;
}

/// One CPU. The first fields are the ones that handlers touch all the time.
#[repr(C)]
pub(crate) struct Cpu {
    /// RAX to R15, [`ZERO`], [`TRACE_RIP`]. Byte registers are byte offsets into this array.
    pub(crate) regs: [u64; 18],
    /// Status flags as `LAHF` and `SETO AL` leave them in AX: AH in bits 8..=15, OF in bit 0.
    pub(crate) status: u32,
    /// Instructions left in this slice; below zero the dispatcher lets the board tick.
    pub(crate) budget: i32,
    /// The doorbell's word, inside [`Cpu::bell`].
    pub(crate) attention: *const AtomicU32,
    /// The TLB of the current privilege class.
    pub(crate) tlb_now: *mut TlbEntry,
    /// Address space tag of the current CR3, in the low 12 bits of TLB tags.
    pub(crate) tlb_tag: u64,
    /// Tag of jump cache entries that are valid now.
    pub(crate) jump_tag: u64,
    /// Linear bases that effective addresses add: those of 64-bit mode are zero but for FS and GS.
    pub(crate) seg_base: [u64; 8],
    /// What stopped the running trace, if it was a fault.
    pub(crate) fault: Option<Fault>,
    /// A value on its way to or from a slow path of an access to memory.
    pub(crate) parked: u128,
    /// RIP, while the dispatcher runs.
    pub(crate) rip: u64,
    /// RFLAGS but for the six status flags.
    pub(crate) rflags: u64,
    /// Current privilege level.
    pub(crate) cpl: u8,
    /// How code decodes now.
    pub(crate) mode: Mode,
    /// Reasons to look at every instruction: see [`crate::dispatch`].
    pub(crate) shadow: bool,
    pub(crate) nmi_blocked: bool,
    pub(crate) halted: bool,
    pub(crate) shutdown: bool,
    /// After INIT, before the start-up message.
    pub(crate) wait_for_sipi: bool,
    /// The running instruction entered a handler itself: no single-step trap comes after it.
    pub(crate) skip_step: bool,
    pub(crate) segs: [Segment; 6],
    pub(crate) ldtr: Segment,
    pub(crate) tr: Segment,
    pub(crate) gdtr: TableRegister,
    pub(crate) idtr: TableRegister,
    pub(crate) cr0: u64,
    pub(crate) cr2: u64,
    pub(crate) cr3: u64,
    pub(crate) cr4: u64,
    pub(crate) xcr0: u64,
    pub(crate) dr: [u64; 4],
    pub(crate) dr6: u64,
    pub(crate) dr7: u64,
    /// DR6 bits of debug conditions met by the running instruction.
    pub(crate) pending_debug: u64,
    /// PAUSEs executed, modulo the range.
    pub(crate) pauses: u32,
    /// The board had an interrupt when IF or the shadow held it off.
    pub(crate) interrupt_waiting: bool,
    pub(crate) msr: Msrs,
    /// Guest TSC minus host TSC.
    pub(crate) tsc_offset: u64,
    pub(crate) fpu: Fpu,
    pub(crate) id: usize,
    pub(crate) memory: Arc<Memory>,
    pub(crate) bell: Arc<Attention>,
    pub(crate) tlb: Tlb,
    pub(crate) traces: TraceCache,
    /// The board, while [`Vcpu::run`] runs.
    pub(crate) bus: Option<*mut (dyn Bus + 'static)>,
}

/// A CPU owned by one thread.
pub struct Vcpu {
    pub(crate) cpu: Box<Cpu>,
}

// SAFETY: the raw pointers of `Cpu` point into itself (boxed), into `memory` and `bell` (kept alive by
// their `Arc`s), or at a board that is set only while `run` borrows it.
unsafe impl Send for Vcpu {}

impl std::fmt::Debug for Vcpu {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Vcpu")
            .field("id", &self.cpu.id)
            .field("rip", &self.cpu.rip)
            .finish()
    }
}

impl Cpu {
    /// RFLAGS as the guest sees them.
    pub(crate) fn flags(&self) -> u64 {
        self.rflags | crate::flags::to_rflags(self.status)
    }

    /// Sets all of RFLAGS.
    pub(crate) fn set_flags(&mut self, value: u64) {
        self.status = crate::flags::from_rflags(value);
        let old = self.rflags;
        self.rflags = value & !rflags::STATUS | rflags::FIXED;
        if (old ^ value) & (rflags::AC | rflags::VM | rflags::TF | rflags::IF) != 0 {
            self.flags_changed();
        }
    }

    pub(crate) fn is_long(&self) -> bool {
        self.msr.efer & cr::EFER_LMA != 0
    }

    pub(crate) fn is_protected(&self) -> bool {
        self.cr0 & cr::CR0_PE != 0
    }

    pub(crate) fn is_v86(&self) -> bool {
        self.rflags & rflags::VM != 0
    }

    /// The board.
    pub(crate) fn bus(&mut self) -> &mut dyn Bus {
        let bus = self
            .bus
            .expect("a board is attached while instructions run");
        // SAFETY: `run` holds the unique borrow of the board for as long as `bus` is set.
        unsafe { &mut *bus }
    }

    /// Calls the board while other CPUs need not wait for this one.
    pub(crate) fn on_board<R>(&mut self, call: impl FnOnce(&mut dyn Bus) -> R) -> R {
        self.bell.set_outside(true);
        let answer = call(self.bus());
        self.bell.set_outside(false);
        if self.bell.has_mail() {
            self.read_mail();
        }
        answer
    }
}

impl Vcpu {
    /// A CPU as it is after power-on (SDM vol. 3 §9.1.1): real mode, at 0xf000:0xfff0.
    ///
    /// # Panics
    /// When `memory` was not made for a CPU of this number.
    #[must_use]
    pub fn new(id: usize, memory: Arc<Memory>) -> Self {
        let bell = memory.attention(id);
        let mut cpu = Box::new(Cpu {
            regs: [0; 18],
            status: 0,
            budget: 0,
            attention: std::ptr::from_ref(bell.word()),
            tlb_now: std::ptr::null_mut(),
            tlb_tag: 1,
            jump_tag: 0,
            seg_base: [0; 8],
            fault: None,
            parked: 0,
            rip: 0xfff0,
            rflags: rflags::FIXED,
            cpl: 0,
            mode: Mode {
                bits: 16,
                wide_stack: false,
            },
            shadow: false,
            nmi_blocked: false,
            halted: false,
            shutdown: false,
            wait_for_sipi: false,
            skip_step: false,
            segs: [Segment::default(); 6],
            ldtr: Segment::default(),
            tr: Segment::default(),
            gdtr: TableRegister::default(),
            idtr: TableRegister::default(),
            cr0: cr::CR0_ET | cr::CR0_NW | cr::CR0_CD,
            cr2: 0,
            cr3: 0,
            cr4: 0,
            xcr0: 1,
            dr: [0; 4],
            dr6: 0xffff_0ff0,
            dr7: 0x400,
            pending_debug: 0,
            pauses: 0,
            interrupt_waiting: false,
            msr: Msrs::default(),
            tsc_offset: 0,
            fpu: Fpu::new(),
            id,
            memory,
            bell,
            tlb: Tlb::new(),
            traces: TraceCache::new(),
            bus: None,
        });
        cpu.tlb_tag = cpu.tlb.fresh_tag();
        cpu.class_changed();
        let mut vcpu = Self { cpu };
        vcpu.reset();
        vcpu
    }
}
