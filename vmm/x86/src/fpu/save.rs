//! FXSAVE, XSAVE and their like (SDM vol. 1 chapters 10 and 13), and the instructions on MXCSR.

use iced_x86::{Instruction, Mnemonic, OpKind, Register};

use super::image::X87;
use super::{Fpu, MXCSR_MASK, MXCSR_RESET, with_memory};
use crate::cpu::{Cpu, Mode, RAX, RDI, RDX, cr};
use crate::fault::Fault;
use crate::lower::Lowered;
use crate::op::called::then_next;
use crate::op::{Done, Op};

/// Bytes of an XSAVE area in standard format for x87 and SSE.
pub(crate) const XSAVE_BYTES: usize = 576;
const X87_STATE: u64 = 1;
const SSE_STATE: u64 = 2;

impl Fpu {
    /// The first 512 bytes of an XSAVE area: all that FXSAVE writes.
    fn legacy_area(&mut self) -> [u8; 512] {
        let mut out = [0; 512];
        out[..160].copy_from_slice(&self.x87.get().to_fxsave());
        out[24..28].copy_from_slice(&self.mxcsr().to_le_bytes());
        out[28..32].copy_from_slice(&MXCSR_MASK.to_le_bytes());
        for (slot, value) in out[160..416].chunks_exact_mut(16).zip(self.xmm) {
            slot.copy_from_slice(&value.to_le_bytes());
        }
        out
    }

    fn load_x87(&mut self, area: &[u8; 512]) {
        let mut image = [0; 160];
        image.copy_from_slice(&area[..160]);
        self.x87.set(X87::from_fxsave(&image));
    }

    fn load_xmm(&mut self, area: &[u8; 512], count: usize) {
        for (value, slot) in self
            .xmm
            .iter_mut()
            .zip(area[160..].chunks_exact(16))
            .take(count)
        {
            let mut bytes = [0; 16];
            bytes.copy_from_slice(slot);
            *value = u128::from_le_bytes(bytes);
        }
    }

    /// The state as an XSAVE area in standard format.
    pub(crate) fn save_xsave(&mut self) -> Vec<u8> {
        let mut out = vec![0; XSAVE_BYTES];
        out[..512].copy_from_slice(&self.legacy_area());
        out[512] = (X87_STATE | SSE_STATE) as u8;
        out
    }

    /// Takes over an XSAVE area in standard format, of which components other than x87 and SSE are left
    /// aside. `false` when it is too short or its MXCSR has bits that do not exist.
    pub(crate) fn load_xsave(&mut self, image: &[u8]) -> bool {
        let Some(area) = image.first_chunk::<512>() else {
            return false;
        };
        let mxcsr = word(area, 24);
        let present = image.get(512).copied().unwrap_or(3);
        if mxcsr & !MXCSR_MASK != 0 {
            return false;
        }
        if u64::from(present) & X87_STATE != 0 {
            self.load_x87(area);
        } else {
            self.x87.set(X87::RESET);
        }
        if u64::from(present) & SSE_STATE != 0 {
            self.load_xmm(area, 16);
            self.set_mxcsr(mxcsr);
        } else {
            self.xmm = [0; 16];
            self.set_mxcsr(MXCSR_RESET);
        }
        true
    }
}

fn word(area: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([area[at], area[at + 1], area[at + 2], area[at + 3]])
}

impl Cpu {
    fn check_fxsave(&self) -> Done {
        if self.cr0 & (cr::CR0_EM | cr::CR0_TS) != 0 {
            Err(Fault::NM)
        } else {
            Ok(())
        }
    }

    fn xmm_count(&self) -> usize {
        if self.mode.bits == 64 { 16 } else { 8 }
    }

    fn aligned_area(&mut self, op: &Op, size: u64, align: u64, write: bool) -> Done<u64> {
        let la = self.operand_address(op, size, write)?;
        if la & (align - 1) != 0 {
            Err(Fault::GP0)
        } else {
            Ok(la)
        }
    }

    /// Makes sure that all of a large store will succeed.
    fn probe_store(&mut self, la: u64, seg: usize, size: u64) -> Done {
        self.pointer_for_update(la, seg, 16)?;
        self.pointer_for_update(la.wrapping_add(size - 16), seg, 16)?;
        Ok(())
    }

