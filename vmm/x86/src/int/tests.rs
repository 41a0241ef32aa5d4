//! What forms do that the comparison with the host does not reach, and how fast typical loops run.

#![expect(unsafe_code, reason = "tests place programs in guest RAM")]

mod bench;
mod branches;
mod conditions;
mod model;
mod moves;
mod products;
mod rows;
mod scans;
mod stacks;
mod strings;

use std::sync::Arc;

use crate::bus::Exit;
use crate::cpu::{Mode, Vcpu, cr};
use crate::dispatch::tests::Empty;
use crate::flags::{AF, CF, OF, PF, SF, ZF};
use crate::memory::{Memory, RamRegion};

const RAM_BYTES: usize = 0x10000;
const CODE: u64 = 0x1000;

#[repr(align(4096))]
struct Ram([u8; RAM_BYTES]);

/// A CPU with a program; it shuts down at the first exception.
struct Machine {
    vcpu: Vcpu,
    /// Keeps the RAM alive.
    _memory: Arc<Memory>,
    end: u64,
}

impl Machine {
    fn new(bits: u8, program: &[u8]) -> Self {
        let host = Box::leak(Box::new(Ram([0; RAM_BYTES]))).0.as_mut_ptr();
        for (n, byte) in program.iter().chain(&[0x0f, 0x0b]).enumerate() {
            let place = host.wrapping_add(CODE as usize + n);
            // SAFETY: programs are shorter than the RAM.
            unsafe { place.write(*byte) };
        }
        let region = RamRegion {
            gpa: 0,
            len_bytes: RAM_BYTES as u64,
            host,
            read_only: false,
        };
        // SAFETY: the RAM is never freed.
        let memory = unsafe { Memory::new(vec![region], 1) };
        let mut vcpu = Vcpu::new(0, Arc::clone(&memory));
        let cpu = &mut *vcpu.cpu;
        cpu.cr0 |= cr::CR0_PE;
        if bits == 64 {
            cpu.msr.efer = cr::EFER_LMA | cr::EFER_LME;
        }
        for segment in &mut cpu.segs {
            segment.base = 0;
            segment.limit = u32::MAX;
        }
        cpu.seg_base = [0; 8];
        cpu.idtr.limit = 0;
        cpu.mode = Mode {
            bits,
            wide_stack: bits != 16,
        };
        cpu.rip = CODE;
        cpu.regs[4] = 0x8000;
        cpu.class_changed();
        Self {
            vcpu,
            _memory: memory,
            end: CODE + program.len() as u64,
        }
    }

    /// Runs to the first exception; whether that was at the end of the program.
    fn run(&mut self) -> bool {
        assert_eq!(self.vcpu.run(&mut Empty::default()), Exit::Shutdown);
        self.vcpu.cpu.rip == self.end
    }
}

/// Checks AX and status flags after a legacy instruction that the host does not have.
#[test]
fn decimal_adjustments_follow_the_manual() {
    // Instruction, AX and flags before, AX and flags after.
    let rows: [(&[u8], u16, u32, u16, u32); 14] = [
        (&[0x27], 0x000a, 0, 0x0010, AF),
        (&[0x27], 0x009a, 0, 0x0000, AF | CF | ZF | PF),
        (&[0x27], 0x0045, 0, 0x0045, 0),
        (&[0x27], 0x0045, CF, 0x00a5, CF | SF | PF),
        (&[0x2f], 0x0045, AF, 0x003f, AF | PF),
        (&[0x2f], 0x0005, AF, 0x00ff, AF | CF | SF | PF),
        (&[0x2f], 0x00a0, 0, 0x0040, CF),
        (&[0x37], 0x000b, 0, 0x0101, AF | CF),
        (&[0x37], 0x00fb, 0, 0x0201, AF | CF),
        (&[0x37], 0x0103, 0, 0x0103, PF),
        (&[0x3f], 0x020c, 0, 0x0106, AF | CF | PF),
        (&[0xd4, 0x0a], 0x0025, 0, 0x0307, 0),
        (&[0xd5, 0x0a], 0x0307, 0, 0x0025, 0),
        (&[0xd6], 0x1200, CF, 0x12ff, CF),
    ];
    for (program, ax, before, after, flags) in rows {
        let mut machine = Machine::new(32, program);
        machine.vcpu.cpu.regs[0] = u64::from(ax);
        machine.vcpu.cpu.status = before;
        assert!(machine.run(), "{program:02x?} stops at its end");
        let cpu = &machine.vcpu.cpu;
        let all = OF | CF | PF | AF | ZF | SF;
        assert_eq!(cpu.regs[0] as u16, after, "AX of {program:02x?} {ax:x}");
        assert_eq!(cpu.status & all, flags, "flags of {program:02x?} {ax:x}");
    }
}

