//! What privileged software sees: exceptions and interrupts, descriptor tables, control registers, mode
//! changes.

use iced_x86::{Code, Instruction, Mnemonic, OpKind, Register};

use crate::cpu::{CS, Cpu, Mode};
use crate::fault::{Fault, vector};
use crate::flags;
use crate::lower::Lowered;
use crate::op::{Done, Handler, Op, called, register_offset, then_jump, then_leave, then_next};
use crate::seg::{far, inspect, iret, registers};

pub(crate) mod control;
pub(crate) mod event;
pub(crate) mod io;
pub(crate) mod msr;
pub(crate) mod operand;
pub(crate) mod processor;
pub(crate) mod syscall;

/// Where an event comes from, which decides the privilege checks of its delivery (SDM vol. 3 §6.12.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// Exception, external interrupt or NMI: the gate's DPL is not checked.
    External,
    /// INT n, INT3, INTO: the gate's DPL is checked.
    Software,
}

/// The record of a system instruction.
pub(crate) fn lower(insn: &Instruction, mode: Mode) -> Option<Lowered> {
    match insn.mnemonic() {
        Mnemonic::Mov => lower_mov(insn, mode),
        Mnemonic::Push | Mnemonic::Pop => lower_push_pop(insn),
        Mnemonic::Jmp | Mnemonic::Call => lower_far(insn, mode),
        Mnemonic::Int | Mnemonic::Int1 | Mnemonic::Int3 | Mnemonic::Into => Some(lower_int(insn)),
        Mnemonic::In | Mnemonic::Out => Some(lower_port(insn)),
        Mnemonic::Insb | Mnemonic::Insw | Mnemonic::Insd => {
            Some(lower_string(insn, then_leave(io::input_string)))
        }
        Mnemonic::Outsb | Mnemonic::Outsw | Mnemonic::Outsd => {
            Some(lower_string(insn, then_leave(io::output_string)))
        }
        _ => lower_plain(insn)
            .or_else(|| lower_sized(insn))
            .or_else(|| lower_rm(insn, mode)),
    }
}

/// Instructions without operands.
fn lower_plain(insn: &Instruction) -> Option<Lowered> {
    let leave = |run: Handler| Some(Lowered::End(Op::new(run)));
    let next = |run: Handler| Some(Lowered::Next(Op::new(run)));
    match insn.mnemonic() {
        Mnemonic::Cli => next(then_next(control::cli)),
        Mnemonic::Sti => leave(then_jump(control::sti)),
        Mnemonic::Hlt => leave(then_leave(processor::hlt)),
        Mnemonic::Cpuid => leave(then_leave(processor::cpuid)),
        Mnemonic::Rdtsc => next(then_next(processor::rdtsc)),
        Mnemonic::Rdtscp => next(then_next(processor::rdtscp)),
        Mnemonic::Rdpmc => leave(then_leave(processor::rdpmc)),
        Mnemonic::Rdmsr => leave(then_leave(msr::rdmsr)),
        Mnemonic::Wrmsr => leave(then_leave(msr::wrmsr)),
        Mnemonic::Xgetbv => next(then_next(processor::xgetbv)),
        Mnemonic::Xsetbv => leave(then_leave(processor::xsetbv)),
        Mnemonic::Clts => leave(then_leave(control::clts)),
        Mnemonic::Wbinvd | Mnemonic::Invd => next(then_next(control::write_back)),
        Mnemonic::Clac => next(then_next(control::set_ac)),
        Mnemonic::Stac => {
            let mut op = Op::new(then_next(control::set_ac));
            op.extra = 1;
            Some(Lowered::Next(op))
        }
        Mnemonic::Swapgs => next(then_next(syscall::swapgs)),
        Mnemonic::Syscall => leave(then_leave(syscall::syscall)),
        Mnemonic::Sysenter => leave(then_leave(syscall::sysenter)),
        _ => None,
    }
}