    fn store_range(&mut self, la: u64, seg: usize, area: &[u8], from: usize, to: usize) -> Done {
        for at in (from..to).step_by(8) {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&area[at..at + 8]);
            self.write(la.wrapping_add(at as u64), seg, u64::from_le_bytes(bytes))?;
        }
        Ok(())
    }

    fn load_area<const N: usize>(&mut self, la: u64, seg: usize) -> Done<[u8; N]> {
        let mut area = [0; N];
        for (n, slot) in area.chunks_exact_mut(8).enumerate() {
            let value = self.read::<u64>(la.wrapping_add(8 * n as u64), seg)?;
            slot.copy_from_slice(&value.to_le_bytes());
        }
        Ok(area)
    }

    fn xsave_mask(&self) -> Done<u64> {
        if self.cr4 & cr::CR4_OSXSAVE == 0 {
            return Err(Fault::UD);
        }
        if self.cr0 & cr::CR0_TS != 0 {
            return Err(Fault::NM);
        }
        let asked = self.regs[RAX] & 0xffff_ffff | self.regs[RDX] << 32;
        Ok(asked & self.xcr0)
    }
}

#[inline(never)]
fn fxsave(cpu: &mut Cpu, op: &Op) -> Done {
    cpu.check_fxsave()?;
    let la = cpu.aligned_area(op, 512, 16, true)?;
    let seg = usize::from(op.seg);
    cpu.probe_store(la, seg, 416)?;
    let area = cpu.fpu.legacy_area();
    cpu.store_range(la, seg, &area, 0, 160 + 16 * cpu.xmm_count())
}

#[inline(never)]
fn fxrstor(cpu: &mut Cpu, op: &Op) -> Done {
    cpu.check_fxsave()?;
    let la = cpu.aligned_area(op, 512, 16, false)?;
    let area = cpu.load_area::<512>(la, usize::from(op.seg))?;
    let mxcsr = word(&area, 24);
    if mxcsr & !MXCSR_MASK != 0 {
        return Err(Fault::GP0);
    }
    cpu.fpu.load_x87(&area);
    cpu.fpu.load_xmm(&area, cpu.xmm_count());
    cpu.fpu.set_mxcsr(mxcsr);
    Ok(())
}

#[inline(never)]
fn xsave(cpu: &mut Cpu, op: &Op) -> Done {
    let mask = cpu.xsave_mask()?;
    let la = cpu.aligned_area(op, XSAVE_BYTES as u64, 64, true)?;
    let seg = usize::from(op.seg);
    cpu.probe_store(la, seg, XSAVE_BYTES as u64)?;
    let area = cpu.fpu.legacy_area();
    if mask & X87_STATE != 0 {
        cpu.store_range(la, seg, &area, 0, 24)?;
        cpu.store_range(la, seg, &area, 32, 160)?;
    }
    if mask & SSE_STATE != 0 {
        cpu.store_range(la, seg, &area, 24, 32)?;
        cpu.store_range(la, seg, &area, 160, 160 + 16 * cpu.xmm_count())?;
    }
    let header = cpu.read::<u64>(la.wrapping_add(512), seg)?;
    cpu.write(
        la.wrapping_add(512),
        seg,
        header | mask & (X87_STATE | SSE_STATE),
    )
}

#[inline(never)]
fn xrstor(cpu: &mut Cpu, op: &Op) -> Done {
    let mask = cpu.xsave_mask()?;
    let la = cpu.aligned_area(op, XSAVE_BYTES as u64, 64, false)?;
    let area = cpu.load_area::<XSAVE_BYTES>(la, usize::from(op.seg))?;
    let present = u64::from(word(&area, 512)) | u64::from(word(&area, 516)) << 32;
    let reserved = area[520..536].iter().any(|&b| b != 0);
    let mxcsr = word(&area, 24);
    let takes_mxcsr = mask & SSE_STATE != 0;
    if present & !cpu.xcr0 != 0 || reserved || takes_mxcsr && mxcsr & !MXCSR_MASK != 0 {
        return Err(Fault::GP0);
    }
    let legacy = area
        .first_chunk::<512>()
        .expect("an XSAVE area has a legacy area");
    match (mask & X87_STATE != 0, present & X87_STATE != 0) {
        (true, true) => cpu.fpu.load_x87(legacy),
        (true, false) => cpu.fpu.x87.set(X87::RESET),
        (false, _) => {}
    }
    if takes_mxcsr {
        cpu.fpu.set_mxcsr(mxcsr);
        let count = cpu.xmm_count();
        if present & SSE_STATE != 0 {
            cpu.fpu.load_xmm(legacy, count);
        } else {
            cpu.fpu.xmm[..count].fill(0);
        }
    }
    Ok(())
}

#[inline(never)]
fn ldmxcsr(cpu: &mut Cpu, op: &Op) -> Done {
    cpu.check_sse()?;
    let la = cpu.operand_address(op, 4, false)?;
    let value = cpu.read::<u32>(la, usize::from(op.seg))?;
    if value & !MXCSR_MASK != 0 {
        return Err(Fault::GP0);
    }
    cpu.fpu.set_mxcsr(value);
    Ok(())
}

