//! The decoded form: one fixed-size record per instruction, and how a handler passes on to the next.
//!
//! Instructions are plain functions on the CPU and the record. [`then_next`], [`then_leave`],
//! [`then_branch`] and [`then_jump`] make handlers of them: code that runs the function in line and then
//! calls the next handler in tail position (a jump, in optimised builds), or returns to the dispatcher:
//! after a fault, at the end of a trace, or when the rest of the trace is stale. Functions for
//! instructions that are hot are `#[inline(always)]`, hold nothing that needs dropping and let no address
//! of a local escape, or the tail call would silently become a call; functions that do are
//! `#[inline(never)]`.

#![expect(
    unsafe_code,
    reason = "handlers reach the CPU and the records through raw pointers"
)]

pub(crate) mod called;

use iced_x86::{Instruction, OpKind, Register};

use crate::cpu::{Cpu, NO_SEG, TRACE_RIP, ZERO};
use crate::fault::Fault;

/// What runs an [`Op`].
pub(crate) type Handler = unsafe extern "C" fn(cpu: *mut Cpu, op: *const Op);

/// A decoded instruction. Register operands are byte offsets into [`Cpu::regs`] (AH is 1, RCX 8) or
/// numbers of XMM, MM, control, debug or segment registers, as the handler wants.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(32))]
pub(crate) struct Op {
    pub(crate) run: Handler,
    /// Immediate operand, sign-extended; of a branch: the trace linked to its target, or null.
    pub(crate) imm: u64,
    /// Displacement of the memory operand; of a branch: target relative to the trace's first byte.
    pub(crate) disp: i32,
    /// Where the instruction begins, in bytes from the trace's first byte.
    pub(crate) off: u16,
    /// Length of the instruction in bytes.
    pub(crate) len: u8,
    /// Segment of the memory operand.
    pub(crate) seg: u8,
    pub(crate) dst: u8,
    pub(crate) src: u8,
    /// Byte offset of the base register.
    pub(crate) base: u8,
    /// Byte offset of the index register.
    pub(crate) index: u8,
    /// log2 of the scale.
    pub(crate) scale: u8,
    /// Address size in bits (16, 32 or 64) for [`Ea`] kinds that need it.
    pub(crate) address_bits: u8,
    /// Instructions from the start of the trace to this one, itself included; 0 in a stale record.
    pub(crate) count: u8,
    /// Whatever else the handler wants.
    pub(crate) extra: u8,
}

const _: () = assert!(size_of::<Op>() == 32);

/// What the function of an instruction gives back.
pub(crate) type Done<T = ()> = Result<T, Fault>;

/// Gives the function behind a type that only functions without captures have.
#[inline(always)]
fn conjure<F: Copy>() -> F {
    const { assert!(size_of::<F>() == 0, "handlers capture nothing") };
    // SAFETY: the callers below were given a value of this type, and a value of size 0 has no bytes.
    unsafe { std::mem::transmute_copy::<(), F>(&()) }
}

/// A handler's arguments as references.
///
/// # Safety
/// Both are the handler's own, and it uses no other reference to them meanwhile.
#[inline(always)]
unsafe fn own<'a>(cpu: *mut Cpu, op: *const Op) -> (&'a mut Cpu, &'a Op) {
    // SAFETY: a handler has the only reference to its CPU.
    let state = unsafe { &mut *cpu };
    // SAFETY: the record is alive while its handler runs.
    (state, unsafe { &*op })
}

/// Runs the record after `op` in tail position.
///
/// # Safety
/// Both are the handler's own, and `op` is not the last record of its trace.
#[inline(always)]
unsafe fn enter_next(cpu: *mut Cpu, op: *const Op) {
    // SAFETY: there is a record after `op`.
    let next = unsafe { op.add(1) };
    // SAFETY: it is of the same CPU and alive.
    unsafe { enter(cpu, next) }
}

