//! PUSH POP PUSHA POPA PUSHF ENTER LEAVE.

use iced_x86::{Instruction, Mnemonic, OpKind};

use crate::cpu::{Cpu, Mode, RBP, RSP, SS, cr, rflags};
use crate::fault::Fault;
use crate::int::operand::{
    Immediate, Kind, Place, Register, Source, Target, Width, by_place, by_source, by_word,
    set_source, set_target,
};
use crate::lower::Lowered;
use crate::op::{Done, Handler, Op, called, then_next};

const SP: u8 = RSP as u8 * 8;
const BP: u8 = RBP as u8 * 8;

impl Cpu {
    /// Bits of RSP that address the stack.
    pub(crate) fn stack_mask(&self) -> u64 {
        match (self.mode.bits, self.mode.wide_stack) {
            (64, _) => u64::MAX,
            (_, true) => 0xffff_ffff,
            _ => 0xffff,
        }
    }

    /// Sets the stack pointer at the width of the stack.
    pub(crate) fn set_stack_pointer(&mut self, value: u64) {
        match self.stack_mask() {
            0xffff => self.set_reg(SP, value as u16),
            mask => self.set_reg(SP, value & mask),
        }
    }

    /// Writes `value` at `offset` in the stack segment, cut to the width of the stack.
    pub(crate) fn write_stack<T: Width>(&mut self, offset: u64, value: T) -> Done {
        let offset = offset & self.stack_mask();
        let la = self.segment_address(SS, offset, T::SIZE, true)?;
        self.write(la, SS, value)
    }

    /// Reads at `offset` in the stack segment, cut to the width of the stack.
    pub(crate) fn read_stack<T: Width>(&mut self, offset: u64) -> Done<T> {
        let offset = offset & self.stack_mask();
        let la = self.segment_address(SS, offset, T::SIZE, false)?;
        self.read(la, SS)
    }

    /// Pushes a value, in any mode.
    pub(crate) fn push_value<T: Width>(&mut self, value: T) -> Done {
        let top = self.regs[RSP].wrapping_sub(T::SIZE);
        self.write_stack(top, value)?;
        self.set_stack_pointer(top);
        Ok(())
    }

    /// Pops a value, in any mode.
    pub(crate) fn pop_value<T: Width>(&mut self) -> Done<T> {
        let value = self.read_stack(self.regs[RSP])?;
        self.set_stack_pointer(self.regs[RSP].wrapping_add(T::SIZE));
        Ok(value)
    }

    /// Pushes 64 bits in 64-bit mode.
    #[inline(always)]
    pub(crate) fn push64(&mut self, value: u64) -> Done {
        let top = self.regs[RSP].wrapping_sub(8);
        self.write(top, SS, value)?;
        self.regs[RSP] = top;
        Ok(())
    }

    /// Pops 64 bits in 64-bit mode.
    #[inline(always)]
    pub(crate) fn pop64(&mut self) -> Done<u64> {
        let value = self.read(self.regs[RSP], SS)?;
        self.regs[RSP] = self.regs[RSP].wrapping_add(8);
        Ok(value)
    }
}

#[inline(always)]
fn push_long<S: Source<u64>>(cpu: &mut Cpu, op: &Op) -> Done {
    let value = S::get(cpu, op)?;
    cpu.push64(value)
}

fn push_any<T: Width, S: Source<T>>(cpu: &mut Cpu, op: &Op) -> Done {
    let value = S::get(cpu, op)?;
    cpu.push_value(value)
}

fn push_selector<T: Width>(cpu: &mut Cpu, op: &Op) -> Done {
    let selector = cpu.segs[usize::from(op.src)].selector;
    cpu.push_value(T::of(u64::from(selector)))
}

#[inline(always)]
fn pop_long(cpu: &mut Cpu, op: &Op) -> Done {
    let value = cpu.pop64()?;
    cpu.set_reg(op.dst, value);
    Ok(())
}

/// The address of a memory target is computed with the stack pointer after the pop.
fn pop_any<T: Width, P: Place<T>>(cpu: &mut Cpu, op: &Op) -> Done {
    let before = cpu.regs[RSP];
    let value = cpu.pop_value::<T>()?;
    P::put(cpu, op, value).inspect_err(|_| cpu.regs[RSP] = before)
}

fn push_all<T: Width>(cpu: &mut Cpu, _op: &Op) -> Done {
    let top = cpu.regs[RSP];
    for n in 0..8u8 {
        let at = top.wrapping_sub(T::SIZE * (u64::from(n) + 1));
        cpu.write_stack(at, cpu.reg::<T>(n * 8))?;
    }
    cpu.set_stack_pointer(top.wrapping_sub(T::SIZE * 8));
    Ok(())
}

fn pop_all<T: Width>(cpu: &mut Cpu, _op: &Op) -> Done {
    let top = cpu.regs[RSP];
    let mut values = [T::default(); 8];
    for (n, value) in values.iter_mut().enumerate() {
        *value = cpu.read_stack(top.wrapping_add(T::SIZE * n as u64))?;
    }
    for (n, value) in values.into_iter().rev().enumerate() {
        if n != RSP {
            value.assign(cpu, n as u8 * 8);
        }
    }
    cpu.set_stack_pointer(top.wrapping_add(T::SIZE * 8));
    Ok(())
}

/// PUSHF; in virtual-8086 mode IOPL 3 or the virtual interrupt flag are needed (SDM vol. 3 §21.2.7).
fn push_flags<T: Width>(cpu: &mut Cpu, _op: &Op) -> Done {
    let mut value = cpu.flags() & !(rflags::VM | rflags::RF);
    if cpu.is_v86() && value & rflags::IOPL != rflags::IOPL {
        if cpu.cr4 & cr::CR4_VME == 0 || T::SIZE != 2 {
            return Err(Fault::GP0);
        }
        let virtual_if = value & rflags::VIF != 0;
        value = value & !rflags::IF | rflags::IOPL;
        value |= if virtual_if { rflags::IF } else { 0 };
    }
    cpu.push_value(T::of(value))
}