#[inline(never)]
fn stmxcsr(cpu: &mut Cpu, op: &Op) -> Done {
    cpu.check_sse()?;
    let la = cpu.operand_address(op, 4, true)?;
    let value = cpu.fpu.mxcsr();
    cpu.write(la, usize::from(op.seg), value)
}

/// MASKMOVDQU: stores the bytes of one register that the other's sign bits select at DS:RDI.
#[inline(never)]
fn maskmovdqu(cpu: &mut Cpu, op: &Op) -> Done {
    cpu.check_sse()?;
    let la = cpu.operand_address(op, 16, true)?;
    let data = cpu.fpu.xmm[usize::from(op.dst & 15)].to_le_bytes();
    let mask = cpu.fpu.xmm[usize::from(op.src & 15)].to_le_bytes();
    let seg = usize::from(op.seg);
    if mask.iter().any(|m| m & 0x80 != 0) {
        cpu.pointer_for_update(la, seg, 16)?;
    }
    for (n, (byte, _)) in data
        .iter()
        .zip(mask)
        .enumerate()
        .filter(|(_, (_, m))| m & 0x80 != 0)
    {
        cpu.write(la.wrapping_add(n as u64), seg, *byte)?;
    }
    Ok(())
}

/// The low 64 bits of MM register `n`.
fn mm(state: &X87, n: u8) -> u64 {
    // After an MMX instruction TOP is 0, so ST(n) is physical register n.
    let top = state.fsw >> 11 & 7;
    let value = &state.st[usize::from((u16::from(n)).wrapping_sub(top) & 7)];
    let mut low = [0; 8];
    low.copy_from_slice(&value[..8]);
    u64::from_le_bytes(low)
}

impl Cpu {
    /// MM registers of an instruction that the host cannot run, with what MMX does to the stack.
    fn mmx_state(&mut self) -> Done<X87> {
        self.start_mmx()?;
        Ok(self.fpu.x87.get().with_top_zero(0))
    }
}

#[inline(never)]
fn maskmovq(cpu: &mut Cpu, op: &Op) -> Done {
    let state = cpu.mmx_state()?;
    let la = cpu.operand_address(op, 8, true)?;
    let (data, mask) = (
        mm(&state, op.dst).to_le_bytes(),
        mm(&state, op.src).to_le_bytes(),
    );
    for (n, (byte, _)) in data
        .iter()
        .zip(mask)
        .enumerate()
        .filter(|(_, (_, m))| m & 0x80 != 0)
    {
        cpu.write(la.wrapping_add(n as u64), usize::from(op.seg), *byte)?;
    }
    cpu.fpu.x87.set(state);
    Ok(())
}

#[inline(never)]
fn store_mm(cpu: &mut Cpu, op: &Op) -> Done {
    let state = cpu.mmx_state()?;
    let la = cpu.operand_address(op, 8, true)?;
    cpu.write(la, usize::from(op.seg), mm(&state, op.src))?;
    cpu.fpu.x87.set(state);
    Ok(())
}

/// The record of an instruction of this module.
pub(super) fn lower(insn: &Instruction, mode: Mode) -> Option<Lowered> {
    use Mnemonic as M;
    let run = match insn.mnemonic() {
        M::Fxsave | M::Fxsave64 => then_next(fxsave),
        M::Fxrstor | M::Fxrstor64 => then_next(fxrstor),
        M::Xsave | M::Xsave64 | M::Xsaveopt | M::Xsaveopt64 => then_next(xsave),
        M::Xrstor | M::Xrstor64 => then_next(xrstor),
        M::Ldmxcsr => then_next(ldmxcsr),
        M::Stmxcsr => then_next(stmxcsr),
        M::Maskmovdqu => then_next(maskmovdqu),
        M::Maskmovq => then_next(maskmovq),
        M::Movntq => then_next(store_mm),
        M::Movq if insn.op0_kind() == OpKind::Memory && insn.op1_register().is_mm() => {
            then_next(store_mm)
        }
        _ => return None,
    };
    let mut op = Op::new(run);
    with_memory(&mut op, insn, mode);
    if matches!(insn.mnemonic(), M::Maskmovdqu | M::Maskmovq) {
        op.base = RDI as u8 * 8;
        op.seg = (insn.memory_segment() as u8).wrapping_sub(Register::ES as u8);
        op.address_bits = match insn.op0_kind() {
            OpKind::MemorySegDI => 16,
            OpKind::MemorySegEDI => 32,
            _ => 64,
        };
        op.dst = super::number(insn, 1);
        op.src = super::number(insn, 2);
    } else if insn.op_count() == 2 && insn.op1_kind() == OpKind::Register {
        op.src = super::number(insn, 1);
    }
    Some(Lowered::Next(op))
}