/// A handler that runs `function` and goes on with the following record.
pub(crate) fn then_next<F: Fn(&mut Cpu, &Op) -> Done + Copy>(_function: F) -> Handler {
    unsafe extern "C" fn run<F: Fn(&mut Cpu, &Op) -> Done + Copy>(cpu: *mut Cpu, op: *const Op) {
        // SAFETY: these are the handler's own.
        let (state, record) = unsafe { own(cpu, op) };
        match conjure::<F>()(state, record) {
            // SAFETY: as above; a record with this handler is never the last of its trace.
            Ok(()) => unsafe { enter_next(cpu, op) },
            // SAFETY: as above.
            Err(fault) => unsafe { raise(cpu, op, fault) },
        }
    }
    run::<F>
}

/// A handler that puts RIP behind the instruction, runs `function`, which may put it elsewhere, and ends
/// the trace.
pub(crate) fn then_leave<F: Fn(&mut Cpu, &Op) -> Done + Copy>(_function: F) -> Handler {
    unsafe extern "C" fn run<F: Fn(&mut Cpu, &Op) -> Done + Copy>(cpu: *mut Cpu, op: *const Op) {
        // SAFETY: these are the handler's own.
        let (state, record) = unsafe { own(cpu, op) };
        state.leave_trace(record);
        if let Err(fault) = conjure::<F>()(state, record) {
            // SAFETY: as above.
            unsafe { raise(cpu, op, fault) };
        }
    }
    run::<F>
}

/// A handler of a direct branch: takes it to `disp` when `function` says so, else goes on with the
/// following record.
pub(crate) fn then_branch<F: Fn(&mut Cpu, &Op) -> Done<bool> + Copy>(_function: F) -> Handler {
    unsafe extern "C" fn run<F: Fn(&mut Cpu, &Op) -> Done<bool> + Copy>(
        cpu: *mut Cpu,
        op: *const Op,
    ) {
        // SAFETY: these are the handler's own.
        let (state, record) = unsafe { own(cpu, op) };
        match conjure::<F>()(state, record) {
            // SAFETY: as above.
            Ok(true) => unsafe { take_branch(cpu, op) },
            // SAFETY: as above; a conditional branch is never the last record of its trace.
            Ok(false) => unsafe { enter_next(cpu, op) },
            // SAFETY: as above.
            Err(fault) => unsafe { raise(cpu, op, fault) },
        }
    }
    run::<F>
}

/// A handler of an indirect near branch to the RIP that `function` gives.
pub(crate) fn then_jump<F: Fn(&mut Cpu, &Op) -> Done<u64> + Copy>(_function: F) -> Handler {
    unsafe extern "C" fn run<F: Fn(&mut Cpu, &Op) -> Done<u64> + Copy>(
        cpu: *mut Cpu,
        op: *const Op,
    ) {
        // SAFETY: these are the handler's own.
        let (state, record) = unsafe { own(cpu, op) };
        match conjure::<F>()(state, record) {
            Ok(rip) => {
                state.budget -= i32::from(record.count);
                // SAFETY: as above.
                unsafe { go_to(cpu, rip) }
            }
            // SAFETY: as above.
            Err(fault) => unsafe { raise(cpu, op, fault) },
        }
    }
    run::<F>
}

/// Runs a record in tail position.
///
/// # Safety
/// `cpu` is the handler's own and `op` one of its live records.
#[inline(always)]
unsafe fn enter(cpu: *mut Cpu, op: *const Op) {
    // SAFETY: the record is alive: traces are freed by the dispatcher only.
    let run = unsafe { (*op).run };
    // SAFETY: `cpu` is the CPU that the record belongs to.
    unsafe { run(cpu, op) }
}

