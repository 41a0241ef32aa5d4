//! The SSE instructions that programs run all the time.

#![expect(unsafe_code, reason = "SIMD on the host's own instructions")]

use std::arch::asm;
use std::arch::x86_64::__m128i;

use iced_x86::{Code, Instruction, OpKind};

use super::number;
use crate::cpu::{Cpu, Mode};
use crate::fault::Fault;
use crate::lower::Lowered;
use crate::mem::Word;
use crate::op::{Done, Ea, EaKind, Handler, Op, ea, register_offset, then_next};

fn to_simd(value: u128) -> __m128i {
    // SAFETY: both are 16 plain bytes.
    unsafe { std::mem::transmute(value) }
}

fn from_simd(value: __m128i) -> u128 {
    // SAFETY: both are 16 plain bytes.
    unsafe { std::mem::transmute(value) }
}

/// An instruction `op xmm, xmm/m` as a function of two values.
trait Binary: 'static {
    /// Bytes of the memory operand.
    type Memory: Word + Into<u128>;
    /// Whether it computes in floating point.
    const FLOAT: bool;
    fn compute(a: u128, b: u128) -> u128;
}

macro_rules! binary {
    ($($name:ident $memory:ty, $float:literal, $text:literal;)*) => {$(
        struct $name;
        impl Binary for $name {
            type Memory = $memory;
            const FLOAT: bool = $float;
            #[inline(always)]
            fn compute(a: u128, b: u128) -> u128 {
                let mut result = to_simd(a);
                // SAFETY: computes on registers.
                unsafe {
                    asm!(concat!($text, " {0}, {1}"), inout(xmm_reg) result,
                         in(xmm_reg) to_simd(b), options(nomem, nostack, preserves_flags));
                }
                from_simd(result)
            }
        }
    )*};
}

binary! {
    Pxor u128, false, "pxor";
    Por u128, false, "por";
    Pand u128, false, "pand";
    Pandn u128, false, "pandn";
    Paddb u128, false, "paddb";
    Paddw u128, false, "paddw";
    Paddd u128, false, "paddd";
    Paddq u128, false, "paddq";
    Psubb u128, false, "psubb";
    Psubd u128, false, "psubd";
    Psubq u128, false, "psubq";
    Pcmpeqb u128, false, "pcmpeqb";
    Pcmpeqw u128, false, "pcmpeqw";
    Pcmpeqd u128, false, "pcmpeqd";
    Pcmpgtb u128, false, "pcmpgtb";
    Pminub u128, false, "pminub";
    Pmaxub u128, false, "pmaxub";
    Pshufb u128, false, "pshufb";
    Pmuludq u128, false, "pmuludq";
    Punpcklbw u128, false, "punpcklbw";
    Punpcklwd u128, false, "punpcklwd";
    Punpckldq u128, false, "punpckldq";
    Punpcklqdq u128, false, "punpcklqdq";
    Punpckhbw u128, false, "punpckhbw";
    Punpckhwd u128, false, "punpckhwd";
    Punpckhdq u128, false, "punpckhdq";
    Punpckhqdq u128, false, "punpckhqdq";
    Aesenc u128, false, "aesenc";
    Aesdec u128, false, "aesdec";
    Addsd u64, true, "addsd";
    Subsd u64, true, "subsd";
    Mulsd u64, true, "mulsd";
    Divsd u64, true, "divsd";
    Sqrtsd u64, true, "sqrtsd";
    Addss u32, true, "addss";
    Subss u32, true, "subss";
    Mulss u32, true, "mulss";
    Divss u32, true, "divss";
    Addpd u128, true, "addpd";
    Subpd u128, true, "subpd";
    Mulpd u128, true, "mulpd";
    Addps u128, true, "addps";
    Subps u128, true, "subps";
    Mulps u128, true, "mulps";
}

#[inline(always)]
fn apply<B: Binary>(cpu: &mut Cpu, op: &Op, b: u128) -> Done {
    let a = cpu.fpu.xmm[usize::from(op.dst & 15)];
    let result = if B::FLOAT {
        cpu.float(|| B::compute(a, b))?
    } else {
        B::compute(a, b)
    };
    cpu.fpu.xmm[usize::from(op.dst & 15)] = result;
    Ok(())
}

