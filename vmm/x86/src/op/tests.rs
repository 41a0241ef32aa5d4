//! Handlers that go on must leave nothing on the stack.

#![expect(
    unsafe_code,
    reason = "handlers are called, and the stack pointer is read"
)]

use std::arch::asm;
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use iced_x86::{Decoder, DecoderOptions, Instruction, Mnemonic};

use super::{Handler, Op, then_branch, then_next};
use crate::bus::Bus;
use crate::cpu::{Cpu, Mode, RAX, RBP, RBX, RCX, RDI, RDX, RSI, RSP, TRACE_RIP, Vcpu, ZERO, cr};
use crate::dispatch::tests::{Empty, Ram};
use crate::lower::{Lowered, lower};
use crate::op::Done;
use crate::trace::jump_slot;

/// Where the trace pretends to be.
const START: u64 = 0x1000;
const DATA: u64 = 0x4000;
const STACK: u64 = 0x8000;
/// Rounds of a loop; a call that is none of the tail shows from the second on.
const ROUNDS: i32 = 64;

static PASSES: AtomicUsize = AtomicUsize::new(0);
static HIGHEST: AtomicUsize = AtomicUsize::new(0);
static LOWEST: AtomicUsize = AtomicUsize::new(0);

/// Notes the stack pointer and makes the registers as they were.
#[inline(always)]
fn probe(cpu: &mut Cpu, _op: &Op) -> Done {
    let rsp: usize;
    // SAFETY: reads a register.
    unsafe { asm!("mov {}, rsp", out(reg) rsp, options(nomem, nostack, preserves_flags)) };
    PASSES.fetch_add(1, Ordering::Relaxed);
    HIGHEST.fetch_max(rsp, Ordering::Relaxed);
    LOWEST.fetch_min(rsp, Ordering::Relaxed);
    cpu.regs = [DATA; 18];
    (cpu.regs[ZERO], cpu.regs[TRACE_RIP]) = (0, START);
    (cpu.regs[RAX], cpu.regs[RCX], cpu.regs[RDX]) = (0x10, 3, 0);
    (cpu.regs[RBX], cpu.regs[RSP]) = (DATA, STACK);
    (cpu.regs[RBP], cpu.regs[RSI], cpu.regs[RDI]) = (DATA, 0x20, DATA + 0x800);
    Ok(())
}

/// Bytes from the opcode on: with register operands, and with memory operands of all kinds of address.
fn tails(bits: u32, opcode: u8) -> Vec<Vec<u8>> {
    let memory: &[&[u8]] = if bits == 16 {
        &[&[0x07], &[0x00]]
    } else {
        &[&[0x07], &[0x04, 0x37], &[0x03]]
    };
    let mut all = Vec::new();
    for reg in 0..8u8 {
        let registers = if opcode & 0xf8 == 0xd8 { 0..8 } else { 1..2 };
        all.extend(registers.map(|rm| vec![0xc0 | reg << 3 | rm]));
        for form in memory {
            let mut bytes = form.to_vec();
            bytes[0] |= reg << 3;
            all.push(bytes);
        }
    }
    all
}

fn heads(bits: u32) -> Vec<Vec<u8>> {
    let mut prefixes: Vec<Vec<u8>> = [
        &[][..],
        &[0x66],
        &[0xf2],
        &[0xf3],
        &[0xf0],
        &[0x67],
        &[0x64],
    ]
    .iter()
    .map(|p| p.to_vec())
    .collect();
    prefixes.extend([
        vec![0x66, 0xf0],
        vec![0x66, 0x64],
        vec![0xf0, 0x64],
        vec![0x66, 0xf3],
    ]);
    if bits == 64 {
        let wide = prefixes.iter().map(|p| [p, &[0x48][..]].concat());
        let wide: Vec<_> = wide.collect();
        prefixes.extend(wide);
    }
    let mut all: Vec<Vec<u8>> = Vec::new();
    for prefix in &prefixes {
        for map in [&[][..], &[0x0f], &[0x0f, 0x38], &[0x0f, 0x3a]] {
            all.push([prefix, map].concat());
        }
    }
    for map in 1..=3 {
        for pp in 0..4 {
            all.push(vec![0xc4, 0xe0 | map, 0x70 | pp]);
            all.push(vec![0xc4, 0xe0 | map, 0xf0 | pp]);
        }
    }
    all
}

/// Instructions by the handler of their record, some for each.
type Handlers = HashMap<(usize, u32), Vec<(Vec<u8>, Instruction)>>;

fn handlers(bits: u32) -> Handlers {
    let (mut found, mode) = (Handlers::new(), mode(bits));
    for head in heads(bits) {
        for opcode in 0..=255u8 {
            for tail in tails(bits, opcode) {
                let bytes = [&head[..], &[opcode], &tail, &[1, 0, 0, 0, 0, 0, 0, 0]].concat();
                let insn = Decoder::with_ip(bits, &bytes, 0, DecoderOptions::NONE).decode();
                if insn.is_invalid() {
                    continue;
                }
                if let Some(op) = continuing(&insn, mode, &bytes) {
                    let known = found.entry((op.run as usize, bits)).or_default();
                    if known.len() < 6 {
                        known.push((bytes, insn));
                    }
                }
            }
        }
    }
    found
}

/// The record of an instruction, where it may go straight on to another.
fn continuing(insn: &Instruction, mode: Mode, bytes: &[u8]) -> Option<Op> {
    match lower(insn, mode, &bytes[..bytes.len().min(15)]) {
        Lowered::Next(op) => Some(op),
        Lowered::End(op) => (is_branch(insn) || is_near_jump(insn)).then_some(op),
    }
}

