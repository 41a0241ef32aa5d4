//! The loop on tiny programs.

#![expect(unsafe_code, reason = "tests place programs in guest RAM")]

use std::sync::Arc;

use crate::bus::{Bus, Exit};
use crate::cpu::{Mode, Vcpu};
use crate::memory::{Memory, RamRegion};

/// A board with nothing on it, but an interrupt perhaps, which stays until it is taken.
#[derive(Default)]
pub(crate) struct Empty {
    vector: Option<u8>,
}

impl Bus for Empty {
    fn port_in(&mut self, _port: u16, _size: u8) -> u32 {
        u32::MAX
    }
    fn port_out(&mut self, _port: u16, _size: u8, _value: u32) {}
    fn mmio_read(&mut self, _gpa: u64, data: &mut [u8]) {
        data.fill(0xff);
    }
    fn mmio_write(&mut self, _gpa: u64, _data: &[u8]) {}
    fn msr_read(&mut self, _index: u32) -> Option<u64> {
        None
    }
    fn msr_write(&mut self, _index: u32, _value: u64) -> Option<()> {
        None
    }
    fn cr8(&mut self) -> u8 {
        0
    }
    fn set_cr8(&mut self, _value: u8) {}
    fn cpuid(&mut self, _leaf: u32, _subleaf: u32) -> [u32; 4] {
        [0; 4]
    }
    fn interrupt_pending(&mut self) -> bool {
        self.vector.is_some()
    }
    fn acknowledge_interrupt(&mut self) -> Option<u8> {
        self.vector.take()
    }
    fn take_nmi(&mut self) -> bool {
        false
    }
    fn tick(&mut self) {}
}

/// Guest RAM of a test.
pub(crate) struct Ram {
    words: Vec<u64>,
    memory: Arc<Memory>,
}

impl Ram {
    /// RAM of one CPU from address 0, all zero.
    pub(crate) fn new(len_bytes: usize) -> Self {
        Self::shared(len_bytes, 1)
    }

    /// The same for several CPUs.
    pub(crate) fn shared(len_bytes: usize, cpus: usize) -> Self {
        let mut words = vec![0u64; len_bytes / 8];
        let host = words.as_mut_ptr().cast();
        let len_bytes = len_bytes as u64;
        let region = RamRegion {
            gpa: 0,
            len_bytes,
            host,
            read_only: false,
        };
        // SAFETY: `words` is kept as long as `memory` and only touched through it.
        let memory = unsafe { Memory::new(vec![region], cpus) };
        Self { memory, words }
    }

    /// A CPU with no handler for anything: the first fault is the end.
    pub(crate) fn vcpu(&self) -> Vcpu {
        self.vcpu_at(0)
    }

    pub(crate) fn memory(&self) -> &Arc<Memory> {
        &self.memory
    }

    /// The same for CPU `id`.
    pub(crate) fn vcpu_at(&self, id: usize) -> Vcpu {
        let mut vcpu = Vcpu::new(id, Arc::clone(&self.memory));
        vcpu.cpu.idtr.limit = 0;
        vcpu
    }