#[inline(always)]
fn registers<B: Binary>(cpu: &mut Cpu, op: &Op) -> Done {
    cpu.check_sse()?;
    let b = cpu.fpu.xmm[usize::from(op.src & 15)];
    apply::<B>(cpu, op, b)
}

#[inline(always)]
fn memory<B: Binary, E: Ea>(cpu: &mut Cpu, op: &Op) -> Done {
    let b = aligned_operand::<B::Memory, E>(cpu, op)?;
    apply::<B>(cpu, op, b.into())
}

#[inline(always)]
fn operand<T: Word, E: Ea>(cpu: &mut Cpu, op: &Op) -> Done<T> {
    cpu.check_sse()?;
    let la = E::linear(cpu, op, T::SIZE, false)?;
    cpu.read::<T>(la, usize::from(op.seg))
}

/// Reads a memory operand that has to be aligned if it has 16 bytes (SDM vol. 2 §2.4).
#[inline(always)]
fn aligned_operand<T: Word, E: Ea>(cpu: &mut Cpu, op: &Op) -> Done<T> {
    cpu.check_sse()?;
    let la = E::linear(cpu, op, T::SIZE, false)?;
    if T::SIZE == 16 && la & 15 != 0 {
        return Err(Fault::GP0);
    }
    cpu.read::<T>(la, usize::from(op.seg))
}

/// Which handlers a register and a memory form have.
fn binary_handlers<B: Binary>(kind: Option<EaKind>) -> Handler {
    if B::FLOAT {
        return float_handlers::<B>(kind);
    }
    match kind {
        None => then_next(registers::<B>),
        Some(kind) => ea!(kind, E => then_next(memory::<B, E>)),
    }
}

/// The same where exceptions are looked at, which takes a frame.
fn float_handlers<B: Binary>(kind: Option<EaKind>) -> Handler {
    use crate::op::called::then_next;
    match kind {
        None => then_next(registers::<B>),
        Some(kind) => ea!(kind, E => then_next(memory::<B, E>)),
    }
}

fn binary_of(code: Code) -> Option<fn(Option<EaKind>) -> Handler> {
    Some(match code {
        Code::Pxor_xmm_xmmm128 | Code::Xorps_xmm_xmmm128 | Code::Xorpd_xmm_xmmm128 => {
            binary_handlers::<Pxor>
        }
        Code::Por_xmm_xmmm128 | Code::Orps_xmm_xmmm128 | Code::Orpd_xmm_xmmm128 => {
            binary_handlers::<Por>
        }
        Code::Pand_xmm_xmmm128 | Code::Andps_xmm_xmmm128 | Code::Andpd_xmm_xmmm128 => {
            binary_handlers::<Pand>
        }
        Code::Pandn_xmm_xmmm128 | Code::Andnps_xmm_xmmm128 | Code::Andnpd_xmm_xmmm128 => {
            binary_handlers::<Pandn>
        }
        Code::Paddb_xmm_xmmm128 => binary_handlers::<Paddb>,
        Code::Paddw_xmm_xmmm128 => binary_handlers::<Paddw>,
        Code::Paddd_xmm_xmmm128 => binary_handlers::<Paddd>,
        Code::Paddq_xmm_xmmm128 => binary_handlers::<Paddq>,
        Code::Psubb_xmm_xmmm128 => binary_handlers::<Psubb>,
        Code::Psubd_xmm_xmmm128 => binary_handlers::<Psubd>,
        Code::Psubq_xmm_xmmm128 => binary_handlers::<Psubq>,
        Code::Pcmpeqb_xmm_xmmm128 => binary_handlers::<Pcmpeqb>,
        Code::Pcmpeqw_xmm_xmmm128 => binary_handlers::<Pcmpeqw>,
        Code::Pcmpeqd_xmm_xmmm128 => binary_handlers::<Pcmpeqd>,
        Code::Pcmpgtb_xmm_xmmm128 => binary_handlers::<Pcmpgtb>,
        Code::Pminub_xmm_xmmm128 => binary_handlers::<Pminub>,
        Code::Pmaxub_xmm_xmmm128 => binary_handlers::<Pmaxub>,
        Code::Pshufb_xmm_xmmm128 => binary_handlers::<Pshufb>,
        Code::Pmuludq_xmm_xmmm128 => binary_handlers::<Pmuludq>,
        Code::Punpcklbw_xmm_xmmm128 => binary_handlers::<Punpcklbw>,
        Code::Punpcklwd_xmm_xmmm128 => binary_handlers::<Punpcklwd>,
        Code::Punpckldq_xmm_xmmm128 => binary_handlers::<Punpckldq>,
        Code::Punpcklqdq_xmm_xmmm128 => binary_handlers::<Punpcklqdq>,
        Code::Punpckhbw_xmm_xmmm128 => binary_handlers::<Punpckhbw>,
        Code::Punpckhwd_xmm_xmmm128 => binary_handlers::<Punpckhwd>,
        Code::Punpckhdq_xmm_xmmm128 => binary_handlers::<Punpckhdq>,
        Code::Punpckhqdq_xmm_xmmm128 => binary_handlers::<Punpckhqdq>,
        Code::Aesenc_xmm_xmmm128 => binary_handlers::<Aesenc>,
        Code::Aesdec_xmm_xmmm128 => binary_handlers::<Aesdec>,
        Code::Addsd_xmm_xmmm64 => binary_handlers::<Addsd>,
        Code::Subsd_xmm_xmmm64 => binary_handlers::<Subsd>,
        Code::Mulsd_xmm_xmmm64 => binary_handlers::<Mulsd>,
        Code::Divsd_xmm_xmmm64 => binary_handlers::<Divsd>,
        Code::Sqrtsd_xmm_xmmm64 => binary_handlers::<Sqrtsd>,
        Code::Addss_xmm_xmmm32 => binary_handlers::<Addss>,
        Code::Subss_xmm_xmmm32 => binary_handlers::<Subss>,
        Code::Mulss_xmm_xmmm32 => binary_handlers::<Mulss>,
        Code::Divss_xmm_xmmm32 => binary_handlers::<Divss>,
        Code::Addpd_xmm_xmmm128 => binary_handlers::<Addpd>,
        Code::Subpd_xmm_xmmm128 => binary_handlers::<Subpd>,
        Code::Mulpd_xmm_xmmm128 => binary_handlers::<Mulpd>,
        Code::Addps_xmm_xmmm128 => binary_handlers::<Addps>,
        Code::Subps_xmm_xmmm128 => binary_handlers::<Subps>,
        Code::Mulps_xmm_xmmm128 => binary_handlers::<Mulps>,
        _ => return None,
    })
}

