//! A bench that runs one instruction form after another, in any mode, and reports what stopped it.

#![expect(unsafe_code, reason = "forms are entered through handler pointers")]

use crate::cpu::{Cpu, Mode, SS, TRACE_RIP, Vcpu, cr, rflags};
use crate::dispatch::tests::{Empty, Ram};
use crate::fault::{Fault, vector};
use crate::seg::attr;
use crate::state::Segment;

const RAM_BYTES: usize = 0x40_0000;
/// Rounds of a repeated instruction after which it is taken for a jump to itself.
const ROUNDS_MAX: u32 = 1000;
/// Where forms are placed, one after the other; below is data.
const FORMS: u64 = 0x2_0000;
/// RIP at which every form starts, where CS has a base; in 64-bit mode RIP counts from there all the same.
pub(super) const ENTRY: u64 = 0x100;
/// RSP at the start.
pub(super) const TOP: u64 = 0x8000;

/// An instruction in RAM.
#[derive(Clone, Copy)]
pub(super) struct Form {
    bits: u8,
    at: u64,
    len_bytes: u64,
}

impl Form {
    pub(super) fn same(self, other: Self) -> bool {
        self.at == other.at
    }
}

/// Why a form stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// It went on at the next instruction.
    Next,
    /// It went on elsewhere: RIP, as if the form started at [`ENTRY`].
    At(u64),
    /// An exception at the form itself.
    Fault(Fault),
}

pub(super) struct Bench {
    pub(super) ram: Ram,
    vcpu: Vcpu,
    free: u64,
}

impl Bench {
    pub(super) fn new() -> Self {
        let ram = Ram::new(RAM_BYTES);
        let mut vcpu = ram.vcpu();
        // A board without data: nothing is leaked.
        vcpu.cpu.bus = Some(Box::leak(Box::new(Empty::default())));
        Self {
            ram,
            vcpu,
            free: FORMS,
        }
    }

    pub(super) fn cpu(&mut self) -> &mut Cpu {
        &mut self.vcpu.cpu
    }

    /// Places a form for code of `bits` bits.
    pub(super) fn form(&mut self, bits: u8, code: &[u8]) -> Form {
        let at = self.free;
        self.ram.write(at, code);
        self.ram.write(at + code.len() as u64, &[0x0f, 0x0b]);
        self.free = (at + code.len() as u64 + 31) & !15;
        Form {
            bits,
            at,
            len_bytes: code.len() as u64,
        }
    }

    /// The CPU in front of a form: registers and flags zero, segments with base 0 and the largest limit of
    /// the mode, stack at [`TOP`].
    pub(super) fn start(&mut self, form: Form) -> &mut Cpu {
        let cpu = &mut *self.vcpu.cpu;
        cpu.read_mail();
        cpu.regs = [0; 18];
        cpu.regs[4] = TOP;
        cpu.status = 0;
        cpu.rflags = rflags::FIXED;
        cpu.cr0 |= cr::CR0_PE;
        cpu.msr.efer = if form.bits == 64 {
            cr::EFER_LMA | cr::EFER_LME
        } else {
            0
        };
        let (limit, size) = match form.bits {
            16 => (0xffff, 0),
            32 => (u32::MAX, attr::DB),
            _ => (u32::MAX, attr::L),
        };
        let data = attr::DATA_SEGMENT | size & attr::DB;
        cpu.segs = [Segment {
            limit,
            ..Segment::flat(0x10, data)
        }; 6];
        let base = if form.bits == 64 { 0 } else { form.at - ENTRY };
        cpu.set_code_unchanged(Segment {
            limit,
            base,
            ..Segment::flat(8, attr::CODE_SEGMENT | size)
        });
        cpu.rip = form.at - base;
        cpu
    }

    /// Sets whether a legacy stack has 32 bits.
    pub(super) fn widen_stack(&mut self, wide: bool) {
        let cpu = &mut *self.vcpu.cpu;
        let ss = &mut cpu.segs[SS].attributes;
        *ss = *ss & !attr::DB | if wide { attr::DB } else { 0 };
        let bits = cpu.mode.bits;
        cpu.mode_changed();
        let wide_stack = wide || bits == 64;
        assert_eq!(cpu.mode, Mode { bits, wide_stack });
    }

    /// Runs a form that [`Bench::start`] has prepared until it is over.
    pub(super) fn run(&mut self, form: Form) -> Stop {
        let cpu = &mut *self.vcpu.cpu;
        let start = cpu.rip;
        // Traces are not chained to others: every jump comes back here.
        cpu.budget = -1;
        let mut rounds = 0;
        let fault = loop {
            match cpu.trace_at_rip() {
                Ok(first) => {
                    cpu.regs[TRACE_RIP] = cpu.rip;
                    enter(cpu, first);
                }
                Err(fault) => cpu.fault = Some(fault),
            }
            let fault = cpu.fault.take();
            rounds += 1;
            if fault.is_some() || cpu.rip != start || rounds == ROUNDS_MAX {
                break fault;
            }
        };
        let end = start + form.len_bytes;
        match fault {
            Some(Fault {
                vector: vector::UD, ..
            }) if cpu.rip == end => Stop::Next,
            Some(fault) => {
                assert_eq!(cpu.rip, start, "{fault:?} is not at the form");
                Stop::Fault(fault)
            }
            None if cpu.rip == end => Stop::Next,
            None => Stop::At(cpu.rip.wrapping_sub(start).wrapping_add(ENTRY)),
        }
    }

    /// Status flags as they stand in RFLAGS.
    pub(super) fn status(&self) -> u64 {
        self.vcpu.cpu.flags() & rflags::STATUS
    }
}

fn enter(cpu: &mut Cpu, first: *const crate::op::Op) {
    // SAFETY: the record is alive: records are only freed when code is decoded.
    let run = unsafe { (*first).run };
    // SAFETY: `cpu` is the CPU of the record.
    unsafe { run(cpu, first) };
}
