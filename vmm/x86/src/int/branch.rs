//! Jumps and calls.

use iced_x86::{Code, ConditionCode, FlowControl, Instruction, Mnemonic, OpKind};

use crate::cpu::{CS, Cpu, Mode, RCX, RSP, SS, TRACE_RIP};
use crate::fault::Fault;
use crate::flags::{CF, OF, PF, SF, ZF};
use crate::int::operand::{
    Register, Source, Width, by_place, by_source, by_word, set_source, width_of,
};
use crate::lower::Lowered;
use crate::op::{Done, Handler, LINKABLE, Op, called, then_branch, then_jump};

/// A condition of Jcc, SETcc and CMOVcc (SDM vol. 1 appendix B).
pub(crate) trait Condition: 'static {
    fn holds(status: u32) -> bool;
}

macro_rules! conditions {
    ($($name:ident $status:ident => $holds:expr;)*) => {$(
        pub(crate) struct $name;
        impl Condition for $name {
            #[inline(always)]
            fn holds($status: u32) -> bool {
                $holds
            }
        }
    )*};
}

fn less(status: u32) -> bool {
    (status & SF != 0) != (status & OF != 0)
}

conditions! {
    Overflow s => s & OF != 0;
    NotOverflow s => s & OF == 0;
    Below s => s & CF != 0;
    AboveEqual s => s & CF == 0;
    Equal s => s & ZF != 0;
    NotEqual s => s & ZF == 0;
    BelowEqual s => s & (CF | ZF) != 0;
    Above s => s & (CF | ZF) == 0;
    Sign s => s & SF != 0;
    NotSign s => s & SF == 0;
    Parity s => s & PF != 0;
    NotParity s => s & PF == 0;
    Less s => less(s);
    GreaterEqual s => !less(s);
    LessEqual s => s & ZF != 0 || less(s);
    Greater s => s & ZF == 0 && !less(s);
}

/// Picks the monomorphic handler for a condition: `condition!(code, C => handler::<C>)`.
macro_rules! condition {
    ($code:expr, $c:ident => $handler:expr) => {{
        use crate::int::branch as cc;
        macro_rules! arm {
            ($t:ident) => {{
                type $c = cc::$t;
                $handler
            }};
        }
        match $code {
            iced_x86::ConditionCode::o => arm!(Overflow),
            iced_x86::ConditionCode::no => arm!(NotOverflow),
            iced_x86::ConditionCode::b => arm!(Below),
            iced_x86::ConditionCode::ae => arm!(AboveEqual),
            iced_x86::ConditionCode::e => arm!(Equal),
            iced_x86::ConditionCode::ne => arm!(NotEqual),
            iced_x86::ConditionCode::be => arm!(BelowEqual),
            iced_x86::ConditionCode::a => arm!(Above),
            iced_x86::ConditionCode::s => arm!(Sign),
            iced_x86::ConditionCode::ns => arm!(NotSign),
            iced_x86::ConditionCode::p => arm!(Parity),
            iced_x86::ConditionCode::np => arm!(NotParity),
            iced_x86::ConditionCode::l => arm!(Less),
            iced_x86::ConditionCode::ge => arm!(GreaterEqual),
            iced_x86::ConditionCode::le => arm!(LessEqual),
            _ => arm!(Greater),
        }
    }};
}
pub(crate) use condition;

/// A record that goes on at the instruction after the trace.
pub(crate) fn fall_through() -> Op {
    Op::new(then_jump(|cpu: &mut Cpu, op: &Op| Ok(cpu.rip_of(op))))
}

#[inline(always)]
fn jump_if<C: Condition>(cpu: &mut Cpu, _op: &Op) -> Done<bool> {
    Ok(C::holds(cpu.status))
}

/// The same in a legacy mode, where the code segment has a limit.
#[inline(always)]
fn jump_within_if<C: Condition>(cpu: &mut Cpu, op: &Op) -> Done<bool> {
    let taken = C::holds(cpu.status);
    if taken {
        cpu.direct_target(op)?;
    }
    Ok(taken)
}