/// Loads all of an XMM register from memory of type `T`, zero-extended.
#[inline(always)]
fn load_zero<T: Word + Into<u128>, E: Ea, const ALIGNED: bool>(cpu: &mut Cpu, op: &Op) -> Done {
    let value = if ALIGNED {
        aligned_operand::<T, E>(cpu, op)?
    } else {
        operand::<T, E>(cpu, op)?
    };
    cpu.fpu.xmm[usize::from(op.dst & 15)] = value.into();
    Ok(())
}

/// Stores the low bytes of an XMM register, after a shift to the right.
#[inline(always)]
fn store_low<T: Word, E: Ea, const ALIGNED: bool, const SHIFT: u32>(
    cpu: &mut Cpu,
    op: &Op,
) -> Done {
    cpu.check_sse()?;
    let la = E::linear(cpu, op, T::SIZE, true)?;
    if ALIGNED && la & 15 != 0 {
        return Err(Fault::GP0);
    }
    let value = cpu.fpu.xmm[usize::from(op.src & 15)] >> SHIFT;
    cpu.write(la, usize::from(op.seg), T::from_bytes(&value.to_le_bytes()))
}

/// Loads 64 bits into one half of an XMM register.
#[inline(always)]
fn load_half<E: Ea, const SHIFT: u32>(cpu: &mut Cpu, op: &Op) -> Done {
    let value = u128::from(operand::<u64, E>(cpu, op)?) << SHIFT;
    let register = &mut cpu.fpu.xmm[usize::from(op.dst & 15)];
    *register = *register & !(u128::from(u64::MAX) << SHIFT) | value;
    Ok(())
}

/// Copies the bits of `MASK` from a register to a register, after a shift to the left or right.
#[inline(always)]
fn merge<const LEFT: u32, const RIGHT: u32, const BITS: u32>(cpu: &mut Cpu, op: &Op) -> Done {
    cpu.check_sse()?;
    let source = cpu.fpu.xmm[usize::from(op.src & 15)];
    let mask = (u128::MAX >> (128 - BITS)) << LEFT;
    let register = &mut cpu.fpu.xmm[usize::from(op.dst & 15)];
    *register = *register & !mask | (source >> RIGHT << LEFT) & mask;
    Ok(())
}

