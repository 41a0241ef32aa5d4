//! The loop on tiny programs.

#![expect(unsafe_code, reason = "tests place programs in guest RAM")]

use std::sync::Arc;

use crate::bus::{Bus, Exit};
use crate::cpu::{Mode, Vcpu};
use crate::memory::{Memory, RamRegion};

/// A board with nothing on it.
pub(crate) struct Empty;

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
        false
    }
    fn acknowledge_interrupt(&mut self) -> Option<u8> {
        None
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
    assert_eq!(vcpu.run(&mut Empty), Exit::Shutdown);
    assert_eq!(vcpu.cpu.regs[0], 3 * 93_886_080);
}