/// Instructions that an operand size makes several of.
fn lower_sized(insn: &Instruction) -> Option<Lowered> {
    let iret: Handler = then_leave(iret::iret);
    let ret: Handler = then_leave(far::ret);
    let sysret: Handler = then_leave(syscall::sysret);
    let sysexit: Handler = then_leave(syscall::sysexit);
    let popf: Handler = then_jump(control::popf);
    let (run, size) = match insn.code() {
        Code::Iretw => (iret, 2),
        Code::Iretd => (iret, 4),
        Code::Iretq => (iret, 8),
        Code::Retfw | Code::Retfw_imm16 => (ret, 2),
        Code::Retfd | Code::Retfd_imm16 => (ret, 4),
        Code::Retfq | Code::Retfq_imm16 => (ret, 8),
        Code::Sysretd => (sysret, 4),
        Code::Sysretq => (sysret, 8),
        Code::Sysexitd => (sysexit, 4),
        Code::Sysexitq => (sysexit, 8),
        Code::Popfw => (popf, 2),
        Code::Popfd => (popf, 4),
        Code::Popfq => (popf, 8),
        Code::Pushfw => return Some(lower_pushf(2)),
        Code::Pushfd => return Some(lower_pushf(4)),
        Code::Pushfq => return Some(lower_pushf(8)),
        _ => return None,
    };
    let mut op = Op::new(run);
    op.extra = size;
    if insn.op_count() == 1 {
        op.imm = u64::from(insn.immediate16());
    }
    Some(Lowered::End(op))
}

fn lower_pushf(size: u8) -> Lowered {
    let mut op = Op::new(then_next(control::pushf));
    op.extra = size;
    Lowered::Next(op)
}

/// MOV with a segment, control or debug register.
fn lower_mov(insn: &Instruction, mode: Mode) -> Option<Lowered> {
    let register = |n| match insn.op_kind(n) {
        OpKind::Register => insn.op_register(n),
        _ => Register::None,
    };
    let (to, from) = (register(0), register(1));
    let mut op = Op::new(then_leave(registers::undefined));
    if to.is_segment_register() {
        return Some(lower_load_segment(insn, to, mode));
    }
    if from.is_segment_register() {
        op.run = then_next(registers::move_from);
        op.dst = from.number() as u8;
        op.extra = if to == Register::None {
            2
        } else {
            to.size() as u8
        };
        operand::set_rm(&mut op, insn, 0, mode.bits);
        return Some(Lowered::Next(op));
    }
    if to.is_cr() || to.is_dr() {
        op.run = if to.is_cr() {
            then_leave(control::write_cr)
        } else {
            then_leave(control::write_dr)
        };
        op.dst = to.number() as u8;
        op.src = register_offset(from);
        op.extra = from.size() as u8;
        return Some(Lowered::End(op));
    }
    if from.is_cr() || from.is_dr() {
        op.run = if from.is_cr() {
            then_next(control::read_cr)
        } else {
            then_next(control::read_dr)
        };
        op.src = from.number() as u8;
        op.dst = register_offset(to);
        op.extra = to.size() as u8;
        return Some(Lowered::Next(op));
    }
    None
}

fn lower_load_segment(insn: &Instruction, to: Register, mode: Mode) -> Lowered {
    let seg = to.number();
    let mut op = Op::new(then_next(registers::move_to));
    op.dst = seg as u8;
    op.extra = 2;
    operand::set_rm(&mut op, insn, 1, mode.bits);
    if seg == CS {
        op.run = then_leave(registers::undefined);
        return Lowered::End(op);
    }
    if registers::ends_trace(seg) {
        op.run = then_leave(registers::move_to);
        return Lowered::End(op);
    }
    Lowered::Next(op)
}

/// PUSH and POP of a segment register.
fn lower_push_pop(insn: &Instruction) -> Option<Lowered> {
    let register = insn.op0_register();
    if insn.op0_kind() != OpKind::Register || !register.is_segment_register() {
        return None;
    }
    let push = insn.mnemonic() == Mnemonic::Push;
    let mut op = Op::new(if push {
        then_next(registers::push)
    } else {
        then_leave(registers::pop)
    });
    op.dst = register.number() as u8;
    op.extra = insn.stack_pointer_increment().unsigned_abs() as u8;
    Some(if push {
        Lowered::Next(op)
    } else {
        Lowered::End(op)
    })
}