#[inline(always)]
fn copy(cpu: &mut Cpu, op: &Op) -> Done {
    cpu.check_sse()?;
    cpu.fpu.xmm[usize::from(op.dst & 15)] = cpu.fpu.xmm[usize::from(op.src & 15)];
    Ok(())
}

/// MOVQ between XMM registers: the upper half becomes zero.
#[inline(always)]
fn copy_low(cpu: &mut Cpu, op: &Op) -> Done {
    cpu.check_sse()?;
    let low = cpu.fpu.xmm[usize::from(op.src & 15)] as u64;
    cpu.fpu.xmm[usize::from(op.dst & 15)] = low.into();
    Ok(())
}

#[inline(always)]
fn from_general<T: Copy + Into<u128>>(cpu: &mut Cpu, op: &Op) -> Done {
    cpu.check_sse()?;
    cpu.fpu.xmm[usize::from(op.dst & 15)] = cpu.reg::<T>(op.src).into();
    Ok(())
}

#[inline(always)]
fn to_general<const MASK: u64>(cpu: &mut Cpu, op: &Op) -> Done {
    cpu.check_sse()?;
    let value = cpu.fpu.xmm[usize::from(op.src & 15)] as u64 & MASK;
    cpu.set_reg(op.dst, value);
    Ok(())
}

#[inline(always)]
fn byte_mask(cpu: &mut Cpu, op: &Op) -> Done {
    cpu.check_sse()?;
    let value = to_simd(cpu.fpu.xmm[usize::from(op.src & 15)]);
    let mask: u64;
    // SAFETY: computes on registers.
    unsafe {
        asm!("pmovmskb {0:e}, {1}", out(reg) mask, in(xmm_reg) value,
             options(nomem, nostack, preserves_flags));
    }
    cpu.set_reg(op.dst, mask);
    Ok(())
}

/// PSHUFD by the immediate.
#[inline(always)]
fn shuffle(op: &Op, source: u128) -> u128 {
    (0..4).fold(0, |all, n| {
        let lane = op.imm >> (2 * n) & 3;
        all | u128::from((source >> (32 * lane)) as u32) << (32 * n)
    })
}

#[inline(always)]
fn shuffle_registers(cpu: &mut Cpu, op: &Op) -> Done {
    cpu.check_sse()?;
    cpu.fpu.xmm[usize::from(op.dst & 15)] = shuffle(op, cpu.fpu.xmm[usize::from(op.src & 15)]);
    Ok(())
}

