//! BMI1, BMI2, ADX, LZCNT and TZCNT, computed in code: hosts need not have them.
//!
//! Flags that the manual leaves undefined are cleared.

use iced_x86::{EncodingKind, Instruction, Mnemonic};

use crate::cpu::{Cpu, Mode, RDX};
use crate::fault::Fault;
use crate::flags::{CF, OF, SF, ZF};
use crate::int::operand::{
    Register, Source, Width, by_long, by_place, by_word, set_source, width_of,
};
use crate::lower::Lowered;
use crate::op::called::then_next;
use crate::op::{Done, Handler, Op, register_offset};

fn sign_and_zero<T: Width>(value: T) -> u32 {
    let sign = if value.signed() < 0 { SF } else { 0 };
    sign | if value.wide() == 0 { ZF } else { 0 }
}

fn flag(set: bool, bit: u32) -> u32 {
    if set { bit } else { 0 }
}

/// One source: result and status flags.
type One = fn(source: u64, bits: u32) -> (u64, bool);

/// BLSR BLSMSK BLSI: CF by the function, SF and ZF by the result.
fn lowest_bit<T: Width, S: Source<T>, const KIND: u8>(cpu: &mut Cpu, op: &Op) -> Done {
    let source = S::get(cpu, op)?.wide();
    let (result, carry) = LOWEST[usize::from(KIND)](source, T::BITS);
    let result = T::of(result);
    result.assign(cpu, op.dst);
    cpu.status = sign_and_zero(result) | flag(carry, CF);
    Ok(())
}

const LOWEST: [One; 3] = [
    |s, _| (s & s.wrapping_sub(1), s == 0),
    |s, _| (s ^ s.wrapping_sub(1), s == 0),
    |s, _| (s & s.wrapping_neg(), s != 0),
];
const BLSR: u8 = 0;
const BLSMSK: u8 = 1;
const BLSI: u8 = 2;

/// LZCNT TZCNT: CF for a source of 0, ZF for a result of 0.
fn count_zeros<T: Width, S: Source<T>, const LEADING: bool>(cpu: &mut Cpu, op: &Op) -> Done {
    let source = S::get(cpu, op)?.wide();
    let count = if LEADING {
        source.leading_zeros() - (64 - T::BITS)
    } else {
        source.trailing_zeros().min(T::BITS)
    };
    T::of(u64::from(count)).assign(cpu, op.dst);
    cpu.status = flag(source == 0, CF) | flag(count == 0, ZF);
    Ok(())
}

/// ANDN: the register in `extra` is inverted.
fn and_not<T: Width, S: Source<T>>(cpu: &mut Cpu, op: &Op) -> Done {
    let b = S::get(cpu, op)?.wide();
    let result = T::of(!cpu.reg::<T>(op.extra).wide() & b);
    result.assign(cpu, op.dst);
    cpu.status = sign_and_zero(result);
    Ok(())
}

/// BEXTR: start and length in the register in `extra`.
fn extract<T: Width, S: Source<T>>(cpu: &mut Cpu, op: &Op) -> Done {
    let source = S::get(cpu, op)?.wide();
    let control = cpu.reg::<u16>(op.extra);
    let shifted = source.checked_shr(u32::from(control & 0xff)).unwrap_or(0);
    let result = T::of(shifted & low_mask(u32::from(control >> 8)));
    result.assign(cpu, op.dst);
    cpu.status = flag(result.wide() == 0, ZF);
    Ok(())
}

fn low_mask(bits: u32) -> u64 {
    1u64.checked_shl(bits).map_or(u64::MAX, |bit| bit - 1)
}

/// BZHI: the index in the register in `extra`.
fn zero_high<T: Width, S: Source<T>>(cpu: &mut Cpu, op: &Op) -> Done {
    let source = S::get(cpu, op)?.wide();
    let index = u32::from(cpu.reg::<u8>(op.extra));
    let result = T::of(source & low_mask(index));
    result.assign(cpu, op.dst);
    cpu.status = sign_and_zero(result) | flag(index >= T::BITS, CF);
    Ok(())
}

