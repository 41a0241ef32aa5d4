//! Runs a sequence on [`Vcpu`].

#![expect(unsafe_code, reason = "guest RAM is lent to the CPU")]

use std::sync::Arc;

use super::{CODE, CODE_BYTES, SCRATCH, SCRATCH_BYTES, State};
use crate::bus::{Bus, Exit};
use crate::cpu::{Mode, Vcpu, cr};
use crate::memory::{Memory, RamRegion};

/// A CPU in 64-bit mode with paging off, and nothing but the two pieces of memory.
pub(super) struct Model {
    vcpu: Vcpu,
    memory: Arc<Memory>,
    code: *mut u8,
    scratch: *mut u8,
}

/// A board with nothing on it.
struct Nothing;

impl Bus for Nothing {
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

/// A page of memory, as the TLB wants it: at a multiple of its size.
#[repr(align(4096))]
#[derive(Clone)]
struct Page(#[expect(dead_code, reason = "read and written through pointers")] [u8; 0x1000]);

fn leaked(bytes: usize) -> *mut u8 {
    vec![Page([0; 0x1000]); bytes.div_ceil(0x1000)]
        .leak()
        .as_mut_ptr()
        .cast()
}

impl Model {
    pub(super) fn new() -> Self {
        let (code, scratch) = (leaked(CODE_BYTES), leaked(SCRATCH_BYTES));
        let region = |gpa, len, host| RamRegion {
            gpa,
            len_bytes: len as u64,
            host,
            read_only: false,
        };
        let regions = vec![
            region(SCRATCH, SCRATCH_BYTES, scratch),
            region(CODE, CODE_BYTES, code),
        ];
        // SAFETY: the memory is never freed, and reached through these pointers only.
        let memory = unsafe { Memory::new(regions, 1) };
        let mut vcpu = Vcpu::new(0, Arc::clone(&memory));
        let cpu = &mut *vcpu.cpu;
        cpu.cr0 = cr::CR0_PE | cr::CR0_ET | cr::CR0_NE | cr::CR0_MP;
        cpu.cr4 = cr::CR4_OSFXSR | cr::CR4_OSXMMEXCPT;
        cpu.msr.efer = cr::EFER_LMA | cr::EFER_LME;
        cpu.mode = Mode {
            bits: 64,
            wide_stack: true,
        };
        cpu.seg_base = [0; 8];
        cpu.idtr.limit = 0;
        cpu.fpu_changed();
        cpu.class_changed();
        Self {
            vcpu,
            memory,
            code,
            scratch,
        }
    }

    /// Runs `code` from `start`; says where it stopped when that was not at the end.
    pub(super) fn run(
        &mut self,
        code: &[u8],
        start: &State,
        floating_point: bool,
    ) -> Result<State, String> {
        copy(self.code, code);
        // UD2 stops the run: there are no handlers, so the CPU shuts down.
        copy(self.code.wrapping_add(code.len()), &[0x0f, 0x0b]);
        self.memory.written(CODE, code.len() + 2);
        copy(self.scratch, &start.scratch);
        let cpu = &mut *self.vcpu.cpu;
        cpu.regs[..16].copy_from_slice(&start.regs);
        cpu.set_flags(start.rflags);
        cpu.rip = CODE;
        cpu.shutdown = false;
        cpu.halted = false;
        cpu.fault = None;
        if floating_point {
            let mut image = vec![0; 576];
            image[..512].copy_from_slice(&start.fx);
            image[512] = 3;
            assert!(cpu.fpu.load_xsave(&image), "the image is well-formed");
        }
        let exit = self.vcpu.run(&mut Nothing);
        let cpu = &mut *self.vcpu.cpu;
        let end = CODE + code.len() as u64;
        if exit != Exit::Shutdown || cpu.rip != end {
            return Err(format!(
                "stopped with {exit:?} at {:x}, not {end:x}",
                cpu.rip
            ));
        }
        let mut fx = [0; 512];
        if floating_point {
            fx.copy_from_slice(&cpu.fpu.save_xsave()[..512]);
        }
        let mut regs = [0; 16];
        regs.copy_from_slice(&cpu.regs[..16]);
        let mut scratch = vec![0; SCRATCH_BYTES];
        // SAFETY: the CPU has stopped, and the memory is this value's own.
        unsafe {
            std::ptr::copy_nonoverlapping(self.scratch, scratch.as_mut_ptr(), SCRATCH_BYTES);
        }
        Ok(State {
            regs,
            rflags: cpu.flags(),
            fx,
            scratch,
        })
    }
}

fn copy(to: *mut u8, bytes: &[u8]) {
    // SAFETY: callers stay inside the memory that `Model::new` made.
    unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len()) };
}
