//! Runs arbitrary bytes as code, in every mode and over arbitrary memory: the entry of the fuzz target.
//!
//! The world is that of one of the tiny guests, of which the bytes choose one, and then change registers,
//! memory and the mode. RAM and ROM lie between pages that nobody may touch.

#![expect(unsafe_code, reason = "guest memory is mapped between guard pages")]

use std::ffi::c_void;
use std::num::NonZeroUsize;
use std::ptr::NonNull;
use std::sync::{Arc, OnceLock};

use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous, mprotect, munmap};

use crate::bus::{Bus, Exit};
use crate::cpu::{CS, SS, Vcpu, rflags};
use crate::memory::{Attention, Memory, RamRegion};
use crate::seg::attr;
use crate::state::{CpuState, Segment};
use crate::tiny_guests::{self, CODE, HANDLER_BYTES, HANDLERS, Start, TinyGuest, VECTORS};

/// Bytes at the start of the input that choose the world; the rest is code.
pub const HEADER_BYTES: usize = 64;
/// Slices of a case at most.
const TICKS_MAX: u32 = 2;
/// How often a guest that halts is woken.
const WAKES_MAX: u32 = 12;
const PAGE: usize = 0x1000;
/// RAM with a hole for devices and a ROM: where, how long, whether it is a ROM.
const LAYOUT: [(u64, usize, bool); 3] = [
    (0, 0xc_0000, false),
    (0xe_0000, 0x2_0000, true),
    (0x10_0000, 0x30_0000, false),
];

/// Guest memory, each piece between two guard pages; a ROM cannot be written.
struct World {
    mappings: Vec<(NonNull<c_void>, usize)>,
    memory: Arc<Memory>,
}

impl World {
    fn new() -> Self {
        let mut mappings = Vec::new();
        let mut regions = Vec::new();
        for (gpa, len, read_only) in LAYOUT {
            let (start, whole) = guarded(len);
            mappings.push((start, whole));
            let host = start.as_ptr().cast::<u8>().wrapping_add(PAGE);
            regions.push(RamRegion {
                gpa,
                len_bytes: len as u64,
                host,
                read_only,
            });
        }
        // SAFETY: the mappings live until `drop`, when no CPU is left, and nobody else knows them. Only the
        // ROM is mapped for reading only, and a CPU that writes there is what is being looked for.
        let memory = unsafe { Memory::new(regions, 1) };
        Self { mappings, memory }
    }

    /// Writes where there is RAM.
    fn write(&self, gpa: u64, bytes: &[u8]) {
        for (n, &byte) in bytes.iter().enumerate() {
            let at = gpa + n as u64;
            let ram = self.memory.region(at).is_some_and(|r| !r.read_only);
            if let Some(host) = self.memory.host(at).filter(|_| ram) {
                // SAFETY: the byte lies in RAM.
                unsafe { host.write_volatile(byte) };
            }
        }
        self.memory.written(gpa, bytes.len());
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for &(start, len) in &self.mappings {
            // SAFETY: the mapping is ours, and the CPU that used it is gone.
            unsafe { munmap(start, len) }.expect("our own mapping goes away");
        }
    }
}

/// Maps `len` bytes between two guard pages; gives the start of the first guard page, and the length.
fn guarded(len: usize) -> (NonNull<c_void>, usize) {
    let whole = NonZeroUsize::new(len + 2 * PAGE).expect("not empty");
    let flags = MapFlags::MAP_PRIVATE | MapFlags::MAP_NORESERVE;
    // SAFETY: a new mapping somewhere.
    let start = unsafe { mmap_anonymous(None, whole, ProtFlags::PROT_NONE, flags) }
        .expect("a few MiB of address space are there");
    let inner = NonNull::new(start.as_ptr().wrapping_byte_add(PAGE)).expect("not null");
    let rights = if len == LAYOUT[1].1 {
        ProtFlags::PROT_READ
    } else {
        ProtFlags::PROT_READ | ProtFlags::PROT_WRITE
    };
    // SAFETY: the range lies in the mapping made above.
    unsafe { mprotect(inner, len, rights) }.expect("our own mapping changes");
    (start, whole.get())
}

/// Numbers that the input decides: its bytes, then a sequence that they start.
struct Choices<'a> {
    bytes: &'a [u8],
    sequence: u64,
}