#[test]
fn divisions_that_do_not_fit_fault_and_change_nothing() {
    // Instruction, RAX, RDX and RCX.
    let min = 1u64 << 63;
    let rows: [(&[u8], u64, u64, u64); 9] = [
        (&[0xf6, 0xf1], 7, 0, 0),
        (&[0xf6, 0xf1], 0x200, 0, 2),
        (&[0x66, 0xf7, 0xf1], 0, 2, 2),
        (&[0xf7, 0xf1], 0, 9, 9),
        (&[0x48, 0xf7, 0xf1], 5, 1, 1),
        (&[0xf6, 0xf9], 0xff80, 0, 0xff),
        (&[0xf7, 0xf9], 0x8000_0000, 0xffff_ffff, 0xffff_ffff),
        (&[0x48, 0xf7, 0xf9], min, u64::MAX, u64::MAX),
        (&[0x48, 0xf7, 0xf9], 0, min, 1),
    ];
    for (program, rax, rdx, rcx) in rows {
        let mut machine = Machine::new(64, program);
        machine.vcpu.cpu.regs[..3].copy_from_slice(&[rax, rcx, rdx]);
        assert!(!machine.run(), "{program:02x?} faults");
        assert_eq!(
            machine.vcpu.cpu.regs[..3],
            [rax, rcx, rdx],
            "{program:02x?}"
        );
        assert_eq!(machine.vcpu.cpu.rip, CODE, "{program:02x?}");
    }
}

#[test]
fn pusha_and_popa_are_inverse_but_for_the_stack_pointer() {
    let mut machine = Machine::new(32, &[0x60, 0x61]);
    let values = [1, 2, 3, 4, 0x8000, 6, 7, 8];
    machine.vcpu.cpu.regs[..8].copy_from_slice(&values);
    assert!(machine.run());
    assert_eq!(machine.vcpu.cpu.regs[..8], values);
}

#[test]
fn the_end_of_a_segment_stops_a_repeated_move_in_the_middle() {
    // The copy runs out of the limit of the segment after 16 bytes.
    let mut machine = Machine::new(32, &[0xf3, 0xa4]);
    let cpu = &mut *machine.vcpu.cpu;
    cpu.segs[0].limit = 0x300f;
    cpu.regs[1] = 0x40;
    cpu.regs[6] = 0x2000;
    cpu.regs[7] = 0x3000;
    assert!(!machine.run());
    let cpu = &machine.vcpu.cpu;
    assert_eq!(
        (cpu.regs[1], cpu.regs[6], cpu.regs[7]),
        (0x30, 0x2010, 0x3010)
    );
    assert_eq!(cpu.rip, CODE);
}

#[test]
fn long_chains_of_called_handlers_do_not_grow_the_stack() {
    // andn eax, ebx, ecx; rep stosb of nothing; bsf edx, eax; add esi, 1; jnz: 16 million times.
    let program = [
        0xc4, 0xe2, 0x60, 0xf2, 0xc1, 0x31, 0xc9, 0xf3, 0xaa, 0x0f, 0xbc, 0xd0, 0x83, 0xc6, 0x01,
        0x75, 0xef,
    ];
    let mut machine = Machine::new(64, &program);
    machine.vcpu.cpu.regs[6] = 0xffff_ffff - (1 << 21);
    assert!(machine.run());
}

#[test]
fn typical_loops_run() {
    // mov rax, [rbx]; add rax, rcx; mov [rbx+8], rax; cmp rax, rdx; cmovb r8, rax; sub ecx, 1; jnz
    let program = [
        0x48, 0x8b, 0x03, 0x48, 0x01, 0xc8, 0x48, 0x89, 0x43, 0x08, 0x48, 0x39, 0xd0, 0x4c, 0x0f,
        0x42, 0xc0, 0x83, 0xe9, 0x01, 0x75, 0xea,
    ];
    let mut machine = Machine::new(64, &program);
    let rounds = 5_000_000u64;
    machine.vcpu.cpu.regs[1] = rounds;
    machine.vcpu.cpu.regs[3] = 0x4000;
    let start = std::time::Instant::now();
    assert!(machine.run());
    let seconds = start.elapsed().as_secs_f64();
    println!("{:.0} MIPS", 7.0 * rounds as f64 / seconds / 1e6);
    assert_eq!(machine.vcpu.cpu.regs[1], 0);
}
