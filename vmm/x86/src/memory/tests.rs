//! Several CPUs, each on a thread, over one memory.

#![expect(unsafe_code, reason = "guest programs are assembled as functions")]

use std::arch::naked_asm;
use std::thread;

use crate::bus::Exit;
use crate::cpu::{Mode, RAX, RBX, RCX, RDI, RDX, RSI, RSP, Vcpu};
use crate::dispatch::tests::{Empty, Ram};
use crate::memory::Letter;

/// Bytes of a program at most.
const PROGRAM_BYTES: usize = 192;
const RAM_BYTES: usize = 1 << 20;
const DATA: u64 = 0x4_0000;
/// A page that holds code and data.
const MIXED: u64 = 0x5_0000;

type Program = unsafe extern "C" fn();

fn bytes(program: Program) -> [u8; PROGRAM_BYTES] {
    // SAFETY: the code of this crate goes on for long after any one function.
    unsafe { (program as *const [u8; PROGRAM_BYTES]).read() }
}

fn code_at(id: usize) -> u64 {
    0x1_0000 + 0x1000 * id as u64
}

/// A CPU in 64-bit mode at the start of its own copy of `program`, with RDI at [`DATA`], RSI at [`MIXED`]
/// and `rounds` in RDX.
fn cpu(ram: &Ram, id: usize, program: Program, rounds: u64) -> Vcpu {
    ram.write(code_at(id), &bytes(program));
    let mut vcpu = ram.vcpu_at(id);
    let cpu = &mut vcpu.cpu;
    cpu.mode = Mode {
        bits: 64,
        wide_stack: true,
    };
    cpu.rip = code_at(id);
    cpu.regs[RSP] = 0x2_1000 + 0x1000 * id as u64;
    (cpu.regs[RDI], cpu.regs[RSI], cpu.regs[RDX]) = (DATA, MIXED, rounds);
    cpu.class_changed();
    vcpu
}

/// Runs all CPUs until they halt.
fn run(cpus: Vec<Vcpu>) -> Vec<Vcpu> {
    let threads: Vec<_> = cpus
        .into_iter()
        .map(|mut cpu| {
            thread::spawn(move || {
                assert_eq!(cpu.run(&mut Empty::default()), Exit::Halt);
                cpu
            })
        })
        .collect();
    threads.into_iter().map(|t| t.join().unwrap()).collect()
}

fn word(ram: &Ram, gpa: u64) -> u64 {
    u64::from_le_bytes(ram.read(gpa))
}

/// Counts at RDI in four ways, RDX times.
#[unsafe(naked)]
unsafe extern "C" fn count() {
    naked_asm!(
        "2: lock inc qword ptr [rdi]",
        "mov eax, 1",
        "lock xadd [rdi + 8], rax",
        "mov rax, [rdi + 16]",
        "3: lea rcx, [rax + 1]",
        "lock cmpxchg [rdi + 16], rcx",
        "jne 3b",
        "mov r8, rdx",
        "mov rax, [rdi + 32]",
        "mov rdx, [rdi + 40]",
        "4: lea rbx, [rax + 1]",
        "lea rcx, [rdx + 3]",
        "lock cmpxchg16b [rdi + 32]",
        "jne 4b",
        "mov rdx, r8",
        // Across cache lines, too, but seldom: that stops all other processors.
        "test dl, dl",
        "jne 5f",
        "lock add dword ptr [rdi + 126], 1",
        "5:",
        "dec rdx",
        "jne 2b",
        "hlt",
    )
}

#[test]
fn locked_instructions_lose_no_update() {
    const ROUNDS: u64 = 50_000;
    let ram = Ram::shared(RAM_BYTES, 3);
    run((0..3).map(|id| cpu(&ram, id, count, ROUNDS)).collect());
    for at in [0, 8, 16, 32] {
        assert_eq!(word(&ram, DATA + at), 3 * ROUNDS, "counter at {at}");
    }
    assert_eq!(word(&ram, DATA + 40), 9 * ROUNDS);
    let across = u32::from_le_bytes(ram.read(DATA + 126));
    assert_eq!(across, 3 * (ROUNDS / 256) as u32);
}

/// Takes a lock at RDI, adds to two plain counters, gives it back; RDX times.
#[unsafe(naked)]
unsafe extern "C" fn take_turns() {
    naked_asm!(
        "2: mov eax, 1",
        "xchg eax, [rdi]",
        "test eax, eax",
        "je 4f",
        "3: pause",
        "cmp dword ptr [rdi], 0",
        "jne 3b",
        "jmp 2b",
        "4: add qword ptr [rdi + 64], 1",
        "mov rax, [rdi + 128]",
        "add rax, 2",
        "mov [rdi + 128], rax",
        "mov dword ptr [rdi], 0",
        "dec rdx",
        "jne 2b",
        "hlt",
    )
}