/// Far jumps and calls.
fn lower_far(insn: &Instruction, mode: Mode) -> Option<Lowered> {
    let (jump, call): (Handler, Handler) = (then_leave(far::jump), then_leave(far::call));
    let (jump_memory, call_memory): (Handler, Handler) =
        (then_leave(far::jump_memory), then_leave(far::call_memory));
    let (run, size) = match insn.code() {
        Code::Jmp_ptr1616 => (jump, 2),
        Code::Jmp_ptr1632 => (jump, 4),
        Code::Call_ptr1616 => (call, 2),
        Code::Call_ptr1632 => (call, 4),
        Code::Jmp_m1616 => (jump_memory, 2),
        Code::Jmp_m1632 => (jump_memory, 4),
        Code::Jmp_m1664 => (jump_memory, 8),
        Code::Call_m1616 => (call_memory, 2),
        Code::Call_m1632 => (call_memory, 4),
        Code::Call_m1664 => (call_memory, 8),
        _ => return None,
    };
    let mut op = Op::new(run);
    op.extra = size;
    match insn.op0_kind() {
        OpKind::FarBranch16 => op.imm = u64::from(insn.far_branch16()),
        OpKind::FarBranch32 => op.imm = u64::from(insn.far_branch32()),
        _ => {
            op.set_memory(insn, mode.bits);
        }
    }
    op.imm |= u64::from(insn.far_branch_selector()) << 32;
    Some(Lowered::End(op))
}

fn lower_int(insn: &Instruction) -> Lowered {
    let mut op = Op::new(then_leave(interrupt));
    match insn.mnemonic() {
        Mnemonic::Int3 => op.run = then_leave(breakpoint),
        Mnemonic::Int1 => op.run = then_leave(debug_interrupt),
        Mnemonic::Into => op.run = then_leave(overflow),
        _ => op.imm = u64::from(insn.immediate8()),
    }
    Lowered::End(op)
}

/// INT n: in virtual-8086 mode it is sensitive to IOPL.
fn interrupt(cpu: &mut Cpu, op: &Op) -> Done {
    if cpu.is_v86() && cpu.iopl() < 3 {
        return Err(Fault::GP0);
    }
    cpu.software_interrupt(op.imm as u8)
}

fn breakpoint(cpu: &mut Cpu, _op: &Op) -> Done {
    cpu.software_interrupt(vector::BP)
}

fn overflow(cpu: &mut Cpu, _op: &Op) -> Done {
    if cpu.status & flags::OF == 0 {
        return Ok(());
    }
    cpu.software_interrupt(vector::OF)
}

/// INT1 is an event of its own: the gate's DPL does not matter.
fn debug_interrupt(cpu: &mut Cpu, _op: &Op) -> Done {
    cpu.skip_step = true;
    cpu.deliver_event(vector::DB, Event::External);
    Ok(())
}

/// IN and OUT.
fn lower_port(insn: &Instruction) -> Lowered {
    let input = insn.mnemonic() == Mnemonic::In;
    let mut op = Op::new(if input {
        then_leave(io::input)
    } else {
        then_leave(io::output)
    });
    let (data, port) = if input { (0, 1) } else { (1, 0) };
    op.extra = insn.op_register(data).size() as u8;
    if insn.op_kind(port) != OpKind::Register {
        op.extra |= io::IMMEDIATE;
        op.imm = u64::from(insn.immediate8());
    }
    Lowered::End(op)
}

/// INS and OUTS.
fn lower_string(insn: &Instruction, run: Handler) -> Lowered {
    let mut op = Op::new(run);
    op.extra = match insn.mnemonic() {
        Mnemonic::Insb | Mnemonic::Outsb => 1,
        Mnemonic::Insw | Mnemonic::Outsw => 2,
        _ => 4,
    };
    if insn.has_rep_prefix() || insn.has_repne_prefix() {
        op.extra |= io::REP;
    }
    let memory = (0..insn.op_count()).map(|n| insn.op_kind(n));
    for kind in memory {
        op.address_bits = match kind {
            OpKind::MemoryESDI | OpKind::MemorySegSI => 16,
            OpKind::MemoryESEDI | OpKind::MemorySegESI => 32,
            OpKind::MemoryESRDI | OpKind::MemorySegRSI => 64,
            _ => continue,
        };
    }
    op.seg = insn.memory_segment().number() as u8;
    Lowered::End(op)
}