/// Takes the direct branch of `op`: over its link when there is one.
///
/// # Safety
/// Both are the handler's own.
#[inline(always)]
unsafe fn take_branch(cpu: *mut Cpu, op: *const Op) {
    // SAFETY: these are the caller's handler's own.
    let (state, record) = unsafe { own(cpu, op) };
    state.budget -= i32::from(record.count);
    let sum = state.regs[TRACE_RIP].wrapping_add(record.disp as i64 as u64);
    let rip = state.wrap_rip(sum);
    if record.imm != 0 && state.may_go_on() {
        state.regs[TRACE_RIP] = rip;
        // SAFETY: a link leads to a record in the same page, which lives as long as this one.
        unsafe { enter(cpu, record.imm as *const Op) }
    } else {
        // SAFETY: as above.
        unsafe { take_unlinked(cpu, op, rip) }
    }
}

/// Takes a branch that has no link, or ends a slice.
///
/// # Safety
/// Both are the handler's own.
#[inline(never)]
unsafe fn take_unlinked(cpu: *mut Cpu, op: *const Op, rip: u64) {
    // SAFETY: these are the caller's handler's own.
    let (state, record) = unsafe { own(cpu, op) };
    if record.imm == 0
        && record.extra == LINKABLE
        && !record.is_stale()
        && let Some(first) = state.link_target(rip)
    {
        // SAFETY: records live in the arena of this CPU, which only this thread changes.
        unsafe { (*op.cast_mut()).imm = first as u64 };
    }
    // SAFETY: as above.
    unsafe { go_to(cpu, rip) }
}

/// [`Op::extra`] of a direct branch whose target may lie in its own page.
pub(crate) const LINKABLE: u8 = 1;

/// Goes on at `rip`: straight to its trace when the jump cache knows it.
///
/// # Safety
/// `cpu` is the handler's own.
#[inline(always)]
pub(crate) unsafe fn go_to(cpu: *mut Cpu, rip: u64) {
    // SAFETY: the caller's handler has the only reference.
    let state = unsafe { &mut *cpu };
    let first = if state.may_go_on() {
        state.remembered(rip)
    } else {
        std::ptr::null()
    };
    if first.is_null() {
        state.rip = rip;
        return;
    }
    state.regs[TRACE_RIP] = rip;
    // SAFETY: the jump cache holds records that are alive.
    unsafe { enter(cpu, first) }
}

impl Cpu {
    /// RIP of the instruction of `op`.
    pub(crate) fn rip_of(&self, op: &Op) -> u64 {
        self.wrap_rip(self.regs[TRACE_RIP].wrapping_add(u64::from(op.off)))
    }

    /// RIP of the instruction after that of `op`.
    pub(crate) fn rip_after(&self, op: &Op) -> u64 {
        let next = u64::from(op.off) + u64::from(op.len);
        self.wrap_rip(self.regs[TRACE_RIP].wrapping_add(next))
    }

    /// Cuts RIP to the width of the code segment.
    pub(crate) fn wrap_rip(&self, rip: u64) -> u64 {
        match self.mode.bits {
            64 => rip,
            32 => rip & 0xffff_ffff,
            _ => rip & 0xffff,
        }
    }

    /// Puts RIP after the instruction of `op` and accounts for the trace up to it.
    pub(crate) fn leave_trace(&mut self, op: &Op) {
        self.rip = self.rip_after(op);
        self.budget -= i32::from(op.count);
    }

    /// A general register, or part of one, by byte offset.
    #[inline(always)]
    pub(crate) fn reg<T: Copy>(&self, offset: u8) -> T {
        debug_assert!(usize::from(offset) + size_of::<T>() <= size_of_val(&self.regs));
        let start = (&raw const self.regs).cast::<u8>();
        // SAFETY: offsets come from `register_offset` and lie inside `regs`.
        let field = unsafe { start.add(usize::from(offset)) };
        // SAFETY: as above; any bit pattern is a valid integer.
        unsafe { field.cast::<T>().read_unaligned() }
    }