/// JMP in a legacy mode.
#[inline(always)]
fn jump_within(cpu: &mut Cpu, op: &Op) -> Done<bool> {
    cpu.direct_target(op).map(|_| true)
}

/// A branch whose target has not the width of the mode.
fn jump_odd_if<C: Condition>(cpu: &mut Cpu, op: &Op) -> Done<u64> {
    if C::holds(cpu.status) {
        cpu.odd_target(op)
    } else {
        Ok(cpu.rip_after(op))
    }
}

fn jump_odd(cpu: &mut Cpu, op: &Op) -> Done<u64> {
    cpu.odd_target(op)
}

/// LOOP and JCXZ: the width of the count is `T`, `KIND` the condition.
#[inline(always)]
fn count_down<T: Width, const KIND: u8>(cpu: &mut Cpu, _op: &Op) -> Done<bool> {
    let count = T::of(cpu.regs[RCX].wrapping_sub(1));
    if KIND == JCXZ {
        return Ok(cpu.reg::<T>(CX).wide() == 0);
    }
    count.assign(cpu, CX);
    let more = count.wide() != 0;
    let zero = cpu.status & ZF != 0;
    Ok(match KIND {
        LOOPE => more && zero,
        LOOPNE => more && !zero,
        _ => more,
    })
}

/// The same in a legacy mode.
fn count_down_within<T: Width, const KIND: u8>(cpu: &mut Cpu, op: &Op) -> Done<bool> {
    let before = cpu.regs[RCX];
    let taken = count_down::<T, KIND>(cpu, op)?;
    if taken {
        cpu.direct_target(op)
            .inspect_err(|_| cpu.regs[RCX] = before)?;
    }
    Ok(taken)
}

/// The same where the target has not the width of the mode.
fn count_down_odd<T: Width, const KIND: u8>(cpu: &mut Cpu, op: &Op) -> Done<u64> {
    let before = cpu.regs[RCX];
    if count_down::<T, KIND>(cpu, op)? {
        cpu.odd_target(op).inspect_err(|_| cpu.regs[RCX] = before)
    } else {
        Ok(cpu.rip_after(op))
    }
}

const CX: u8 = RCX as u8 * 8;
const LOOP: u8 = 0;
const LOOPE: u8 = 1;
const LOOPNE: u8 = 2;
const JCXZ: u8 = 3;

#[inline(always)]
fn call_long(cpu: &mut Cpu, op: &Op) -> Done<bool> {
    let next = cpu.regs[TRACE_RIP]
        .wrapping_add(u64::from(op.off))
        .wrapping_add(u64::from(op.len));
    cpu.push64(next)?;
    Ok(true)
}

/// CALL in a legacy mode.
fn call<T: Width>(cpu: &mut Cpu, op: &Op) -> Done<bool> {
    cpu.direct_target(op)?;
    cpu.push_value(T::of(cpu.rip_after(op)))?;
    Ok(true)
}

fn call_odd<T: Width>(cpu: &mut Cpu, op: &Op) -> Done<u64> {
    let rip = cpu.odd_target(op)?;
    cpu.push_value(T::of(cpu.rip_after(op)))?;
    Ok(rip)
}

#[inline(always)]
fn jump_to<T: Width, S: Source<T>>(cpu: &mut Cpu, op: &Op) -> Done<u64> {
    let rip = S::get(cpu, op)?.wide();
    cpu.near_target(rip)
}

#[inline(always)]
fn call_to_long<S: Source<u64>>(cpu: &mut Cpu, op: &Op) -> Done<u64> {
    let target = S::get(cpu, op)?;
    let rip = cpu.near_target(target)?;
    call_long(cpu, op)?;
    Ok(rip)
}

fn call_to<T: Width, S: Source<T>>(cpu: &mut Cpu, op: &Op) -> Done<u64> {
    let target = S::get(cpu, op)?.wide();
    let rip = cpu.near_target(target)?;
    cpu.push_value(T::of(cpu.rip_after(op)))?;
    Ok(rip)
}

