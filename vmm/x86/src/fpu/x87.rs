//! x87 and MMX: the guest's registers live in the host's while its instructions run there.

#![expect(unsafe_code, reason = "loads, stores and asks the host's x87 unit")]

use std::arch::asm;

use iced_x86::{Instruction, Mnemonic, OpKind};

use super::image::X87;
use super::stub::{self, Stub};
use super::with_memory;
use crate::cpu::{Cpu, Mode, RAX, cr};
use crate::fault::Fault;
use crate::lower::Lowered;
use crate::op::called::then_next;
use crate::op::{Done, Handler, Op};

const MASKS: u16 = 0x3f;
/// Exceptions found before an instruction computes, which leave its operands alone when unmasked: #I, #D, #Z.
const BEFORE: u16 = 7;

/// The x87 registers, here or in the host's.
pub(super) struct Resident {
    /// The state, while `inside` is false; its control word is the guest's always.
    saved: X87,
    /// The host's registers hold the state, with all exceptions masked.
    inside: bool,
}

impl Resident {
    pub(super) fn new() -> Self {
        Self {
            saved: X87::RESET,
            inside: false,
        }
    }

    fn load(&mut self) {
        if self.inside {
            return;
        }
        let mut masked = self.saved;
        masked.fcw |= MASKS;
        let image = masked.with_pending().to_fsave();
        // SAFETY: reads the 108 bytes of `image`; no Rust code uses the x87 registers.
        unsafe { asm!("frstor [{}]", in(reg) image.as_ptr(), options(nostack, readonly)) };
        self.inside = true;
    }

    /// Takes the state out of the host's registers, which are left as after FNINIT.
    pub(super) fn evict(&mut self) {
        if !self.inside {
            return;
        }
        let mut image = [0u8; 108];
        // SAFETY: writes the 108 bytes of `image`.
        unsafe { asm!("fnsave [{}]", in(reg) image.as_mut_ptr(), options(nostack)) };
        let (fcw, fip) = (self.saved.fcw, self.saved.fip);
        self.saved = X87 {
            fcw,
            fip,
            ..X87::from_fsave(&image)
        }
        .with_pending();
        self.inside = false;
    }

    /// The state.
    pub(super) fn get(&mut self) -> X87 {
        self.evict();
        self.saved
    }

    /// Sets the state.
    pub(super) fn set(&mut self, state: X87) {
        self.evict();
        self.saved = X87 {
            fcw: state.fcw | 0x40,
            ..state
        }
        .with_pending();
    }

    /// FNINIT: the registers keep their values.
    fn init(&mut self) {
        let state = self.get().with_top_zero(0xffff);
        self.set(X87 {
            st: state.st,
            ..X87::RESET
        });
    }

    /// The status word, ES and B as the guest's masks make them.
    fn status_word(&mut self) -> u16 {
        if !self.inside {
            return self.saved.fsw;
        }
        let word: u16;
        // SAFETY: reads the status word.
        unsafe { asm!("fnstsw ax", out("ax") word, options(nomem, nostack, preserves_flags)) };
        X87 {
            fsw: word,
            ..self.saved
        }
        .with_pending()
        .fsw
    }

    fn has_unmasked(&self) -> bool {
        self.saved.fcw & MASKS != MASKS
    }
}

impl Cpu {
    /// Readies the unit for an instruction that waits: #NM, #MF, then loads the registers.
    fn start_x87(&mut self) -> Done {
        if let Some(fault) = self.fpu.x87_fault {
            return Err(fault);
        }
        self.raise_pending()?;
        self.fpu.x87.load();
        Ok(())
    }

    /// As [`Cpu::start_x87`], for an MMX instruction.
    pub(super) fn start_mmx(&mut self) -> Done {
        if let Some(fault) = self.fpu.mmx_fault {
            return Err(fault);
        }
        self.raise_pending()?;
        self.fpu.x87.load();
        Ok(())
    }

    fn raise_pending(&mut self) -> Done {
        let pending = self.fpu.x87.has_unmasked() && self.fpu.x87.status_word() & 0x80 != 0;
        if pending { Err(Fault::MF) } else { Ok(()) }
    }
}