/// MULX: low half to the register in `extra`, high half to `dst`, which wins.
fn multiply<T: Width, S: Source<T>>(cpu: &mut Cpu, op: &Op) -> Done {
    let b = S::get(cpu, op)?.wide();
    let product = u128::from(cpu.reg::<T>(RDX as u8 * 8).wide()) * u128::from(b);
    T::of(product as u64).assign(cpu, op.extra);
    T::of((product >> T::BITS) as u64).assign(cpu, op.dst);
    Ok(())
}

/// PDEP: low bits of the register in `extra` go where the mask has ones.
fn deposit<T: Width, S: Source<T>>(cpu: &mut Cpu, op: &Op) -> Done {
    let mut mask = S::get(cpu, op)?.wide();
    let (mut source, mut result) = (cpu.reg::<T>(op.extra).wide(), 0);
    while mask != 0 {
        let lowest = mask & mask.wrapping_neg();
        result |= if source & 1 != 0 { lowest } else { 0 };
        source >>= 1;
        mask ^= lowest;
    }
    T::of(result).assign(cpu, op.dst);
    Ok(())
}

/// PEXT: bits of the register in `extra` where the mask has ones go to the low bits.
fn gather<T: Width, S: Source<T>>(cpu: &mut Cpu, op: &Op) -> Done {
    let mut mask = S::get(cpu, op)?.wide();
    let (source, mut result, mut bit) = (cpu.reg::<T>(op.extra).wide(), 0, 1u64);
    while mask != 0 {
        let lowest = mask & mask.wrapping_neg();
        result |= if source & lowest != 0 { bit } else { 0 };
        bit <<= 1;
        mask ^= lowest;
    }
    T::of(result).assign(cpu, op.dst);
    Ok(())
}

/// RORX: count in the immediate.
fn rotate<T: Width, S: Source<T>>(cpu: &mut Cpu, op: &Op) -> Done {
    let source = S::get(cpu, op)?.wide();
    let count = op.imm as u32 & (T::BITS - 1);
    let result = match count {
        0 => source,
        _ => source >> count | source << (T::BITS - count),
    };
    T::of(result).assign(cpu, op.dst);
    Ok(())
}

/// SARX SHLX SHRX: count in the register in `extra`.
fn shift<T: Width, S: Source<T>, const KIND: u8>(cpu: &mut Cpu, op: &Op) -> Done {
    let source = S::get(cpu, op)?;
    let count = u32::from(cpu.reg::<u8>(op.extra)) & (T::BITS - 1);
    let result = match KIND {
        LEFT => source.wide() << count,
        RIGHT => source.wide() >> count,
        _ => (source.signed() >> count) as u64,
    };
    T::of(result).assign(cpu, op.dst);
    Ok(())
}

const LEFT: u8 = 0;
const RIGHT: u8 = 1;
const ARITHMETIC: u8 = 2;

/// ADCX ADOX: addition with the one flag `FLAG` as carry, the others stay.
fn add_with<T: Width, S: Source<T>, const FLAG: u32>(cpu: &mut Cpu, op: &Op) -> Done {
    let b = S::get(cpu, op)?.wide();
    let carry = u128::from(cpu.status & FLAG != 0);
    let sum = u128::from(cpu.reg::<T>(op.dst).wide()) + u128::from(b) + carry;
    T::of(sum as u64).assign(cpu, op.dst);
    cpu.status = cpu.status & !FLAG | flag(sum >> T::BITS != 0, FLAG);
    Ok(())
}

/// VEX encodings do not exist in real and virtual-8086 mode (SDM vol. 2 §2.3).
fn guarded<T: Width, S: Source<T>, F: Guarded<T, S>>(cpu: &mut Cpu, op: &Op) -> Done {
    if !cpu.is_protected() || cpu.is_v86() {
        return Err(Fault::UD);
    }
    F::run(cpu, op)
}

/// An instruction with a VEX encoding.
trait Guarded<T: Width, S: Source<T>>: 'static {
    fn run(cpu: &mut Cpu, op: &Op) -> Done;
}