/// RET; the immediate is what it releases besides the return address.
#[inline(always)]
fn ret_long(cpu: &mut Cpu, op: &Op) -> Done<u64> {
    let target = cpu.read(cpu.regs[RSP], SS)?;
    let rip = cpu.near_target(target)?;
    cpu.regs[RSP] = cpu.regs[RSP].wrapping_add(8).wrapping_add(op.imm);
    Ok(rip)
}

fn ret<T: Width>(cpu: &mut Cpu, op: &Op) -> Done<u64> {
    let target = cpu.read_stack::<T>(cpu.regs[RSP])?.wide();
    let rip = cpu.near_target(target)?;
    cpu.set_stack_pointer(cpu.regs[RSP].wrapping_add(T::SIZE).wrapping_add(op.imm));
    Ok(rip)
}

impl Cpu {
    /// Target of a direct branch, or #GP(0) where the code segment does not allow it.
    #[inline(always)]
    fn direct_target(&self, op: &Op) -> Done<u64> {
        let sum = self.regs[TRACE_RIP].wrapping_add(op.disp as i64 as u64);
        self.near_target(self.wrap_rip(sum))
    }

    /// The same with the other operand size: 16 bits in 32-bit code, 32 in 16-bit code.
    fn odd_target(&self, op: &Op) -> Done<u64> {
        let sum = self.regs[TRACE_RIP].wrapping_add(op.disp as i64 as u64);
        self.near_target(match self.mode.bits {
            32 => sum & 0xffff,
            _ => sum & 0xffff_ffff,
        })
    }

    /// Gives back a branch target that the code segment allows, or #GP(0).
    #[inline(always)]
    fn near_target(&self, rip: u64) -> Done<u64> {
        let allowed = if self.mode.bits == 64 {
            (rip as i64) << 16 >> 16 == rip as i64
        } else {
            rip <= u64::from(self.segs[CS].limit)
        };
        if allowed { Ok(rip) } else { Err(Fault::GP0) }
    }
}

/// Whether a direct branch has the operand size that is not the mode's.
fn is_odd(insn: &Instruction, mode: Mode) -> bool {
    matches!(
        (mode.bits, insn.op0_kind()),
        (32, OpKind::NearBranch16) | (16, OpKind::NearBranch32)
    )
}

fn jump(insn: &Instruction, mode: Mode) -> Handler {
    match mode.bits {
        64 => then_branch(|_: &mut Cpu, _: &Op| Ok(true)),
        _ if is_odd(insn, mode) => called::then_jump(jump_odd),
        _ => then_branch(jump_within),
    }
}

fn conditional_jump(insn: &Instruction, mode: Mode) -> Handler {
    let code = insn.condition_code();
    match mode.bits {
        64 => condition!(code, C => then_branch(jump_if::<C>)),
        _ if is_odd(insn, mode) => condition!(code, C => called::then_jump(jump_odd_if::<C>)),
        _ => condition!(code, C => then_branch(jump_within_if::<C>)),
    }
}

fn counted_jump<const KIND: u8>(insn: &Instruction, mode: Mode) -> Handler {
    // The instruction says how it counts by its form; the decoder keeps that in the code's name.
    let width = count_width(insn.code());
    match mode.bits {
        64 => by_word!(width, T => then_branch(count_down::<T, KIND>)),
        _ if is_odd(insn, mode) => {
            by_word!(width, T => called::then_jump(count_down_odd::<T, KIND>))
        }
        _ => by_word!(width, T => called::then_branch(count_down_within::<T, KIND>)),
    }
}

/// Width in bytes of the register that LOOP and JCXZ count with.
fn count_width(code: Code) -> usize {
    match code {
        Code::Loopne_rel8_16_CX
        | Code::Loopne_rel8_32_CX
        | Code::Loope_rel8_16_CX
        | Code::Loope_rel8_32_CX
        | Code::Loop_rel8_16_CX
        | Code::Loop_rel8_32_CX
        | Code::Jcxz_rel8_16
        | Code::Jcxz_rel8_32 => 2,
        Code::Loopne_rel8_16_ECX
        | Code::Loopne_rel8_32_ECX
        | Code::Loopne_rel8_64_ECX
        | Code::Loope_rel8_16_ECX
        | Code::Loope_rel8_32_ECX
        | Code::Loope_rel8_64_ECX
        | Code::Loop_rel8_16_ECX
        | Code::Loop_rel8_32_ECX
        | Code::Loop_rel8_64_ECX
        | Code::Jecxz_rel8_16
        | Code::Jecxz_rel8_32
        | Code::Jecxz_rel8_64 => 4,
        _ => 8,
    }
}

