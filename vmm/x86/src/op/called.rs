//! Handlers of functions that are called, not run in line.
//!
//! A function that gives its result back through memory takes the address of a local of the handler,
//! and the compiler then no longer makes a jump of the handler's last call: a long chain of such
//! handlers would use up the stack. Here the result comes back in a register. Everything that is not
//! `#[inline(always)]` to the bottom, but for [`Cpu::aside`], belongs here.

use super::{Handler, Op, conjure, enter_next, go_to, own, raise, take_branch};
use crate::cpu::Cpu;
use crate::op::Done;

/// As [`super::then_next`].
pub(crate) fn then_next<F: Fn(&mut Cpu, &Op) -> Done + Copy>(_function: F) -> Handler {
    unsafe extern "C" fn run<F: Fn(&mut Cpu, &Op) -> Done + Copy>(cpu: *mut Cpu, op: *const Op) {
        // SAFETY: these are the handler's own.
        if unsafe { finished::<F>(cpu, op) } {
            // SAFETY: a record with this handler is never the last of its trace.
            unsafe { enter_next(cpu, op) }
        }
    }
    run::<F>
}

/// Runs the function; false after a fault.
///
/// # Safety
/// Both are the handler's own.
#[inline(never)]
unsafe extern "C" fn finished<F: Fn(&mut Cpu, &Op) -> Done + Copy>(
    cpu: *mut Cpu,
    op: *const Op,
) -> bool {
    // SAFETY: these are the caller's handler's own.
    let (state, record) = unsafe { own(cpu, op) };
    let result = conjure::<F>()(state, record);
    if let Err(fault) = result {
        // SAFETY: as above.
        unsafe { raise(cpu, op, fault) };
    }
    result.is_ok()
}

/// As [`super::then_branch`].
pub(crate) fn then_branch<F: Fn(&mut Cpu, &Op) -> Done<bool> + Copy>(_function: F) -> Handler {
    unsafe extern "C" fn run<F: Fn(&mut Cpu, &Op) -> Done<bool> + Copy>(
        cpu: *mut Cpu,
        op: *const Op,
    ) {
        // SAFETY: these are the handler's own.
        match unsafe { decided::<F>(cpu, op) } {
            // SAFETY: as above.
            TAKEN => unsafe { take_branch(cpu, op) },
            // SAFETY: a conditional branch is never the last record of its trace.
            NOT_TAKEN => unsafe { enter_next(cpu, op) },
            _ => {}
        }
    }
    run::<F>
}

const NOT_TAKEN: u8 = 0;
const TAKEN: u8 = 1;
const FAULTED: u8 = 2;

/// Runs the function of a branch.
///
/// # Safety
/// Both are the handler's own.
#[inline(never)]
unsafe extern "C" fn decided<F: Fn(&mut Cpu, &Op) -> Done<bool> + Copy>(
    cpu: *mut Cpu,
    op: *const Op,
) -> u8 {
    // SAFETY: these are the caller's handler's own.
    let (state, record) = unsafe { own(cpu, op) };
    match conjure::<F>()(state, record) {
        Ok(taken) => u8::from(taken),
        Err(fault) => {
            // SAFETY: as above.
            unsafe { raise(cpu, op, fault) };
            FAULTED
        }
    }
}

/// As [`super::then_jump`].
pub(crate) fn then_jump<F: Fn(&mut Cpu, &Op) -> Done<u64> + Copy>(_function: F) -> Handler {
    unsafe extern "C" fn run<F: Fn(&mut Cpu, &Op) -> Done<u64> + Copy>(
        cpu: *mut Cpu,
        op: *const Op,
    ) {
        // SAFETY: these are the handler's own.
        if unsafe { aimed::<F>(cpu, op) } {
            // SAFETY: as above.
            let state = unsafe { &mut *cpu };
            // SAFETY: as above.
            let record = unsafe { &*op };
            state.budget -= i32::from(record.count);
            let rip = state.parked_value();
            // SAFETY: as above.
            unsafe { go_to(cpu, rip) }
        }
    }
    run::<F>
}

/// Runs the function of a jump, which leaves its target in [`Cpu::parked`]; false after a fault.
///
/// # Safety
/// Both are the handler's own.
#[inline(never)]
unsafe extern "C" fn aimed<F: Fn(&mut Cpu, &Op) -> Done<u64> + Copy>(
    cpu: *mut Cpu,
    op: *const Op,
) -> bool {
    // SAFETY: these are the caller's handler's own.
    let (state, record) = unsafe { own(cpu, op) };
    match conjure::<F>()(state, record) {
        Ok(rip) => {
            state.park(rip);
            true
        }
        Err(fault) => {
            // SAFETY: as above.
            unsafe { raise(cpu, op, fault) };
            false
        }
    }
}