macro_rules! guarded {
    ($($name:ident => $function:expr;)*) => {$(
        struct $name;
        impl<T: Width, S: Source<T>> Guarded<T, S> for $name {
            fn run(cpu: &mut Cpu, op: &Op) -> Done {
                $function(cpu, op)
            }
        }
    )*};
}

guarded! {
    Andn => and_not::<T, S>;
    Bextr => extract::<T, S>;
    Blsr => lowest_bit::<T, S, BLSR>;
    Blsmsk => lowest_bit::<T, S, BLSMSK>;
    Blsi => lowest_bit::<T, S, BLSI>;
    Bzhi => zero_high::<T, S>;
    Mulx => multiply::<T, S>;
    Pdep => deposit::<T, S>;
    Pext => gather::<T, S>;
    Rorx => rotate::<T, S>;
    Sarx => shift::<T, S, ARITHMETIC>;
    Shlx => shift::<T, S, LEFT>;
    Shrx => shift::<T, S, RIGHT>;
}

/// Which operand is the source (register or memory) and which register goes to `extra`.
fn roles(insn: &Instruction) -> (u32, Option<u32>) {
    match insn.mnemonic() {
        Mnemonic::Bextr | Mnemonic::Bzhi | Mnemonic::Sarx | Mnemonic::Shlx | Mnemonic::Shrx => {
            (1, Some(2))
        }
        Mnemonic::Andn | Mnemonic::Mulx | Mnemonic::Pdep | Mnemonic::Pext => (2, Some(1)),
        _ => (1, None),
    }
}

fn vex(insn: &Instruction, memory: bool) -> Option<Handler> {
    let source = if memory {
        crate::int::operand::Kind::Memory(crate::op::EaKind::Legacy)
    } else {
        crate::int::operand::Kind::Register
    };
    macro_rules! row {
        ($name:ident) => {
            by_long!(width_of(insn, 0), T => by_place!(source, S => (Register)
                then_next(guarded::<T, S, $name>)))
        };
    }
    Some(match insn.mnemonic() {
        Mnemonic::Andn => row!(Andn),
        Mnemonic::Bextr => row!(Bextr),
        Mnemonic::Blsr => row!(Blsr),
        Mnemonic::Blsmsk => row!(Blsmsk),
        Mnemonic::Blsi => row!(Blsi),
        Mnemonic::Bzhi => row!(Bzhi),
        Mnemonic::Mulx => row!(Mulx),
        Mnemonic::Pdep => row!(Pdep),
        Mnemonic::Pext => row!(Pext),
        Mnemonic::Rorx => row!(Rorx),
        Mnemonic::Sarx => row!(Sarx),
        Mnemonic::Shlx => row!(Shlx),
        Mnemonic::Shrx => row!(Shrx),
        _ => return None,
    })
}

/// The record of an instruction of this family.
pub(crate) fn lower(insn: &Instruction, mode: Mode) -> Option<Lowered> {
    let mut op = Op::new(then_next(add_with::<u64, Register, CF>));
    let (source, register) = roles(insn);
    op.dst = register_offset(insn.op0_register());
    let kind = set_source(&mut op, insn, source, mode);
    if let Some(n) = register {
        op.extra = register_offset(insn.op_register(n));
    }
    if insn.mnemonic() == Mnemonic::Rorx {
        op.imm = insn.immediate(2);
    }
    if insn.encoding() == EncodingKind::VEX {
        op.run = vex(insn, crate::op::is_memory(insn, source))?;
        return Some(Lowered::Next(op));
    }
    let width = width_of(insn, 0);
    op.run = match insn.mnemonic() {
        Mnemonic::Adcx => by_long!(width, T => by_place!(kind, S => (Register)
            then_next(add_with::<T, S, CF>))),
        Mnemonic::Adox => by_long!(width, T => by_place!(kind, S => (Register)
            then_next(add_with::<T, S, OF>))),
        Mnemonic::Lzcnt => by_word!(width, T => by_place!(kind, S => (Register)
            then_next(count_zeros::<T, S, true>))),
        Mnemonic::Tzcnt => by_word!(width, T => by_place!(kind, S => (Register)
            then_next(count_zeros::<T, S, false>))),
        _ => return None,
    };
    Some(Lowered::Next(op))
}