impl<'a> Choices<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        let sequence = bytes.iter().fold(0xcbf2_9ce4_8422_2325u64, |hash, &b| {
            (hash ^ u64::from(b)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        Self {
            bytes,
            sequence: sequence | 1,
        }
    }

    /// The next number of the sequence (xorshift64*).
    fn next(&mut self) -> u64 {
        self.sequence ^= self.sequence >> 12;
        self.sequence ^= self.sequence << 25;
        self.sequence ^= self.sequence >> 27;
        self.sequence.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn byte(&mut self) -> u8 {
        match self.bytes.split_first() {
            Some((&first, rest)) => {
                self.bytes = rest;
                first
            }
            None => (self.next() >> 32) as u8,
        }
    }

    fn below(&mut self, end: u64) -> u64 {
        (self.next() >> 16) % end
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    /// A value for a register or a word of memory: near something, or anything.
    fn value(&mut self) -> u64 {
        let near = self.below(32).wrapping_sub(16);
        match self.byte() % 12 {
            0 => self.below(256),
            1 => CODE + self.below(0x1000),
            2 => self.below(0x30_0000),
            3 => (self.below(0x400) << 12).wrapping_add(near),
            4 => near,
            5 => 0xffff_ffff_u64.wrapping_add(near),
            6 => 0xffff_u64.wrapping_add(near),
            7 => 0x0000_8000_0000_0000_u64.wrapping_add(near),
            8 => 0xffff_8000_0000_0000_u64.wrapping_add(near),
            9 => 0xb_8000 + self.below(0x5_0000),
            10 => 1 << self.below(64),
            _ => self.next(),
        }
    }
}

/// A board that answers anything, and ends the case after some slices.
struct Noise<'a> {
    choices: Choices<'a>,
    bell: Arc<Attention>,
    ticks: u32,
}

impl Noise<'_> {
    fn maybe_interrupt(&mut self) {
        if self.choices.one_in(4) {
            self.bell.interrupt();
        }
    }
}

impl Bus for Noise<'_> {
    fn port_in(&mut self, _port: u16, _size: u8) -> u32 {
        self.maybe_interrupt();
        self.choices.next() as u32
    }
    fn port_out(&mut self, _port: u16, _size: u8, _value: u32) {
        self.maybe_interrupt();
    }
    fn mmio_read(&mut self, _gpa: u64, data: &mut [u8]) {
        data.fill_with(|| (self.choices.next() >> 32) as u8);
    }
    fn mmio_write(&mut self, _gpa: u64, _data: &[u8]) {
        self.maybe_interrupt();
    }
    fn msr_read(&mut self, _index: u32) -> Option<u64> {
        let value = self.choices.next();
        (value & 1 != 0).then_some(value)
    }
    fn msr_write(&mut self, _index: u32, _value: u64) -> Option<()> {
        (!self.choices.one_in(2)).then_some(())
    }
    fn cr8(&mut self) -> u8 {
        (self.choices.next() >> 60) as u8
    }
    fn set_cr8(&mut self, _value: u8) {
        self.maybe_interrupt();
    }
    fn cpuid(&mut self, _leaf: u32, _subleaf: u32) -> [u32; 4] {
        [0; 4].map(|_: u32| self.choices.next() as u32)
    }
    fn interrupt_pending(&mut self) -> bool {
        self.choices.one_in(2)
    }
    fn acknowledge_interrupt(&mut self) -> Option<u8> {
        let vector = self.choices.next() as u8;
        (vector & 3 != 0).then_some(vector % (VECTORS as u8 + 2))
    }
    fn take_nmi(&mut self) -> bool {
        self.choices.one_in(8)
    }
    fn tick(&mut self) {
        self.ticks += 1;
        if self.ticks > TICKS_MAX {
            self.bell.kick();
        }
        self.maybe_interrupt();
    }
}

/// Runs `data` as a guest for a bounded time. It must not panic, hang, or touch memory that is not its own.
///
/// # Panics
/// When the CPU is at fault: that is what it is for.
pub fn run(data: &[u8]) {
    let (header, code) = data.split_at(data.len().min(HEADER_BYTES));
    let mut choices = Choices::new(header);
    let guest = choose(&mut choices);
    let world = World::new();
    for (gpa, bytes) in guest.memory() {
        world.write(gpa, &bytes);
    }
    let mut state = guest.state();
    change_mode(&mut state, &mut choices);
    let start = state.segments[CS].base.wrapping_add(state.rip);
    world.write(start & 0xf_ffff, code);
    if !choices.one_in(4) {
        come_back(&world, guest.start);
    }
    change_memory(&world, &mut choices);
    change_registers(&mut state, &mut choices);
    execute(&world, &state, choices);
}

