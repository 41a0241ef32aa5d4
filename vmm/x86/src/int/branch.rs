//! Jumps and calls.

use iced_x86::{ConditionCode, FlowControl, Instruction};

use crate::cpu::{Cpu, Mode};
use crate::flags::{CF, OF, PF, SF, ZF};
use crate::lower::Lowered;
use crate::op::{Done, Handler, LINKABLE, Op, then_branch, then_jump};

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

/// The record of a branch.
pub(crate) fn lower(insn: &Instruction, mode: Mode) -> Option<Lowered> {
    let run: Handler = match insn.flow_control() {
        FlowControl::UnconditionalBranch if insn.is_jmp_short_or_near() => {
            then_branch(|_: &mut Cpu, _: &Op| Ok(true))
        }
        FlowControl::ConditionalBranch if insn.condition_code() != ConditionCode::None => {
            condition!(insn.condition_code(), C => then_branch(jump_if::<C>))
        }
        _ => return None,
    };
    let mut op = Op::new(run);
    op.disp = displacement(insn, mode);
    op.extra = LINKABLE;
    Some(match insn.flow_control() {
        FlowControl::ConditionalBranch => Lowered::Next(op),
        _ => Lowered::End(op),
    })
}

/// Target of a direct branch relative to the start of its trace.
pub(crate) fn displacement(insn: &Instruction, mode: Mode) -> i32 {
    match mode.bits {
        16 => i32::from(insn.near_branch_target() as i16),
        _ => insn.near_branch_target() as i32,
    }
}