fn is_branch(insn: &Instruction) -> bool {
    insn.near_branch_target() != 0
}

fn is_near_jump(insn: &Instruction) -> bool {
    let ret = insn.mnemonic() == Mnemonic::Ret;
    ret || insn.is_jmp_near_indirect() || insn.is_call_near_indirect()
}

fn mode(bits: u32) -> Mode {
    Mode {
        bits: bits as u8,
        wide_stack: bits != 16,
    }
}

fn vcpu(ram: &Ram, bits: u32) -> Vcpu {
    let mut vcpu = ram.vcpu();
    let cpu = &mut vcpu.cpu;
    cpu.mode = mode(bits);
    if bits == 64 {
        cpu.msr.efer = cr::EFER_LMA;
    }
    cpu.cr4 = cr::CR4_OSFXSR | cr::CR4_OSXMMEXCPT | cr::CR4_FSGSBASE | cr::CR4_OSXSAVE;
    cpu.cr0 |= cr::CR0_PE;
    cpu.fpu_changed();
    cpu.class_changed();
    let board: &mut dyn Bus = Box::leak(Box::new(Empty::default()));
    cpu.bus = Some(std::ptr::from_mut(board));
    vcpu
}

/// Runs a loop of a probe and the instruction; the bytes of stack that a round costs at most, or nothing
/// when the loop does not come round.
fn growth(cpu: &mut Cpu, bytes: &[u8], insn: &Instruction, link: bool) -> Option<usize> {
    let mut op = continuing(insn, cpu.mode, bytes)?;
    (op.len, op.count) = (insn.len() as u8, 2);
    let mut first = Op::new(then_next(probe));
    first.count = 1;
    let mut last = Op::new(then_branch(|_: &mut Cpu, _: &Op| Ok(true)));
    last.count = 3;
    let mut records = Box::new([first, op, last]);
    let start = records.as_ptr();
    records[2].imm = start as u64;
    if link && is_branch(insn) {
        records[1].imm = start as u64;
    }
    std::hint::black_box(&records);
    cpu.regs[TRACE_RIP] = START;
    cpu.fault = None;
    go_round(cpu, start);
    if cpu.fault.is_none() && PASSES.load(Ordering::Relaxed) < 2 {
        let slot = jump_slot(cpu.rip);
        cpu.traces.jumps[slot].rip = cpu.rip;
        cpu.traces.jumps[slot].tag = cpu.jump_tag;
        cpu.traces.jumps[slot].first = start;
        go_round(cpu, start);
        cpu.traces.jumps[slot].first = std::ptr::null();
        cpu.traces.jumps[slot].tag = 0;
    }
    cpu.fault = None;
    let (high, low) = (
        HIGHEST.load(Ordering::Relaxed),
        LOWEST.load(Ordering::Relaxed),
    );
    (PASSES.load(Ordering::Relaxed) > ROUNDS as usize / 4).then_some(high - low)
}

fn go_round(cpu: &mut Cpu, first: *const Op) {
    cpu.bell.take(u32::MAX);
    cpu.budget = 3 * ROUNDS;
    PASSES.store(0, Ordering::Relaxed);
    HIGHEST.store(0, Ordering::Relaxed);
    LOWEST.store(usize::MAX, Ordering::Relaxed);
    // SAFETY: the records are alive.
    let run: Handler = unsafe { (*first).run };
    // SAFETY: the CPU has a board, and the records are its own.
    unsafe { run(cpu, first) };
}

/// Tries one instruction with several contents of memory.
fn tried(ram: &Ram, vcpu: &mut Vcpu, bytes: &[u8], insn: &Instruction) -> Option<usize> {
    for fill in [0x11u8, 0, 0x01] {
        ram.write(0x2000, &[fill; 0x6000]);
        for at in (STACK..STACK + 0x40).step_by(8) {
            ram.write(at, &START.to_le_bytes());
        }
        vcpu.cpu.status = 0;
        for link in [true, false] {
            if let Some(bytes) = growth(&mut vcpu.cpu, bytes, insn, link) {
                return Some(bytes);
            }
        }
    }
    None
}

#[test]
fn no_handler_that_goes_on_grows_the_stack() {
    if !cfg!(chained) {
        println!("skipped: handlers only chain in optimised builds");
        return;
    }
    let (mut growing, mut untried, mut count) = (Vec::new(), Vec::new(), 0);
    for bits in [64, 32, 16] {
        let ram = Ram::new(0x10000);
        for (_, instructions) in handlers(bits) {
            count += 1;
            let mut vcpu = vcpu(&ram, bits);
            vcpu.cpu.fpu.enter_run();
            let result = instructions.iter().find_map(|(bytes, insn)| {
                let bytes_of = tried(&ram, &mut vcpu, bytes, insn)?;
                Some((bytes_of, insn.code()))
            });
            vcpu.cpu.fpu.leave_run();
            match result {
                Some((0, _)) => {}
                Some((by, code)) => growing.push(format!("{bits}: {code:?} by {by}")),
                None => untried.push(format!("{bits}: {:?}", instructions[0].1.code())),
            }
        }
    }
    println!("{count} handlers, {} untried: {untried:#?}", untried.len());
    assert!(growing.is_empty(), "{growing:#?}");
    assert!(count > 1000, "only {count} handlers");
    // LTR takes no descriptor that is busy, and BOUND wants bounds.
    assert!(untried.len() < 8, "{untried:#?}");
}