/// One of the tiny guests.
fn choose(choices: &mut Choices<'_>) -> &'static TinyGuest {
    static GUESTS: OnceLock<Vec<TinyGuest>> = OnceLock::new();
    let guests = GUESTS.get_or_init(tiny_guests::all);
    let number = usize::from(choices.byte()) << 8 | usize::from(choices.byte());
    &guests[number % guests.len()]
}

/// Handlers that skip a byte of what faulted and go on.
fn come_back(world: &World, start: Start) {
    for vector in 0..VECTORS {
        let with_error = matches!(vector, 8 | 10..=14 | 17);
        let code: &[u8] = match (start, with_error) {
            // push bp; mov bp, sp; inc word [bp+2]; pop bp; iret
            (Start::Real, _) => &[0x55, 0x89, 0xe5, 0xff, 0x46, 0x02, 0x5d, 0xcf],
            // add rsp, 8; inc qword [rsp]; iretq
            (Start::Long | Start::User, true) => {
                &[0x48, 0x83, 0xc4, 0x08, 0x48, 0xff, 0x04, 0x24, 0x48, 0xcf]
            }
            (Start::Long | Start::User, false) => &[0x48, 0xff, 0x04, 0x24, 0x48, 0xcf],
            (_, true) => &[0x83, 0xc4, 0x04, 0xff, 0x04, 0x24, 0xcf],
            (_, false) => &[0xff, 0x04, 0x24, 0xcf],
        };
        world.write(HANDLERS + vector * HANDLER_BYTES, code);
    }
}

/// Leaves the mode alone, or makes it virtual-8086, compatibility or 16-bit protected mode.
fn change_mode(state: &mut CpuState, choices: &mut Choices<'_>) {
    let long = state.efer & 1 << 10 != 0;
    let code = &mut state.segments[CS].attributes;
    match choices.byte() % 6 {
        0 if long => *code = *code & !attr::L | attr::DB,
        1 if long => *code &= !attr::L,
        0 if state.cr0 & 1 != 0 => {
            state.rflags |= rflags::VM;
            for segment in &mut state.segments {
                *segment = Segment {
                    selector: 0,
                    base: 0,
                    limit: 0xffff,
                    attributes: attr::DATA_SEGMENT | attr::DPL,
                    unusable: false,
                };
            }
            state.rip &= 0xffff;
        }
        1 => {
            *code &= !attr::DB;
            state.segments[SS].attributes &= !attr::DB;
            state.rip &= 0xffff;
        }
        _ => {}
    }
}

/// Words of memory: tables, stacks, code, anything.
fn change_memory(world: &World, choices: &mut Choices<'_>) {
    for _ in 0..choices.byte() % 16 {
        let gpa = choices.below(0x2_4000);
        let value = choices.value();
        world.write(gpa, &value.to_le_bytes()[..1 + choices.below(8) as usize]);
    }
}

fn change_registers(state: &mut CpuState, choices: &mut Choices<'_>) {
    for n in 0..16 {
        if n != 4 || choices.one_in(4) {
            state.gpr[n] = choices.value();
        }
    }
    let flags = rflags::STATUS | rflags::DF | rflags::IF | rflags::IOPL | rflags::AC;
    state.rflags |= choices.next() & flags;
    if choices.one_in(8) {
        state.rflags |= rflags::TF;
    }
    if choices.one_in(2) {
        // OSFXSR, OSXMMEXCPT, FSGSBASE, OSXSAVE
        state.cr4 |= 0x5_0600;
        state.xcr0 = 3;
    }
    if choices.one_in(4) {
        state.cr4 ^= 1 << choices.below(22);
    }
    if choices.one_in(4) {
        state.cr0 ^= 1 << [1, 2, 3, 5, 16, 18, 30][choices.below(7) as usize];
    }
    if choices.one_in(8) {
        state.efer ^= 1 << [0, 8, 10, 11][choices.below(4) as usize];
    }
    if choices.one_in(8) {
        state.dr[choices.below(4) as usize] = choices.value();
        state.dr[5] = choices.next() & 0xffff_23ff | 0x400;
    }
    if choices.one_in(8) {
        change_segment(state, choices);
    }
    if choices.one_in(16) {
        state.cr3 = choices.value();
    }
}

fn change_segment(state: &mut CpuState, choices: &mut Choices<'_>) {
    let number = choices.below(6) as usize;
    let segment = &mut state.segments[number];
    segment.base = choices.value();
    segment.limit = choices.value() as u32;
    if choices.one_in(2) {
        segment.attributes ^= 1 << choices.below(16);
    }
}

fn execute(world: &World, state: &CpuState, choices: Choices<'_>) {
    let mut vcpu = Vcpu::new(0, Arc::clone(&world.memory));
    if vcpu.set_state(state).is_err() {
        return;
    }
    let bell = world.memory.attention(0);
    let mut board = Noise {
        choices,
        bell,
        ticks: 0,
    };
    for _ in 0..WAKES_MAX {
        match vcpu.run(&mut board) {
            Exit::Halt => board.bell.interrupt(),
            Exit::Kicked => board.ticks = TICKS_MAX,
            Exit::Shutdown => break,
        }
        if board.ticks >= TICKS_MAX {
            break;
        }
    }
    let state = vcpu.state();
    if let Err(why) = vcpu.set_state(&state) {
        panic!("a CPU cannot take back its own state: {why}");
    }
}

#[cfg(test)]
mod tests;
