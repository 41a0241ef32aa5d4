//! Runs a sequence on the host.

#![expect(unsafe_code, reason = "runs generated code in this process")]

use std::arch::asm;
use std::num::NonZeroUsize;

use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous, mprotect, munmap};

use super::{CODE, CODE_BYTES, SCRATCH, SCRATCH_BYTES, State};

/// Where the registers go in and out: code cannot name a register that is free.
const GATE: u64 = 0x2200_0000;

/// What lies at [`GATE`].
#[repr(C, align(16))]
struct Gate {
    regs: [u64; 16],
    rflags: u64,
    /// Where the sequence starts.
    code: u64,
    /// Where the sequence jumps at its end.
    exit: u64,
    host_stack: u64,
    fx: [u8; 512],
}

/// The mappings at the fixed addresses.
pub(super) struct Native(());

fn map(address: u64, bytes: usize) {
    let address = NonZeroUsize::new(address as usize);
    let bytes = NonZeroUsize::new(bytes).expect("mappings are not empty");
    let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
    let flags = MapFlags::MAP_PRIVATE | MapFlags::MAP_FIXED_NOREPLACE;
    // SAFETY: an existing mapping is not replaced.
    let mapped = unsafe { mmap_anonymous(address, bytes, protection, flags) };
    let at = mapped.expect("the fixed addresses are free").as_ptr() as usize;
    assert_eq!(Some(at), address.map(NonZeroUsize::get));
}

fn pointer(address: u64) -> std::ptr::NonNull<std::ffi::c_void> {
    std::ptr::NonNull::new(address as *mut std::ffi::c_void).expect("addresses are not null")
}

/// The bytes that end every sequence: JMP to the address in the gate's `exit`.
fn ending() -> [u8; 7] {
    let slot = (GATE as u32 + std::mem::offset_of!(Gate, exit) as u32).to_le_bytes();
    [0xff, 0x24, 0x25, slot[0], slot[1], slot[2], slot[3]]
}

impl Native {
    pub(super) fn new() -> Self {
        map(SCRATCH, SCRATCH_BYTES);
        map(CODE, CODE_BYTES);
        map(GATE, size_of::<Gate>().next_multiple_of(0x1000));
        Self(())
    }

    /// Runs `code` from `start`.
    pub(super) fn run(&mut self, code: &[u8], start: &State) -> State {
        assert!(code.len() + 7 <= CODE_BYTES, "sequences fit their page");
        let write = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: the mapping is this value's own.
        unsafe { mprotect(pointer(CODE), CODE_BYTES, write) }.expect("own mapping");
        place(CODE, code);
        place(CODE + code.len() as u64, &ending());
        let run = ProtFlags::PROT_READ | ProtFlags::PROT_EXEC;
        // SAFETY: as above.
        unsafe { mprotect(pointer(CODE), CODE_BYTES, run) }.expect("own mapping");
        place(SCRATCH, &start.scratch);
        let gate = GATE as *mut Gate;
        // SAFETY: the gate is mapped and only this value uses it.
        let gate = unsafe { &mut *gate };
        gate.regs = start.regs;
        gate.rflags = start.rflags;
        gate.code = CODE;
        gate.fx = start.fx;
        // SAFETY: the sequence is made so that it neither faults nor leaves its memory.
        unsafe { pass() };
        let mut scratch = vec![0; SCRATCH_BYTES];
        // SAFETY: the scratch pages are mapped.
        unsafe {
            std::ptr::copy_nonoverlapping(
                SCRATCH as *const u8,
                scratch.as_mut_ptr(),
                SCRATCH_BYTES,
            );
        }
        State {
            regs: gate.regs,
            rflags: gate.rflags,
            fx: gate.fx,
            scratch,
        }
    }
}

impl Drop for Native {
    fn drop(&mut self) {
        let gate = size_of::<Gate>().next_multiple_of(0x1000);
        for (address, bytes) in [(SCRATCH, SCRATCH_BYTES), (CODE, CODE_BYTES), (GATE, gate)] {
            // SAFETY: the mapping is this value's own.
            unsafe { munmap(pointer(address), bytes) }.expect("own mapping");
        }
    }
}

fn place(address: u64, bytes: &[u8]) {
    // SAFETY: callers name mapped ranges.
    unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), address as *mut u8, bytes.len()) };
}

/// Loads all registers from the gate, runs the sequence, and stores them there again.
///
/// # Safety
/// The gate is filled in; the sequence is safe to run and ends in a jump to its exit.
#[inline(never)]
unsafe fn pass() {
    let mut control = 0x1f80u32;
    // SAFETY: everything that the sequence may change is saved, or declared as changed.
    unsafe {
        asm!(
            "push rbx", "push rbp", "push {control}",
            "mov [{gate} + 152], rsp",
            "lea rax, [rip + 2f]", "mov [{gate} + 144], rax",
            "fxrstor64 [{gate} + 160]",
            "push qword ptr [{gate} + 128]", "popfq",
            "mov rax, [{gate}]", "mov rcx, [{gate} + 8]", "mov rdx, [{gate} + 16]",
            "mov rbx, [{gate} + 24]", "mov rsp, [{gate} + 32]", "mov rbp, [{gate} + 40]",
            "mov rsi, [{gate} + 48]", "mov rdi, [{gate} + 56]", "mov r8, [{gate} + 64]",
            "mov r9, [{gate} + 72]", "mov r10, [{gate} + 80]", "mov r11, [{gate} + 88]",
            "mov r12, [{gate} + 96]", "mov r13, [{gate} + 104]", "mov r14, [{gate} + 112]",
            "mov r15, [{gate} + 120]",
            "jmp qword ptr [{gate} + 136]",
            "2:",
            "mov [{gate}], rax", "mov [{gate} + 8], rcx", "mov [{gate} + 16], rdx",
            "mov [{gate} + 24], rbx", "mov [{gate} + 32], rsp", "mov [{gate} + 40], rbp",
            "mov [{gate} + 48], rsi", "mov [{gate} + 56], rdi", "mov [{gate} + 64], r8",
            "mov [{gate} + 72], r9", "mov [{gate} + 80], r10", "mov [{gate} + 88], r11",
            "mov [{gate} + 96], r12", "mov [{gate} + 104], r13", "mov [{gate} + 112], r14",
            "mov [{gate} + 120], r15",
            "mov rsp, [{gate} + 152]",
            "pushfq", "pop qword ptr [{gate} + 128]", "cld",
            "fxsave64 [{gate} + 160]", "fninit",
            "pop rax", "pop rbp", "pop rbx", "ldmxcsr [rax]",
            gate = const GATE, control = in(reg) &raw mut control,
            out("rax") _, out("rcx") _, out("rdx") _, out("rsi") _, out("rdi") _,
            out("r8") _, out("r9") _, out("r10") _, out("r11") _, out("r12") _, out("r13") _,
            out("r14") _, out("r15") _, clobber_abi("C"),
        );
    }
}

const _: () = assert!(std::mem::offset_of!(Gate, rflags) == 128);
const _: () = assert!(std::mem::offset_of!(Gate, code) == 136);
const _: () = assert!(std::mem::offset_of!(Gate, exit) == 144);
const _: () = assert!(std::mem::offset_of!(Gate, host_stack) == 152);
const _: () = assert!(std::mem::offset_of!(Gate, fx) == 160);
