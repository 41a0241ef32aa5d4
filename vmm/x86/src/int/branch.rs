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

/// A taken branch with a 16-bit target outside 16-bit code.
fn jump_short_if<C: Condition>(cpu: &mut Cpu, op: &Op) -> Done<u64> {
    let rip = if C::holds(cpu.status) {
        cpu.short_target(op)
    } else {
        cpu.rip_after(op)
    };
    cpu.near_target(rip)
}

fn jump_short(cpu: &mut Cpu, op: &Op) -> Done<u64> {
    cpu.near_target(cpu.short_target(op))
}

/// LOOP and JCXZ: the width of the count is `T`, `KIND` the condition.
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

/// The same with a 16-bit target outside 16-bit code.
fn count_down_short<T: Width, const KIND: u8>(cpu: &mut Cpu, op: &Op) -> Done<u64> {
    let before = cpu.regs[RCX];
    let rip = if count_down::<T, KIND>(cpu, op)? {
        cpu.short_target(op)
    } else {
        cpu.rip_after(op)
    };
    cpu.near_target(rip).inspect_err(|_| cpu.regs[RCX] = before)
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
    cpu.near_target(cpu.wrap_rip(cpu.regs[TRACE_RIP].wrapping_add(op.disp as i64 as u64)))?;
    cpu.push_value(T::of(cpu.rip_after(op)))?;
    Ok(true)
}

fn call_short(cpu: &mut Cpu, op: &Op) -> Done<u64> {
    let rip = cpu.near_target(cpu.short_target(op))?;
    cpu.push_value(cpu.rip_after(op) as u16)?;
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
    /// The target of a branch with a 16-bit operand size.
    fn short_target(&self, op: &Op) -> u64 {
        self.regs[TRACE_RIP].wrapping_add(op.disp as i64 as u64) & 0xffff
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

/// Whether the target is cut to 16 bits while RIP is wider.
fn is_short(insn: &Instruction, mode: Mode) -> bool {
    mode.bits == 32 && insn.op0_kind() == OpKind::NearBranch16
}

fn jump(insn: &Instruction, mode: Mode) -> Handler {
    if is_short(insn, mode) {
        return called::then_jump(jump_short);
    }
    then_branch(|_: &mut Cpu, _: &Op| Ok(true))
}

fn conditional_jump(insn: &Instruction, mode: Mode) -> Handler {
    if is_short(insn, mode) {
        return condition!(insn.condition_code(), C => called::then_jump(jump_short_if::<C>));
    }
    condition!(insn.condition_code(), C => then_branch(jump_if::<C>))
}

fn counted_jump<const KIND: u8>(insn: &Instruction, mode: Mode) -> Handler {
    // The instruction says how it counts by its form; the decoder keeps that in the code's name.
    let width = count_width(insn.code());
    if is_short(insn, mode) {
        return by_word!(width, T => called::then_jump(count_down_short::<T, KIND>));
    }
    by_word!(width, T => then_branch(count_down::<T, KIND>))
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
        (32, OpKind::NearBranch16) => called::then_jump(call_short),
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
    Some(if conditional && !is_short(insn, mode) {
        Lowered::Next(op)
    } else {
        Lowered::End(op)
    })
}

/// Target of a direct branch relative to the start of its trace.
pub(crate) fn displacement(insn: &Instruction, mode: Mode) -> i32 {
    match mode.bits {
        16 => i32::from(insn.near_branch_target() as i16),
        _ => insn.near_branch_target() as i32,
    }
}