    /// Writes 8 or 16 bits of a register; the rest stays. 32-bit writes go through [`Cpu::set_reg32`].
    #[inline(always)]
    pub(crate) fn set_reg<T: Copy>(&mut self, offset: u8, value: T) {
        debug_assert!(usize::from(offset) + size_of::<T>() <= size_of_val(&self.regs));
        let start = (&raw mut self.regs).cast::<u8>();
        // SAFETY: as in `reg`.
        let field = unsafe { start.add(usize::from(offset)) };
        // SAFETY: as in `reg`.
        unsafe { field.cast::<T>().write_unaligned(value) };
    }

    /// Writes 32 bits of a register, which clears the upper half.
    #[inline(always)]
    pub(crate) fn set_reg32(&mut self, offset: u8, value: u32) {
        self.set_reg(offset, u64::from(value));
    }
}

/// Stops the trace at `op` with a fault.
///
/// # Safety
/// `cpu` and `op` are a running handler's own.
#[cold]
#[inline(never)]
pub(crate) unsafe fn raise(cpu: *mut Cpu, op: *const Op, fault: Fault) {
    // SAFETY: the caller's handler has the only reference.
    let cpu = unsafe { &mut *cpu };
    // SAFETY: the record is alive while its handler runs.
    cpu.rip = cpu.rip_of(unsafe { &*op });
    cpu.fault = Some(fault);
}

/// Handler of records whose code has changed: goes back to the dispatcher, before the instruction.
unsafe extern "C" fn stale(cpu: *mut Cpu, op: *const Op) {
    // SAFETY: a handler has the only reference to its CPU.
    let cpu = unsafe { &mut *cpu };
    // SAFETY: the record is alive while its handler runs.
    cpu.rip = cpu.rip_of(unsafe { &*op });
}

/// How a handler computes the linear address of its memory operand. The fault is of the segment;
/// canonical form and paging are checked by the access itself.
pub(crate) trait Ea: 'static {
    fn linear(cpu: &mut Cpu, op: &Op, size: u64, write: bool) -> Done<u64>;
}

/// 64-bit mode: base and displacement, no segment base.
pub(crate) struct BaseDisp;
/// 64-bit mode: everything.
pub(crate) struct Full;
/// 16- and 32-bit addresses, and all of legacy mode with its segment checks.
pub(crate) struct Legacy;

impl Ea for BaseDisp {
    #[inline(always)]
    fn linear(cpu: &mut Cpu, op: &Op, _size: u64, _write: bool) -> Done<u64> {
        Ok(cpu.reg::<u64>(op.base).wrapping_add(op.disp as i64 as u64))
    }
}

impl Ea for Full {
    #[inline(always)]
    fn linear(cpu: &mut Cpu, op: &Op, _size: u64, _write: bool) -> Done<u64> {
        Ok(cpu.seg_base[usize::from(op.seg & 7)]
            .wrapping_add(cpu.reg::<u64>(op.base))
            .wrapping_add(cpu.reg::<u64>(op.index) << op.scale)
            .wrapping_add(op.disp as i64 as u64))
    }
}

impl Ea for Legacy {
    fn linear(cpu: &mut Cpu, op: &Op, size: u64, write: bool) -> Done<u64> {
        cpu.segment_address(usize::from(op.seg), cpu.effective_offset(op), size, write)
    }
}

impl Cpu {
    /// The effective address of a memory operand inside its segment, cut to the address size.
    pub(crate) fn effective_offset(&self, op: &Op) -> u64 {
        let sum = self
            .reg::<u64>(op.base)
            .wrapping_add(self.reg::<u64>(op.index) << op.scale)
            .wrapping_add(op.disp as i64 as u64);
        match op.address_bits {
            64 => sum,
            32 => sum & 0xffff_ffff,
            _ => sum & 0xffff,
        }
    }

    /// Linear address of the memory operand of a slow instruction, in any mode.
    pub(crate) fn operand_address(&mut self, op: &Op, size: u64, write: bool) -> Done<u64> {
        self.segment_address(usize::from(op.seg), self.effective_offset(op), size, write)
    }
}