/// ENTER: frame size in the low 16 bits of the immediate, nesting level above.
fn enter<T: Width>(cpu: &mut Cpu, op: &Op) -> Done {
    let (size, level) = (op.imm & 0xffff, op.imm >> 16 & 31);
    let mut top = cpu.regs[RSP].wrapping_sub(T::SIZE);
    cpu.write_stack(top, cpu.reg::<T>(BP))?;
    let frame = top;
    for n in 1..level {
        let display = cpu.regs[RBP].wrapping_sub(T::SIZE * n);
        let pointer = cpu.read_stack::<T>(display)?;
        top = top.wrapping_sub(T::SIZE);
        cpu.write_stack(top, pointer)?;
    }
    if level > 0 {
        top = top.wrapping_sub(T::SIZE);
        cpu.write_stack(top, T::of(frame))?;
    }
    top = top.wrapping_sub(size);
    // The last step looks whether the new top of the stack can be written (SDM vol. 2, ENTER).
    let la = cpu.segment_address(SS, top & cpu.stack_mask(), 1, true)?;
    let byte = cpu.read::<u8>(la, SS)?;
    cpu.write(la, SS, byte)?;
    set_frame::<T>(cpu, frame);
    cpu.set_stack_pointer(top);
    Ok(())
}

/// Sets the frame pointer, at the operand size but no wider than the stack.
fn set_frame<T: Width>(cpu: &mut Cpu, frame: u64) {
    T::of(frame & cpu.stack_mask() | cpu.regs[RBP] & !cpu.stack_mask()).assign(cpu, BP);
}

fn leave<T: Width>(cpu: &mut Cpu, _op: &Op) -> Done {
    let frame = cpu.regs[RBP];
    let value = cpu.read_stack::<T>(frame)?;
    cpu.set_stack_pointer(frame.wrapping_add(T::SIZE));
    value.assign(cpu, BP);
    Ok(())
}

#[inline(always)]
fn leave_long(cpu: &mut Cpu, _op: &Op) -> Done {
    let frame = cpu.regs[RBP];
    let value = cpu.read::<u64>(frame, SS)?;
    cpu.regs[RSP] = frame.wrapping_add(8);
    cpu.regs[RBP] = value;
    Ok(())
}

/// Bytes that the instruction moves the stack pointer by.
fn slot(insn: &Instruction) -> usize {
    insn.stack_pointer_increment().unsigned_abs() as usize
}

fn push(op: &mut Op, insn: &Instruction, mode: Mode) -> Handler {
    let width = slot(insn);
    if insn.op0_kind() == OpKind::Register && insn.op0_register().is_segment_register() {
        op.src = (insn.op0_register() as u8).wrapping_sub(iced_x86::Register::ES as u8);
        return by_word!(width, T => called::then_next(push_selector::<T>));
    }
    let source = set_source(op, insn, 0, mode);
    if mode.bits == 64 && width == 8 {
        return by_source!(source, S => then_next(push_long::<S>));
    }
    match source {
        Kind::Immediate => by_word!(width, T => called::then_next(push_any::<T, Immediate>)),
        _ => {
            by_word!(width, T => by_place!(called source, S => (Register) called::then_next(push_any::<T, S>)))
        }
    }
}

fn pop(op: &mut Op, insn: &Instruction, mode: Mode) -> Option<Handler> {
    if insn.op0_kind() == OpKind::Register && insn.op0_register().is_segment_register() {
        return None;
    }
    let target = set_target(op, insn, 0, mode);
    if target == Kind::Register && mode.bits == 64 && slot(insn) == 8 {
        return Some(then_next(pop_long));
    }
    Some(
        by_word!(slot(insn), T => by_place!(called target, P => (Target) called::then_next(pop_any::<T, P>))),
    )
}

/// The record of a stack instruction.
pub(crate) fn lower(insn: &Instruction, mode: Mode) -> Option<Lowered> {
    let mut op = Op::new(then_next(leave_long));
    op.run = match insn.mnemonic() {
        Mnemonic::Push => push(&mut op, insn, mode),
        Mnemonic::Pop => pop(&mut op, insn, mode)?,
        Mnemonic::Pusha => called::then_next(push_all::<u16>),
        Mnemonic::Pushad => called::then_next(push_all::<u32>),
        Mnemonic::Popa => called::then_next(pop_all::<u16>),
        Mnemonic::Popad => called::then_next(pop_all::<u32>),
        Mnemonic::Pushf => called::then_next(push_flags::<u16>),
        Mnemonic::Pushfd => called::then_next(push_flags::<u32>),
        Mnemonic::Pushfq => called::then_next(push_flags::<u64>),
        Mnemonic::Enter => {
            op.imm = insn.immediate(0) & 0xffff | insn.immediate(1) << 16;
            match insn.code() {
                iced_x86::Code::Enterw_imm16_imm8 => called::then_next(enter::<u16>),
                iced_x86::Code::Enterd_imm16_imm8 => called::then_next(enter::<u32>),
                _ => called::then_next(enter::<u64>),
            }
        }
        Mnemonic::Leave => match insn.code() {
            iced_x86::Code::Leavew => called::then_next(leave::<u16>),
            iced_x86::Code::Leaved => called::then_next(leave::<u32>),
            _ => then_next(leave_long),
        },
        _ => return None,
    };
    Some(Lowered::Next(op))
}