fn direct_call(insn: &Instruction, mode: Mode) -> Handler {
    match (mode.bits, insn.op0_kind()) {
        (64, _) => then_branch(call_long),
        (32, OpKind::NearBranch16) => called::then_jump(call_odd::<u16>),
        (16, OpKind::NearBranch32) => called::then_jump(call_odd::<u32>),
        (_, OpKind::NearBranch16) => called::then_branch(call::<u16>),
        _ => called::then_branch(call::<u32>),
    }
}

fn indirect(op: &mut Op, insn: &Instruction, mode: Mode, calls: bool) -> Handler {
    let source = set_source(op, insn, 0, mode);
    match (width_of(insn, 0), calls) {
        (8, false) => by_source!(source, S => then_jump(jump_to::<u64, S>)),
        (8, true) => by_source!(source, S => then_jump(call_to_long::<S>)),
        (width, false) => {
            by_word!(width, T => by_place!(called source, S => (Register) called::then_jump(jump_to::<T, S>)))
        }
        (width, true) => {
            by_word!(width, T => by_place!(called source, S => (Register) called::then_jump(call_to::<T, S>)))
        }
    }
}

fn return_near(op: &mut Op, insn: &Instruction) -> Handler {
    op.imm = if insn.op_count() == 1 {
        insn.immediate(0)
    } else {
        0
    };
    match insn.code() {
        Code::Retnw | Code::Retnw_imm16 => called::then_jump(ret::<u16>),
        Code::Retnd | Code::Retnd_imm16 => called::then_jump(ret::<u32>),
        _ => then_jump(ret_long),
    }
}

fn is_near(insn: &Instruction) -> bool {
    matches!(
        insn.op0_kind(),
        OpKind::NearBranch16 | OpKind::NearBranch32 | OpKind::NearBranch64
    )
}

/// The record of a near branch.
pub(crate) fn lower(insn: &Instruction, mode: Mode) -> Option<Lowered> {
    let mut op = fall_through();
    let conditional = insn.flow_control() == FlowControl::ConditionalBranch;
    op.run = match insn.mnemonic() {
        Mnemonic::Jmp if is_near(insn) => jump(insn, mode),
        Mnemonic::Jmp if insn.is_jmp_near_indirect() => indirect(&mut op, insn, mode, false),
        Mnemonic::Call if is_near(insn) => direct_call(insn, mode),
        Mnemonic::Call if insn.is_call_near_indirect() => indirect(&mut op, insn, mode, true),
        Mnemonic::Ret => return_near(&mut op, insn),
        Mnemonic::Loop => counted_jump::<LOOP>(insn, mode),
        Mnemonic::Loope => counted_jump::<LOOPE>(insn, mode),
        Mnemonic::Loopne => counted_jump::<LOOPNE>(insn, mode),
        Mnemonic::Jcxz | Mnemonic::Jecxz | Mnemonic::Jrcxz => counted_jump::<JCXZ>(insn, mode),
        _ if insn.condition_code() != ConditionCode::None && is_near(insn) => {
            conditional_jump(insn, mode)
        }
        _ => return None,
    };
    if is_near(insn) {
        op.disp = displacement(insn, mode);
        op.extra = LINKABLE;
    }
    Some(if conditional && !is_odd(insn, mode) {
        Lowered::Next(op)
    } else {
        Lowered::End(op)
    })
}

/// Target of a direct branch relative to the start of its trace.
pub(crate) fn displacement(insn: &Instruction, mode: Mode) -> i32 {
    match mode.bits {
        16 if !is_odd(insn, mode) => i32::from(insn.near_branch_target() as i16),
        _ => insn.near_branch_target() as i32,
    }
}