/// Instructions with an operand in a register or in memory.
fn lower_rm(insn: &Instruction, mode: Mode) -> Option<Lowered> {
    let mut op = Op::new(then_leave(registers::undefined));
    let mut ends = false;
    op.extra = if insn.op0_kind() == OpKind::Register {
        insn.op0_register().size() as u8
    } else {
        0
    };
    let mut rm = 0;
    op.run = match insn.mnemonic() {
        Mnemonic::Lar => {
            rm = 1;
            then_next(inspect::lar)
        }
        Mnemonic::Lsl => {
            rm = 1;
            then_next(inspect::lsl)
        }
        Mnemonic::Verr => then_next(inspect::verr),
        Mnemonic::Verw => then_next(inspect::verw),
        Mnemonic::Arpl => {
            op.dst = register_offset(insn.op1_register());
            called::then_next(inspect::arpl)
        }
        Mnemonic::Sldt => then_next(inspect::sldt),
        Mnemonic::Str => then_next(inspect::str),
        Mnemonic::Smsw => then_next(control::smsw),
        Mnemonic::Sgdt => then_next(inspect::sgdt),
        Mnemonic::Sidt => then_next(inspect::sidt),
        Mnemonic::Lldt => called::then_next(inspect::lldt),
        Mnemonic::Ltr => called::then_next(inspect::ltr),
        Mnemonic::Lgdt => {
            op.extra = table_operand_size(insn);
            called::then_next(inspect::lgdt)
        }
        Mnemonic::Lidt => {
            op.extra = table_operand_size(insn);
            called::then_next(inspect::lidt)
        }
        Mnemonic::Lmsw => {
            ends = true;
            then_leave(control::lmsw)
        }
        Mnemonic::Invlpg => {
            ends = true;
            then_leave(control::invlpg)
        }
        Mnemonic::Invpcid => {
            ends = true;
            rm = 1;
            then_leave(control::invpcid)
        }
        Mnemonic::Rdfsbase | Mnemonic::Rdgsbase => then_next(syscall::read_base),
        Mnemonic::Wrfsbase | Mnemonic::Wrgsbase => then_next(syscall::write_base),
        Mnemonic::Lds | Mnemonic::Les | Mnemonic::Lfs | Mnemonic::Lgs | Mnemonic::Lss => {
            ends = insn.mnemonic() == Mnemonic::Lss;
            rm = 1;
            if ends {
                then_leave(registers::load_pointer)
            } else {
                then_next(registers::load_pointer)
            }
        }
        _ => return None,
    };
    if rm == 1 {
        op.dst = register_offset(insn.op0_register());
    }
    operand::set_rm(&mut op, insn, rm, mode.bits);
    finish_rm(&mut op, insn);
    Some(if ends {
        Lowered::End(op)
    } else {
        Lowered::Next(op)
    })
}

/// Puts right what the general form does not fit.
fn finish_rm(op: &mut Op, insn: &Instruction) {
    match insn.mnemonic() {
        Mnemonic::Rdfsbase | Mnemonic::Wrfsbase => (op.dst, op.seg) = (op.src, 0),
        Mnemonic::Rdgsbase | Mnemonic::Wrgsbase => (op.dst, op.seg) = (op.src, 1),
        Mnemonic::Les => load_pointer_to(op, crate::cpu::ES),
        Mnemonic::Lds => load_pointer_to(op, crate::cpu::DS),
        Mnemonic::Lfs => load_pointer_to(op, crate::cpu::FS),
        Mnemonic::Lgs => load_pointer_to(op, crate::cpu::GS),
        Mnemonic::Lss => load_pointer_to(op, crate::cpu::SS),
        _ => {}
    }
}

fn load_pointer_to(op: &mut Op, seg: usize) {
    op.src = seg as u8;
    op.extra &= !operand::MEMORY;
}

/// Operand size of LGDT and LIDT: 16 bits of operand size load 24 bits of base.
fn table_operand_size(insn: &Instruction) -> u8 {
    match insn.code() {
        Code::Lgdt_m1632_16 | Code::Lidt_m1632_16 => 2,
        _ => 4,
    }
}
