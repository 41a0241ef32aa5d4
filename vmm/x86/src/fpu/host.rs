//! The long tail of SSE and MMX: instructions that run from a stub.

#![expect(unsafe_code, reason = "reads and writes the host's MXCSR")]

use std::arch::asm;

use iced_x86::{CpuidFeature, Instruction, Mnemonic, OpKind, Register};

use super::stub::{self, Frame, Stub};
use super::{MXCSR_FLAGS, MXCSR_MASKS, takes_unaligned, with_memory};
use crate::cpu::{Cpu, Mode, RAX, RCX, RDX, cr};
use crate::fault::Fault;
use crate::lower::Lowered;
use crate::op::called::then_next;
use crate::op::{Done, Handler, Op, register_offset};

pub(super) fn read_mxcsr() -> u32 {
    let mut value = 0u32;
    // SAFETY: stores four bytes into `value`.
    unsafe { asm!("stmxcsr [{}]", in(reg) &raw mut value, options(nostack, preserves_flags)) };
    value
}

pub(super) fn write_mxcsr(value: u32) {
    // SAFETY: the value has no reserved bits and all exceptions masked; rounding of Rust's own float
    // arithmetic on this thread, of which there is none between `enter_run` and `leave_run`, follows it.
    unsafe { asm!("ldmxcsr [{}]", in(reg) &raw const value, options(nostack, preserves_flags)) };
}

/// What the operands of a form are, in [`Op::extra`].
mod form {
    /// ModRM.reg is an XMM register that is read and written.
    pub(super) const REG_XMM: u8 = 1;
    /// ModRM.reg is a general register that is written.
    pub(super) const REG_GPR: u8 = 2;
    /// ModRM.rm is an XMM register.
    pub(super) const RM_XMM: u8 = 4;
    /// ModRM.rm is a general register.
    pub(super) const RM_GPR: u8 = 8;
    /// ModRM.rm is written, not ModRM.reg.
    pub(super) const RM_WRITTEN: u8 = 16;
    /// RAX, RDX are read, RCX and XMM0 written, by a string comparison.
    pub(super) const STRING: u8 = 32;
    /// The status flags are written.
    pub(super) const FLAGS: u8 = 64;
    /// MM registers are used, under their own numbers.
    pub(super) const MMX: u8 = 128;
}

/// General register operands are renamed to RSI.
const GPR: u8 = 6;
/// ModRM.rm of `[rdi]`.
const AT_RDI: u8 = 7;

/// The pieces of an instruction's encoding.
struct Encoding {
    prefix: Option<u8>,
    wide: bool,
    /// 0 for 0F, else 0x38 or 0x3a.
    map: u8,
    opcode: u8,
    modrm: u8,
}

fn parse(bytes: &[u8]) -> Option<Encoding> {
    let (mut prefix, mut wide, mut at) = (None, false, 0);
    loop {
        match *bytes.get(at)? {
            byte @ (0xf2 | 0xf3) => prefix = Some(byte),
            0x66 => prefix = prefix.or(Some(0x66)),
            0x26 | 0x2e | 0x36 | 0x3e | 0x64 | 0x65 | 0x67 => {}
            rex @ 0x40..=0x4f if bytes.get(at + 1) == Some(&0x0f) => wide = rex & 8 != 0,
            0x0f => break,
            _ => return None,
        }
        at += 1;
    }
    let map = match *bytes.get(at + 1)? {
        map @ (0x38 | 0x3a) => map,
        _ => 0,
    };
    let at = at + 1 + usize::from(map != 0);
    Some(Encoding {
        prefix,
        wide,
        map,
        opcode: *bytes.get(at)?,
        modrm: *bytes.get(at + 1)?,
    })
}

impl Encoding {
    /// Whether ModRM.reg is part of the opcode (shifts by an immediate).
    fn is_group(&self) -> bool {
        self.map == 0 && matches!(self.opcode, 0x71..=0x73)
    }

    /// Whether the first operand is ModRM.rm.
    fn writes_rm(&self) -> bool {
        self.is_group() || matches!((self.map, self.opcode), (0, 0x7e) | (0x3a, 0x14..=0x17))
    }

    /// The instruction with its registers renamed and its memory operand at `[rdi]`.
    fn rename(&self, reg: Register, rm: Register, memory: bool, imm: Option<u8>) -> Vec<u8> {
        let field = |register: Register, own: u8, xmm: u8| {
            if register.is_xmm() {
                xmm
            } else if register.is_gpr() {
                GPR
            } else {
                own & 7
            }
        };
        let rm = if memory {
            AT_RDI
        } else {
            0xc0 | field(rm, self.modrm, 1)
        };
        let mut out = Vec::with_capacity(10);
        out.extend(self.prefix);
        out.extend(self.wide.then_some(0x48));
        out.push(0x0f);
        out.extend((self.map != 0).then_some(self.map));
        out.extend([self.opcode, rm | field(reg, self.modrm >> 3, 2) << 3]);
        out.extend(imm);
        out
    }
}