/// The handler of a move, whose memory operand is of `kind`.
fn move_of(code: Code, kind: Option<EaKind>) -> Option<Handler> {
    use Code as C;
    let register = kind.is_none();
    let kind = kind.unwrap_or(EaKind::Legacy);
    Some(match code {
        C::Movaps_xmm_xmmm128
        | C::Movapd_xmm_xmmm128
        | C::Movdqa_xmm_xmmm128
        | C::Movups_xmm_xmmm128
        | C::Movupd_xmm_xmmm128
        | C::Movdqu_xmm_xmmm128
        | C::Movaps_xmmm128_xmm
        | C::Movapd_xmmm128_xmm
        | C::Movdqa_xmmm128_xmm
        | C::Movups_xmmm128_xmm
        | C::Movupd_xmmm128_xmm
        | C::Movdqu_xmmm128_xmm
            if register =>
        {
            then_next(copy)
        }
        C::Movaps_xmm_xmmm128
        | C::Movapd_xmm_xmmm128
        | C::Movdqa_xmm_xmmm128
        | C::Movntdqa_xmm_m128 => ea!(kind, E => then_next(load_zero::<u128, E, true>)),
        C::Movups_xmm_xmmm128
        | C::Movupd_xmm_xmmm128
        | C::Movdqu_xmm_xmmm128
        | C::Lddqu_xmm_m128 => ea!(kind, E => then_next(load_zero::<u128, E, false>)),
        C::Movaps_xmmm128_xmm
        | C::Movapd_xmmm128_xmm
        | C::Movdqa_xmmm128_xmm
        | C::Movntps_m128_xmm
        | C::Movntpd_m128_xmm
        | C::Movntdq_m128_xmm => ea!(kind, E => then_next(store_low::<u128, E, true, 0>)),
        C::Movups_xmmm128_xmm | C::Movupd_xmmm128_xmm | C::Movdqu_xmmm128_xmm => {
            ea!(kind, E => then_next(store_low::<u128, E, false, 0>))
        }
        C::Movss_xmm_xmmm32 | C::Movss_xmmm32_xmm if register => then_next(merge::<0, 0, 32>),
        C::Movsd_xmm_xmmm64 | C::Movsd_xmmm64_xmm if register => then_next(merge::<0, 0, 64>),
        C::Movss_xmm_xmmm32 => ea!(kind, E => then_next(load_zero::<u32, E, false>)),
        C::Movsd_xmm_xmmm64 => ea!(kind, E => then_next(load_zero::<u64, E, false>)),
        C::Movss_xmmm32_xmm => ea!(kind, E => then_next(store_low::<u32, E, false, 0>)),
        C::Movsd_xmmm64_xmm => ea!(kind, E => then_next(store_low::<u64, E, false, 0>)),
        C::Movq_xmm_xmmm64 | C::Movq_xmmm64_xmm if register => then_next(copy_low),
        C::Movq_xmm_xmmm64 => ea!(kind, E => then_next(load_zero::<u64, E, false>)),
        C::Movq_xmmm64_xmm => ea!(kind, E => then_next(store_low::<u64, E, false, 0>)),
        C::Movd_xmm_rm32 if register => then_next(from_general::<u32>),
        C::Movq_xmm_rm64 if register => then_next(from_general::<u64>),
        C::Movd_xmm_rm32 => ea!(kind, E => then_next(load_zero::<u32, E, false>)),
        C::Movq_xmm_rm64 => ea!(kind, E => then_next(load_zero::<u64, E, false>)),
        C::Movd_rm32_xmm if register => then_next(to_general::<0xffff_ffff>),
        C::Movq_rm64_xmm if register => then_next(to_general::<{ u64::MAX }>),
        C::Movd_rm32_xmm => ea!(kind, E => then_next(store_low::<u32, E, false, 0>)),
        C::Movq_rm64_xmm => ea!(kind, E => then_next(store_low::<u64, E, false, 0>)),
        C::Movlps_xmm_m64 | C::Movlpd_xmm_m64 => ea!(kind, E => then_next(load_half::<E, 0>)),
        C::Movhps_xmm_m64 | C::Movhpd_xmm_m64 => ea!(kind, E => then_next(load_half::<E, 64>)),
        C::Movlps_m64_xmm | C::Movlpd_m64_xmm => {
            ea!(kind, E => then_next(store_low::<u64, E, false, 0>))
        }
        C::Movhps_m64_xmm | C::Movhpd_m64_xmm => {
            ea!(kind, E => then_next(store_low::<u64, E, false, 64>))
        }
        C::Movhlps_xmm_xmm => then_next(merge::<0, 64, 64>),
        C::Movlhps_xmm_xmm => then_next(merge::<64, 0, 64>),
        C::Pmovmskb_r32_xmm | C::Pmovmskb_r64_xmm => then_next(byte_mask),
        C::Pshufd_xmm_xmmm128_imm8 if register => then_next(shuffle_registers),
        _ => return None,
    })
}

/// The record of a hot SSE instruction.
pub(super) fn lower(insn: &Instruction, mode: Mode) -> Option<Lowered> {
    let mut op = Op::new(then_next(copy));
    let memory = (0..insn.op_count()).any(|n| insn.op_kind(n) == OpKind::Memory);
    let kind = memory.then(|| op.set_memory(insn, mode.bits));
    op.run = match binary_of(insn.code()) {
        Some(handlers) => handlers(kind),
        None => move_of(insn.code(), kind)?,
    };
    op.dst = field(insn, 0);
    op.src = field(insn, 1);
    if insn.op_count() == 3 {
        op.imm = insn.immediate(2);
    }
    Some(Lowered::Next(op))
}

fn field(insn: &Instruction, operand: u32) -> u8 {
    match insn.op_kind(operand) {
        OpKind::Register if insn.op_register(operand).is_gpr() => {
            register_offset(insn.op_register(operand))
        }
        _ => number(insn, operand),
    }
}