/// Runs the stub of `op` with a memory operand of `SIZE` bytes (0: none).
#[inline(never)]
fn run<const SIZE: usize, const WRITES: bool>(cpu: &mut Cpu, op: &Op) -> Done {
    cpu.start_x87()?;
    let mut memory = [0; 16];
    let seg = usize::from(op.seg);
    let mut la = 0;
    if SIZE != 0 {
        la = cpu.operand_address(op, SIZE as u64, WRITES)?;
        if WRITES {
            cpu.pointer_for_update(la, seg, SIZE as u64)?;
        } else {
            memory = cpu.read_float(la, seg, SIZE)?.to_le_bytes();
        }
    }
    cpu.fpu.x87.saved.fip = cpu.rip_of(op);
    let stub = Stub::from_bits(op.imm);
    let status = cpu.status;
    let unit = &mut cpu.fpu.x87;
    let done = if unit.has_unmasked() {
        unit.run_unmasked(stub, &mut memory, status)
    } else {
        Some(stub::run_x87(stub, &mut memory, status))
    };
    let Some(status) = done else { return Ok(()) };
    cpu.status = status;
    if WRITES {
        cpu.write_float(la, seg, SIZE, u128::from_le_bytes(memory))?;
    }
    Ok(())
}

impl Resident {
    /// Runs a stub when some exception is unmasked. `None` when one came up that keeps the instruction from
    /// happening: it is pending now.
    fn run_unmasked(&mut self, stub: Stub, memory: &mut [u8; 16], status: u32) -> Option<u32> {
        let before = self.get();
        self.saved.fsw &= !MASKS;
        self.load();
        let status = stub::run_x87(stub, memory, status);
        let after = self.get();
        let raised = after.fsw & MASKS;
        let stopped = raised & BEFORE & !before.fcw != 0;
        let kept = if stopped { before } else { after };
        let fsw = kept.fsw | before.fsw & MASKS | raised;
        self.saved = X87 { fsw, ..kept }.with_pending();
        (!stopped).then_some(status)
    }
}

impl Cpu {
    fn read_float(&mut self, la: u64, seg: usize, size: usize) -> Done<u128> {
        if size != 10 {
            return self.read_sized(la, seg, size);
        }
        let low = self.read::<u64>(la, seg)?;
        let high = self.read::<u16>(la.wrapping_add(8), seg)?;
        Ok(u128::from(high) << 64 | u128::from(low))
    }

    fn write_float(&mut self, la: u64, seg: usize, size: usize, value: u128) -> Done {
        if size != 10 {
            return self.write_sized(la, seg, size, value);
        }
        self.write(la, seg, value as u64)?;
        self.write(la.wrapping_add(8), seg, (value >> 64) as u16)
    }

    fn write_bytes(&mut self, la: u64, seg: usize, bytes: &[u8]) -> Done {
        self.pointer_for_update(la, seg, bytes.len() as u64)?;
        for (n, &byte) in bytes.iter().enumerate() {
            self.write(la.wrapping_add(n as u64), seg, byte)?;
        }
        Ok(())
    }

    fn read_bytes<const N: usize>(&mut self, la: u64, seg: usize) -> Done<[u8; N]> {
        let mut bytes = [0; N];
        for (n, byte) in bytes.iter_mut().enumerate() {
            *byte = self.read(la.wrapping_add(n as u64), seg)?;
        }
        Ok(bytes)
    }
}

fn no_wait(cpu: &Cpu) -> Done {
    match cpu.fpu.x87_fault {
        Some(fault) => Err(fault),
        None => Ok(()),
    }
}

#[inline(never)]
fn init(cpu: &mut Cpu, _op: &Op) -> Done {
    no_wait(cpu)?;
    cpu.fpu.x87.init();
    Ok(())
}

#[inline(never)]
fn clear_exceptions(cpu: &mut Cpu, _op: &Op) -> Done {
    no_wait(cpu)?;
    let state = cpu.fpu.x87.get();
    cpu.fpu.x87.set(X87 {
        fsw: state.fsw & 0x7f00,
        ..state
    });
    Ok(())
}