#[test]
fn a_lock_keeps_others_out() {
    const ROUNDS: u64 = 20_000;
    let ram = Ram::shared(RAM_BYTES, 3);
    run((0..3).map(|id| cpu(&ram, id, take_turns, ROUNDS)).collect());
    assert_eq!(word(&ram, DATA + 64), 3 * ROUNDS);
    assert_eq!(word(&ram, DATA + 128), 6 * ROUNDS);
}

/// Counts RDX down: puts the number into the instruction at RSI, says so at RDI, and waits for the answer
/// 64 bytes on.
#[unsafe(naked)]
unsafe extern "C" fn patch() {
    naked_asm!(
        "2: mov [rsi + 1], edx",
        "mov [rdi], edx",
        "3: pause",
        "cmp [rdi + 64], edx",
        "jne 3b",
        "dec edx",
        "jne 2b",
        "hlt",
    )
}

/// Waits for the numbers and calls RSI after a serialising instruction; counts wrong answers in R8.
#[unsafe(naked)]
unsafe extern "C" fn execute() {
    naked_asm!(
        "2: pause",
        "cmp [rdi], edx",
        "jne 2b",
        "mov r9, rdx",
        "xor eax, eax",
        "cpuid",
        "mov rdx, r9",
        "call rsi",
        "xor ecx, ecx",
        "cmp eax, edx",
        "setne cl",
        "add r8, rcx",
        "mov [rdi + 64], edx",
        "dec edx",
        "jne 2b",
        "hlt",
    )
}

/// `mov eax, …; ret`
const PATCHED: [u8; 6] = [0xb8, 0, 0, 0, 0, 0xc3];

/// CPU 0 patches what CPU 1 runs at `at`.
fn cross_modify(at: u64) {
    const ROUNDS: u64 = 2_000;
    let ram = Ram::shared(RAM_BYTES, 2);
    ram.write(at, &PATCHED);
    let mut cpus = vec![cpu(&ram, 0, patch, ROUNDS), cpu(&ram, 1, execute, ROUNDS)];
    cpus.iter_mut().for_each(|c| c.cpu.regs[RSI] = at);
    assert_eq!(run(cpus)[1].cpu.regs[8], 0, "stale calls");
}

#[test]
fn an_instruction_that_another_cpu_patched_is_seen() {
    cross_modify(MIXED);
}

#[test]
fn a_patch_beside_the_code_of_the_writer_is_seen() {
    cross_modify(code_at(0) + 0x800);
}

#[test]
fn a_patch_beside_the_code_of_the_reader_is_seen() {
    cross_modify(code_at(1) + 0x800);
}

#[test]
fn a_patch_beside_the_data_of_both_is_seen() {
    cross_modify(DATA + 0x400);
}

#[test]
fn a_patch_of_an_instruction_on_two_pages_is_seen() {
    cross_modify(MIXED + 0xffe);
}

/// RDX times: writes a number into an instruction of its own at RSI + RBX and calls it, with stores to
/// data of the page in between; counts wrong answers in R8 and wrong data in R9.
#[unsafe(naked)]
unsafe extern "C" fn live_in_page() {
    naked_asm!(
        "add rsi, rbx",
        "2: mov [rsi + 1], edx",
        "mov [rsi + 16], rdx",
        "lock inc qword ptr [rdi]",
        "call rsi",
        "xor ecx, ecx",
        "cmp eax, edx",
        "setne cl",
        "add r8, rcx",
        "xor ecx, ecx",
        "cmp [rsi + 16], rdx",
        "setne cl",
        "add r9, rcx",
        "inc qword ptr [rsi + 24]",
        "dec rdx",
        "jne 2b",
        "hlt",
    )
}

