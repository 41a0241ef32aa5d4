//! The loop on tiny programs.

#![expect(unsafe_code, reason = "tests place programs in guest RAM")]

use crate::bus::{Bus, Exit};
use crate::cpu::{Mode, Vcpu};
use crate::memory::{Memory, RamRegion};

/// A board with nothing on it.
struct Empty;

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

#[test]
fn a_long_chain_of_traces_does_not_grow_the_stack() {
    let mut ram = vec![0u64; 0x10000 / 8];
    let host = ram.as_mut_ptr().cast::<u8>();
    let program = [
        0x48, 0xc7, 0xc1, 0x80, 0x96, 0x98, 0x05, // mov rcx, 93_886_080
        0x48, 0x83, 0xc0, 0x03, // add rax, 3
        0x48, 0x83, 0xc1, 0xff, // add rcx, -1
        0x75, 0xf6, // jne -10
        0x0f, 0x0b, // ud2
    ];
    for (n, byte) in program.into_iter().enumerate() {
        // SAFETY: inside `ram`.
        unsafe { host.add(0x1000 + n).write(byte) };
    }
    let region = RamRegion {
        gpa: 0,
        len_bytes: 0x10000,
        host,
        read_only: false,
    };
    // SAFETY: `ram` outlives the CPU.
    let memory = unsafe { Memory::new(vec![region], 1) };
    let mut vcpu = Vcpu::new(0, memory);
    vcpu.cpu.mode = Mode {
        bits: 64,
        wide_stack: true,
    };
    vcpu.cpu.rip = 0x1000;
    // No handler for anything: the first fault is the end.
    vcpu.cpu.idtr.limit = 0;
    vcpu.cpu.class_changed();
    let start = std::time::Instant::now();
    assert_eq!(vcpu.run(&mut Empty), Exit::Shutdown);
    println!(
        "{:.0} MIPS",
        3.0 * 93_886_080.0 / start.elapsed().as_secs_f64() / 1e6
    );
    assert_eq!(vcpu.cpu.regs[0], 3 * 93_886_080);
}