#[inline(never)]
fn store_control(cpu: &mut Cpu, op: &Op) -> Done {
    no_wait(cpu)?;
    let la = cpu.operand_address(op, 2, true)?;
    cpu.write(la, usize::from(op.seg), cpu.fpu.x87.saved.fcw)
}

#[inline(never)]
fn load_control(cpu: &mut Cpu, op: &Op) -> Done {
    no_wait(cpu)?;
    cpu.raise_pending()?;
    let la = cpu.operand_address(op, 2, false)?;
    let fcw = cpu.read::<u16>(la, usize::from(op.seg))?;
    let state = cpu.fpu.x87.get();
    cpu.fpu.x87.set(X87 { fcw, ..state });
    Ok(())
}

#[inline(never)]
fn store_status(cpu: &mut Cpu, op: &Op) -> Done {
    no_wait(cpu)?;
    let la = cpu.operand_address(op, 2, true)?;
    let word = cpu.fpu.x87.status_word();
    cpu.write(la, usize::from(op.seg), word)
}

#[inline(never)]
fn store_status_ax(cpu: &mut Cpu, _op: &Op) -> Done {
    no_wait(cpu)?;
    let word = cpu.fpu.x87.status_word();
    cpu.set_reg(RAX as u8 * 8, word);
    Ok(())
}

#[inline(never)]
fn store_env<const WIDE: bool>(cpu: &mut Cpu, op: &Op) -> Done {
    no_wait(cpu)?;
    let state = cpu.fpu.x87.get();
    let la = cpu.operand_address(op, if WIDE { 28 } else { 14 }, true)?;
    if WIDE {
        cpu.write_bytes(la, usize::from(op.seg), &state.to_env())?;
    } else {
        cpu.write_bytes(la, usize::from(op.seg), &state.to_env16())?;
    }
    cpu.fpu.x87.set(X87 {
        fcw: state.fcw | MASKS,
        ..state
    });
    Ok(())
}

#[inline(never)]
fn load_env<const WIDE: bool>(cpu: &mut Cpu, op: &Op) -> Done {
    no_wait(cpu)?;
    cpu.raise_pending()?;
    let la = cpu.operand_address(op, if WIDE { 28 } else { 14 }, false)?;
    let mut state = cpu.fpu.x87.get();
    if WIDE {
        state.set_env(&cpu.read_bytes::<28>(la, usize::from(op.seg))?);
    } else {
        state.set_env(&cpu.read_bytes::<14>(la, usize::from(op.seg))?);
    }
    cpu.fpu.x87.set(state);
    Ok(())
}

#[inline(never)]
fn save<const WIDE: bool>(cpu: &mut Cpu, op: &Op) -> Done {
    no_wait(cpu)?;
    let state = cpu.fpu.x87.get();
    let full = state.to_fsave();
    let la = cpu.operand_address(op, if WIDE { 108 } else { 94 }, true)?;
    if WIDE {
        cpu.write_bytes(la, usize::from(op.seg), &full)?;
    } else {
        let mut image = [0; 94];
        image[..14].copy_from_slice(&state.to_env16());
        image[14..].copy_from_slice(&full[28..]);
        cpu.write_bytes(la, usize::from(op.seg), &image)?;
    }
    cpu.fpu.x87.init();
    Ok(())
}

#[inline(never)]
fn restore<const WIDE: bool>(cpu: &mut Cpu, op: &Op) -> Done {
    no_wait(cpu)?;
    cpu.raise_pending()?;
    let la = cpu.operand_address(op, if WIDE { 108 } else { 94 }, false)?;
    let mut image = X87::RESET.to_fsave();
    let mut state = X87::RESET;
    let seg = usize::from(op.seg);
    if WIDE {
        image = cpu.read_bytes::<108>(la, seg)?;
        state.set_env(&image[..28]);
    } else {
        let short = cpu.read_bytes::<94>(la, seg)?;
        state.set_env(&short[..14]);
        image[28..].copy_from_slice(&short[14..]);
    }
    state.st = X87::from_fsave(&image).st;
    cpu.fpu.x87.set(state);
    Ok(())
}