/// Whether an instruction is one that runs from a stub: of a feature that this CPU has, and touching
/// nothing but registers and one memory operand.
fn in_tables(insn: &Instruction) -> bool {
    use CpuidFeature as F;
    use Mnemonic as M;
    let feature = |f: &F| {
        matches!(
            f,
            F::SSE | F::SSE2 | F::SSE3 | F::SSSE3 | F::SSE4_1 | F::SSE4_2 | F::AES
        ) || matches!(f, F::PCLMULQDQ | F::MMX)
    };
    let elsewhere = matches!(
        insn.mnemonic(),
        M::Ldmxcsr
            | M::Stmxcsr
            | M::Maskmovdqu
            | M::Maskmovq
            | M::Crc32
            | M::Movntq
            | M::Movnti
            | M::Pause
            | M::Lfence
            | M::Mfence
            | M::Sfence
            | M::Clflush
            | M::Prefetchnta
            | M::Prefetcht0
            | M::Prefetcht1
            | M::Prefetcht2
            | M::Monitor
            | M::Mwait
            | M::Fisttp
            | M::Emms
            | M::Popcnt
    );
    insn.cpuid_features().iter().all(feature) && !elsewhere
}

/// The record of an instruction that runs from a stub.
pub(super) fn lower(insn: &Instruction, mode: Mode, bytes: &[u8]) -> Option<Lowered> {
    if !in_tables(insn) {
        return None;
    }
    let encoding = parse(bytes)?;
    let register = |n: u32| match insn.op_kind(n) {
        OpKind::Register => insn.op_register(n),
        _ => Register::None,
    };
    let (reg_at, rm_at) = if encoding.writes_rm() { (1, 0) } else { (0, 1) };
    let memory = insn.op_kind(rm_at) == OpKind::Memory;
    let reg = if encoding.is_group() {
        Register::None
    } else {
        register(reg_at)
    };
    let rm = register(rm_at);
    let immediate = (0..insn.op_count()).any(|n| insn.op_kind(n) == OpKind::Immediate8);
    let renamed = encoding.rename(reg, rm, memory, immediate.then(|| insn.immediate8()));
    let size = if memory { insn.memory_size().size() } else { 0 };
    let mut op = Op::new(handler(
        size,
        takes_unaligned(insn.code()),
        encoding.writes_rm(),
    )?);
    with_memory(&mut op, insn, mode);
    op.imm = stub::stub(&renamed)?.bits();
    op.extra = form_of(insn, reg, rm, encoding.writes_rm());
    op.dst = register_field(reg);
    op.src = register_field(rm);
    Some(Lowered::Next(op))
}

fn handler(size: usize, unaligned: bool, writes: bool) -> Option<Handler> {
    Some(match (size, writes) {
        (0, _) => then_next(run::<0, false, false>),
        (1, true) => then_next(run::<1, false, true>),
        (2, true) => then_next(run::<2, false, true>),
        (4, true) => then_next(run::<4, false, true>),
        (8, true) => then_next(run::<8, false, true>),
        (1, false) => then_next(run::<1, false, false>),
        (2, false) => then_next(run::<2, false, false>),
        (4, false) => then_next(run::<4, false, false>),
        (8, false) => then_next(run::<8, false, false>),
        (16, false) if unaligned => then_next(run::<16, false, false>),
        (16, false) => then_next(run::<16, true, false>),
        _ => return None,
    })
}

fn register_field(register: Register) -> u8 {
    if register.is_gpr() {
        register_offset(register)
    } else {
        register.number() as u8
    }
}

fn form_of(insn: &Instruction, reg: Register, rm: Register, writes_rm: bool) -> u8 {
    use Mnemonic as M;
    let bit = |on: bool, bit: u8| if on { bit } else { 0 };
    let string = matches!(
        insn.mnemonic(),
        M::Pcmpestri | M::Pcmpestri64 | M::Pcmpestrm | M::Pcmpestrm64 | M::Pcmpistri | M::Pcmpistrm
    );
    let flags = matches!(
        insn.mnemonic(),
        M::Ptest | M::Comiss | M::Comisd | M::Ucomiss | M::Ucomisd
    );
    let mmx = reg.is_mm() || rm.is_mm() || matches!(insn.mnemonic(), M::Cvtpi2ps);
    bit(reg.is_xmm(), form::REG_XMM)
        | bit(reg.is_gpr(), form::REG_GPR)
        | bit(rm.is_xmm(), form::RM_XMM)
        | bit(rm.is_gpr(), form::RM_GPR)
        | bit(writes_rm, form::RM_WRITTEN)
        | bit(string, form::STRING)
        | bit(flags || string, form::FLAGS)
        | bit(mmx, form::MMX)
}