/// Three CPUs of `cpus` run and write one page, `distance` bytes apart.
fn share_a_page(ids: [usize; 3], cpus: usize, distance: u64) {
    const ROUNDS: u64 = 3_000;
    let ram = Ram::shared(RAM_BYTES, cpus);
    let part = |n: usize| MIXED + distance * n as u64;
    let start = |(n, id)| {
        ram.write(part(n), &PATCHED);
        let mut vcpu = cpu(&ram, id, live_in_page, ROUNDS);
        vcpu.cpu.regs[RBX] = part(n) - MIXED;
        vcpu.cpu.regs[RDI] = MIXED + 0x800;
        vcpu
    };
    let done = run(ids.into_iter().enumerate().map(start).collect());
    for (n, vcpu) in done.iter().enumerate() {
        assert_eq!(vcpu.cpu.regs[8], 0, "stale calls of CPU {}", ids[n]);
        assert_eq!(vcpu.cpu.regs[9], 0, "lost stores of CPU {}", ids[n]);
        let count = word(&ram, part(n) + 24);
        assert_eq!(count, ROUNDS, "increments of CPU {}", ids[n]);
    }
    assert_eq!(word(&ram, MIXED + 0x800), 3 * ROUNDS);
}

#[test]
fn cpus_share_a_page_as_code_and_as_data() {
    // The chunks of the code map are 128 bytes: once apart, once the same for all.
    share_a_page([0, 1, 2], 3, 0x100);
    share_a_page([0, 1, 2], 3, 0x20);
}

#[test]
fn the_cpus_of_a_large_machine_share_a_page() {
    share_a_page([0, 32, 63], 64, 0x100);
    share_a_page([0, 32, 63], 64, 0x20);
}

#[test]
fn code_that_a_device_wrote_is_seen() {
    const ROUNDS: u64 = 2_000;
    let ram = Ram::shared(RAM_BYTES, 1);
    ram.write(MIXED, &PATCHED);
    let reader = cpu(&ram, 0, execute, ROUNDS);
    let thread = thread::spawn(move || run(vec![reader]));
    for number in (1..=ROUNDS as u32).rev() {
        ram.write(MIXED + 1, &number.to_le_bytes());
        ram.write(DATA, &number.to_le_bytes());
        while u32::from_le_bytes(ram.read(DATA + 64)) != number {
            thread::yield_now();
        }
    }
    assert_eq!(thread.join().unwrap()[0].cpu.regs[8], 0, "stale calls");
}

/// Fills the page at RSI with the number in RDX, then makes code of it and calls it; RDX times.
#[unsafe(naked)]
unsafe extern "C" fn fill_and_call() {
    naked_asm!(
        "2: mov r10, rdi",
        "mov rdi, rsi",
        "mov rax, rdx",
        "mov ecx, 512",
        "rep stosq",
        "mov rdi, r10",
        "mov byte ptr [rsi], 0xb8",
        "mov [rsi + 1], edx",
        "mov byte ptr [rsi + 5], 0xc3",
        "call rsi",
        "xor ecx, ecx",
        "cmp eax, edx",
        "setne cl",
        "add r8, rcx",
        "dec rdx",
        "jne 2b",
        "mov dword ptr [rdi], 1",
        "hlt",
    )
}

/// Writes into the page at RSI until there is something at RDI.
#[unsafe(naked)]
unsafe extern "C" fn disturb() {
    naked_asm!(
        "2: inc rax",
        "mov [rsi + 8], rax",
        "mov [rsi + 256], rax",
        "mov [rsi + 4088], rax",
        "cmp dword ptr [rdi], 0",
        "je 2b",
        "hlt",
    )
}

#[test]
fn a_page_turns_into_code_and_back_while_another_cpu_writes_it() {
    const ROUNDS: u64 = 3_000;
    let ram = Ram::shared(RAM_BYTES, 2);
    let cpus = run(vec![
        cpu(&ram, 0, fill_and_call, ROUNDS),
        cpu(&ram, 1, disturb, 0),
    ]);
    assert_eq!(cpus[0].cpu.regs[8], 0, "stale calls");
    let (rax, rcx) = (cpus[1].cpu.regs[RAX], cpus[1].cpu.regs[RCX]);
    assert!(rax > 0 && rcx == 0, "{rax} {rcx}");
}

#[test]
fn a_kick_or_mail_reaches_a_cpu_that_is_not_running() {
    let ram = Ram::shared(RAM_BYTES, 2);
    let mut halted = cpu(&ram, 0, count, 1);
    ram.memory().attention(0).kick();
    ram.memory().attention(0).post(Letter::Forget(MIXED >> 12));
    assert_eq!(halted.run(&mut Empty::default()), Exit::Kicked);
    assert!(!ram.memory().attention(0).has_mail());
    assert_eq!(halted.run(&mut Empty::default()), Exit::Halt);
    // Nobody waits for a CPU that is outside, though it has touched the page.
    let waits = cpu(&ram, 1, count, 1);
    ram.memory().attention(0).post(Letter::Forget(DATA >> 12));
    run(vec![waits]);
}