#[inline(never)]
fn wait(cpu: &mut Cpu, _op: &Op) -> Done {
    if cpu.cr0 & cr::CR0_MP != 0 && cpu.cr0 & cr::CR0_TS != 0 {
        return Err(Fault::NM);
    }
    cpu.raise_pending()
}

#[inline(never)]
fn empty_mmx(cpu: &mut Cpu, _op: &Op) -> Done {
    cpu.start_mmx()?;
    let state = cpu.fpu.x87.get();
    cpu.fpu.x87.set(state.with_top_zero(0xffff));
    Ok(())
}

/// The instructions that are about the unit itself.
fn control(insn: &Instruction) -> Option<Handler> {
    use Mnemonic as M;
    let wide = insn.memory_size().size() != 14 && insn.memory_size().size() != 94;
    Some(match insn.mnemonic() {
        M::Fninit => then_next(init),
        M::Fnclex => then_next(clear_exceptions),
        M::Fnstcw => then_next(store_control),
        M::Fldcw => then_next(load_control),
        M::Fnstsw if insn.op0_kind() == OpKind::Memory => then_next(store_status),
        M::Fnstsw => then_next(store_status_ax),
        M::Fnstenv if wide => then_next(store_env::<true>),
        M::Fnstenv => then_next(store_env::<false>),
        M::Fldenv if wide => then_next(load_env::<true>),
        M::Fldenv => then_next(load_env::<false>),
        M::Fnsave if wide => then_next(save::<true>),
        M::Fnsave => then_next(save::<false>),
        M::Frstor if wide => then_next(restore::<true>),
        M::Frstor => then_next(restore::<false>),
        M::Wait => then_next(wait),
        M::Emms => then_next(empty_mmx),
        M::Fneni | M::Fndisi | M::Fnsetpm | M::Frstpm => then_next(|_: &mut Cpu, _: &Op| Ok(())),
        _ => return None,
    })
}

fn handler(size: usize, writes: bool) -> Option<Handler> {
    Some(match (size, writes) {
        (0, _) => then_next(run::<0, false>),
        (2, false) => then_next(run::<2, false>),
        (4, false) => then_next(run::<4, false>),
        (8, false) => then_next(run::<8, false>),
        (10, false) => then_next(run::<10, false>),
        (2, true) => then_next(run::<2, true>),
        (4, true) => then_next(run::<4, true>),
        (8, true) => then_next(run::<8, true>),
        (10, true) => then_next(run::<10, true>),
        _ => return None,
    })
}

/// The record of an x87 instruction.
pub(super) fn lower(insn: &Instruction, mode: Mode, bytes: &[u8]) -> Option<Lowered> {
    let memory = insn.op_count() > 0 && insn.op0_kind() == OpKind::Memory;
    if let Some(run) = control(insn) {
        let mut op = Op::new(run);
        with_memory(&mut op, insn, mode);
        return Some(Lowered::Next(op));
    }
    let prefixes = [0x66, 0x67, 0xf2, 0xf3, 0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65];
    let rex = |b: &u8| mode.bits == 64 && b & 0xf0 == 0x40;
    let at = bytes
        .iter()
        .position(|b| !prefixes.contains(b) && !rex(b))?;
    let (&opcode, &modrm) = (bytes.get(at)?, bytes.get(at + 1)?);
    if !(0xd8..=0xdf).contains(&opcode) {
        return None;
    }
    let modrm = if memory { modrm & 0x38 | 7 } else { modrm };
    use Mnemonic as M;
    let writes = matches!(
        insn.mnemonic(),
        M::Fst | M::Fstp | M::Fist | M::Fistp | M::Fisttp | M::Fbstp
    );
    let size = if memory { insn.memory_size().size() } else { 0 };
    let mut op = Op::new(handler(size, writes)?);
    with_memory(&mut op, insn, mode);
    op.imm = stub::stub(&[opcode, modrm])?.bits();
    Some(Lowered::Next(op))
}