/// Runs the stub of `op` with a memory operand of `SIZE` bytes (0: none).
#[inline(never)]
fn run<const SIZE: usize, const ALIGNED: bool, const WRITES: bool>(cpu: &mut Cpu, op: &Op) -> Done {
    if op.extra & form::MMX != 0 {
        cpu.start_mmx()?;
    } else {
        cpu.check_sse()?;
    }
    let mut frame = Frame::default();
    let mut la = 0;
    if SIZE != 0 {
        la = cpu.operand_address(op, SIZE as u64, WRITES)?;
        if ALIGNED && la & 15 != 0 {
            return Err(Fault::GP0);
        }
        if !WRITES {
            frame.memory = cpu.read_sized(la, usize::from(op.seg), SIZE)?;
        }
    }
    load(cpu, op, &mut frame);
    cpu.run_simd(Stub::from_bits(op.imm), &mut frame)?;
    if WRITES {
        cpu.write_sized(la, usize::from(op.seg), SIZE, frame.memory)?;
    }
    store(cpu, op, &frame);
    Ok(())
}

fn load(cpu: &Cpu, op: &Op, frame: &mut Frame) {
    if op.extra & form::REG_XMM != 0 {
        frame.reg = cpu.fpu.xmm[usize::from(op.dst & 15)];
    }
    if op.extra & form::RM_XMM != 0 {
        frame.rm = cpu.fpu.xmm[usize::from(op.src & 15)];
    }
    if op.extra & form::RM_GPR != 0 {
        frame.gpr = cpu.reg(op.src);
    }
    frame.xmm0 = cpu.fpu.xmm[0];
    frame.rax = cpu.regs[RAX];
    frame.rdx = cpu.regs[RDX];
    frame.rcx = cpu.regs[RCX];
}

fn store(cpu: &mut Cpu, op: &Op, frame: &Frame) {
    if op.extra & form::FLAGS != 0 {
        cpu.status = frame.status;
    }
    if op.extra & form::STRING != 0 {
        cpu.regs[RCX] = frame.rcx;
        cpu.fpu.xmm[0] = frame.xmm0;
        return;
    }
    let written = if op.extra & form::RM_WRITTEN != 0 {
        (form::RM_XMM, form::RM_GPR, op.src, frame.rm)
    } else {
        (form::REG_XMM, form::REG_GPR, op.dst, frame.reg)
    };
    if op.extra & form::FLAGS == 0 && op.extra & written.0 != 0 {
        cpu.fpu.xmm[usize::from(written.2 & 15)] = written.3;
    } else if op.extra & written.1 != 0 {
        cpu.set_reg(written.2, frame.gpr);
    }
}

impl Cpu {
    /// Reads 1 to 16 bytes.
    pub(super) fn read_sized(&mut self, la: u64, seg: usize, size: usize) -> Done<u128> {
        Ok(match size {
            1 => self.read::<u8>(la, seg)?.into(),
            2 => self.read::<u16>(la, seg)?.into(),
            4 => self.read::<u32>(la, seg)?.into(),
            8 => self.read::<u64>(la, seg)?.into(),
            _ => self.read::<u128>(la, seg)?,
        })
    }

    /// Writes 1 to 16 bytes.
    pub(super) fn write_sized(&mut self, la: u64, seg: usize, size: usize, value: u128) -> Done {
        match size {
            1 => self.write(la, seg, value as u8),
            2 => self.write(la, seg, value as u16),
            4 => self.write(la, seg, value as u32),
            8 => self.write(la, seg, value as u64),
            _ => self.write(la, seg, value),
        }
    }

    /// Runs a SIMD stub; #XM where it raised an exception that the guest has unmasked.
    fn run_simd(&mut self, stub: Stub, frame: &mut Frame) -> Done {
        if !self.fpu.unmasked {
            stub::run(stub, frame);
            return Ok(());
        }
        self.checked(|| stub::run(stub, frame))
    }

    /// Runs `operation`, one of the hot floating-point instructions, as [`Cpu::run_simd`] runs a stub.
    #[inline(always)]
    pub(super) fn float<T>(&mut self, operation: impl FnOnce() -> T) -> Done<T> {
        if self.fpu.unmasked {
            self.checked(operation)
        } else {
            Ok(operation())
        }
    }

    #[cold]
    #[inline(never)]
    fn checked<T>(&mut self, operation: impl FnOnce() -> T) -> Done<T> {
        let before = self.fpu.mxcsr();
        write_mxcsr(before & !MXCSR_FLAGS | MXCSR_MASKS);
        let result = operation();
        let raised = read_mxcsr() & MXCSR_FLAGS;
        self.fpu.set_mxcsr(before | raised);
        if raised & !(before >> 7) == 0 {
            return Ok(result);
        }
        let delivered = self.cr4 & cr::CR4_OSXMMEXCPT != 0;
        Err(if delivered { Fault::XM } else { Fault::UD })
    }
}