    pub(crate) fn write(&self, gpa: u64, bytes: &[u8]) {
        assert!(gpa as usize + bytes.len() <= self.words.len() * 8);
        let host = self.memory.host(gpa).unwrap();
        // SAFETY: inside the RAM.
        unsafe { host.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
        self.memory.written(gpa, bytes.len());
    }

    pub(crate) fn read<const N: usize>(&self, gpa: u64) -> [u8; N] {
        assert!(gpa as usize + N <= self.words.len() * 8);
        // SAFETY: inside the RAM.
        unsafe {
            self.memory
                .host(gpa)
                .unwrap()
                .cast::<[u8; N]>()
                .read_unaligned()
        }
    }
}

#[test]
fn a_long_chain_of_traces_does_not_grow_the_stack() {
    let ram = Ram::new(0x10000);
    let program = [
        0x48, 0xc7, 0xc1, 0x80, 0x96, 0x98, 0x05, // mov rcx, 93_886_080
        0x48, 0x83, 0xc0, 0x03, // add rax, 3
        0x48, 0x83, 0xc1, 0xff, // add rcx, -1
        0x75, 0xf6, // jne -10
        0x0f, 0x0b, // ud2
    ];
    ram.write(0x1000, &program);
    let mut vcpu = ram.vcpu();
    vcpu.cpu.mode = Mode {
        bits: 64,
        wide_stack: true,
    };
    vcpu.cpu.rip = 0x1000;
    vcpu.cpu.class_changed();
    assert_eq!(vcpu.run(&mut Empty::default()), Exit::Shutdown);
    assert_eq!(vcpu.cpu.regs[0], 3 * 93_886_080);
}

/// A 32-bit CPU at 0x1000, where `program` is, without any handler: the first event ends it.
fn at_program(ram: &Ram, program: &[u8]) -> Vcpu {
    ram.write(0x1000, program);
    let mut vcpu = ram.vcpu();
    let cpu = &mut *vcpu.cpu;
    cpu.mode = Mode {
        bits: 32,
        wide_stack: true,
    };
    cpu.segs[1].base = 0;
    cpu.seg_base[1] = 0;
    cpu.rip = 0x1000;
    cpu.class_changed();
    vcpu
}

/// Runs the program to its first event; gives EAX there.
fn eax_at_event(vcpu: &mut Vcpu, board: &mut dyn Bus) -> u64 {
    vcpu.cpu.shutdown = false;
    vcpu.cpu.rip = 0x1000;
    vcpu.cpu.regs[0] = 0;
    assert_eq!(vcpu.run(board), Exit::Shutdown);
    vcpu.cpu.regs[0]
}

#[test]
fn an_interrupt_that_waits_comes_one_instruction_after_sti() {
    let ram = Ram::new(0x10000);
    // sti; inc eax; inc eax; cli; inc eax; ud2
    let program = [0xfb, 0x40, 0x40, 0xfa, 0x40, 0x0f, 0x0b];
    let mut vcpu = at_program(&ram, &program);
    assert_eq!(eax_at_event(&mut vcpu, &mut Empty::default()), 3);
    vcpu.cpu.set_flags(2);
    vcpu.cpu.bell.interrupt();
    let mut interrupt = Empty { vector: Some(0x20) };
    assert_eq!(eax_at_event(&mut vcpu, &mut interrupt), 1);
}

#[test]
fn an_interrupt_that_waits_comes_one_instruction_after_a_load_of_ss() {
    let ram = Ram::new(0x10000);
    // mov ss, ecx; inc eax; inc eax; inc eax; ud2
    let program = [0x8e, 0xd1, 0x40, 0x40, 0x40, 0x0f, 0x0b];
    let mut vcpu = at_program(&ram, &program);
    vcpu.cpu.shadow = true;
    vcpu.cpu.set_flags(0x202);
    vcpu.cpu.bell.interrupt();
    let mut interrupt = Empty { vector: Some(0x20) };
    assert_eq!(eax_at_event(&mut vcpu, &mut interrupt), 1);
}

#[test]
fn a_single_step_stops_before_code_that_is_known() {
    let ram = Ram::new(0x10000);
    // jmp 0x1002; inc eax; ud2
    let mut vcpu = at_program(&ram, &[0xeb, 0x00, 0x40, 0x0f, 0x0b]);
    assert_eq!(eax_at_event(&mut vcpu, &mut Empty::default()), 1);
    vcpu.cpu.set_flags(0x102);
    assert_eq!(eax_at_event(&mut vcpu, &mut Empty::default()), 0);
}

#[test]
fn a_breakpoint_is_seen_in_code_that_is_known() {
    let ram = Ram::new(0x10000);
    // inc eax; inc eax; ud2
    let mut vcpu = at_program(&ram, &[0x40, 0x40, 0x0f, 0x0b]);
    assert_eq!(eax_at_event(&mut vcpu, &mut Empty::default()), 2);
    vcpu.cpu.rip = 0x1001;
    assert_eq!(vcpu.run(&mut Empty::default()), Exit::Shutdown);
    vcpu.cpu.dr[0] = 0x1001;
    vcpu.cpu.set_dr7(0x401);
    assert_eq!(eax_at_event(&mut vcpu, &mut Empty::default()), 1);
}