/// Which [`Ea`] a memory operand needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EaKind {
    BaseDisp,
    Full,
    Legacy,
}

/// Picks the monomorphic handler for a memory operand: `ea!(kind, E => then_next(load::<E, u32>))`.
macro_rules! ea {
    ($kind:expr, $e:ident => $handler:expr) => {
        match $kind {
            crate::op::EaKind::BaseDisp => {
                type $e = crate::op::BaseDisp;
                $handler
            }
            crate::op::EaKind::Full => {
                type $e = crate::op::Full;
                $handler
            }
            crate::op::EaKind::Legacy => {
                // The handlers of legacy addresses are called: `then_next` means that one here.
                use crate::op::called::*;
                type $e = crate::op::Legacy;
                $handler
            }
        }
    };
}
pub(crate) use ea;

/// Byte offset of a general register (or part, or EIP/RIP as a base) in [`Cpu::regs`].
pub(crate) fn register_offset(register: Register) -> u8 {
    match register {
        Register::None => ZERO as u8 * 8,
        Register::RIP | Register::EIP => TRACE_RIP as u8 * 8,
        Register::AH | Register::CH | Register::DH | Register::BH => {
            (register as u8 - Register::AH as u8) * 8 + 1
        }
        _ => register.full_register().number() as u8 * 8,
    }
}

impl Op {
    /// Marks the record as one whose code has changed.
    pub(crate) fn make_stale(&mut self) {
        self.run = stale;
        self.count = 0;
    }

    /// Whether the code of this record has changed since it was decoded. (Its handler cannot tell: a
    /// function may have several addresses.)
    pub(crate) fn is_stale(&self) -> bool {
        self.count == 0
    }

    /// A record without operands; the trace builder fills `off`, `len` and `count`.
    pub(crate) fn new(run: Handler) -> Self {
        let zero = ZERO as u8 * 8;
        Self {
            run,
            imm: 0,
            disp: 0,
            off: 0,
            len: 0,
            seg: NO_SEG as u8,
            dst: 0,
            src: 0,
            base: zero,
            index: zero,
            scale: 0,
            address_bits: 64,
            count: 0,
            extra: 0,
        }
    }

    /// Fills in the memory operand of `insn` and tells which [`Ea`] it needs. `insn` was decoded with the
    /// offset from the trace's start as its IP.
    pub(crate) fn set_memory(&mut self, insn: &Instruction, mode_bits: u8) -> EaKind {
        let base = insn.memory_base();
        self.base = register_offset(base);
        self.index = register_offset(insn.memory_index());
        self.scale = insn.memory_index_scale().trailing_zeros() as u8;
        self.seg = (insn.memory_segment() as u8).wrapping_sub(Register::ES as u8);
        self.disp = insn.memory_displacement64() as i32;
        self.address_bits = address_bits(insn, mode_bits);
        let plain = self.index == ZERO as u8 * 8 && usize::from(self.seg) < crate::cpu::FS;
        match (mode_bits, self.address_bits) {
            (64, 64) if plain => EaKind::BaseDisp,
            (64, 64) => EaKind::Full,
            _ => EaKind::Legacy,
        }
    }
}

/// Address size of the memory operand of `insn`, in bits.
pub(crate) fn address_bits(insn: &Instruction, mode_bits: u8) -> u8 {
    let by_register = |r: Register| match r.size() {
        8 => Some(64),
        4 => Some(32),
        2 => Some(16),
        _ => None,
    };
    by_register(insn.memory_base())
        .or_else(|| by_register(insn.memory_index()))
        .unwrap_or_else(|| match insn.memory_displ_size() {
            8 => 64,
            4 => 32,
            2 => 16,
            _ => mode_bits,
        })
}

/// Whether operand `n` of `insn` is in memory.
pub(crate) fn is_memory(insn: &Instruction, n: u32) -> bool {
    n < insn.op_count() && insn.op_kind(n) == OpKind::Memory
}

#[cfg(test)]
mod tests;
