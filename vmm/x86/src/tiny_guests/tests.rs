//! The tiny guests on the software CPU.

#![expect(unsafe_code, reason = "tests place programs in guest RAM")]

use std::sync::Arc;

use super::{End, RAM_BYTES, TinyGuest, all, port};
use crate::cpuid::{CpuModel, Dynamic, Topology, by_name};
use crate::memory::{Attention, Memory, RamRegion};
use crate::{Bus, Exit, Vcpu};

/// Slices after which a guest is taken for lost.
const TICKS_MAX: u32 = 100;

/// A board that records, and raises what guests ask for.
struct Recorder {
    bell: Arc<Attention>,
    model: CpuModel,
    seen: Vec<(u16, u32)>,
    done: bool,
    nmi: bool,
    interrupt: Option<u8>,
    ticks: u32,
}

impl Bus for Recorder {
    fn port_in(&mut self, _port: u16, _size: u8) -> u32 {
        u32::MAX
    }
    fn port_out(&mut self, port: u16, _size: u8, value: u32) {
        match port {
            port::END => {
                self.done = true;
                self.bell.kick();
            }
            port::NMI => {
                self.nmi = true;
                self.bell.interrupt();
            }
            port::INTERRUPT => {
                self.interrupt = Some(value as u8);
                self.bell.interrupt();
            }
            _ => self.seen.push((port, value)),
        }
    }
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
    fn cpuid(&mut self, leaf: u32, subleaf: u32) -> [u32; 4] {
        let topology = Topology {
            sockets: 1,
            cores: 1,
            threads: 1,
        };
        let dynamic = Dynamic {
            apic_id: 0,
            osxsave: false,
            xcr0: 1,
            tsc_khz: 2_000_000,
        };
        self.model.leaf(leaf, subleaf, &topology, &dynamic)
    }
    fn interrupt_pending(&mut self) -> bool {
        self.interrupt.is_some()
    }
    fn acknowledge_interrupt(&mut self) -> Option<u8> {
        self.interrupt.take()
    }
    fn take_nmi(&mut self) -> bool {
        std::mem::take(&mut self.nmi)
    }
    fn tick(&mut self) {
        self.ticks += 1;
        if self.ticks > TICKS_MAX {
            self.bell.kick();
        }
    }
}

/// What the guest reported, and how it ended.
fn run(guest: &TinyGuest) -> (Vec<(u16, u32)>, Result<End, String>) {
    let mut ram = vec![0u64; RAM_BYTES as usize / 8];
    let host = ram.as_mut_ptr().cast::<u8>();
    for (gpa, bytes) in guest.memory() {
        assert!(gpa + bytes.len() as u64 <= RAM_BYTES);
        // SAFETY: inside `ram`.
        let to = unsafe { host.add(gpa as usize) };
        // SAFETY: as above.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len()) };
    }
    let region = RamRegion {
        gpa: 0,
        len_bytes: RAM_BYTES,
        host,
        read_only: false,
    };
    // SAFETY: `ram` outlives the CPU.
    let memory = unsafe { Memory::new(vec![region], 1) };
    let mut board = Recorder {
        bell: memory.attention(0),
        model: by_name("ferrovirt-v2").unwrap(),
        seen: Vec::new(),
        done: false,
        nmi: false,
        interrupt: None,
        ticks: 0,
    };
    let mut vcpu = Vcpu::new(0, memory);
    vcpu.set_state(&guest.state()).unwrap();
    let exit = vcpu.run(&mut board);
    let end = match exit {
        Exit::Shutdown => Ok(End::Shutdown),
        Exit::Kicked if board.done => Ok(End::Done),
        other => Err(format!("{other:?} at {:#x}", vcpu.state().rip)),
    };
    (board.seen, end)
}

#[test]
fn every_tiny_guest_reports_what_it_must() {
    let mut wrong = Vec::new();
    for guest in all() {
        let (seen, end) = run(&guest);
        if seen != guest.expect || end != Ok(guest.end) {
            wrong.push(format!(
                "{} ({:?}): {seen:x?} {end:?}, not {:x?} {:?}",
                guest.name, guest.start, guest.expect, guest.end
            ));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

#[test]
fn names_are_sentences_of_their_own() {
    let mut names: Vec<_> = all().iter().map(|g| g.name).collect();
    names.sort_unstable();
    let count = names.len();
    names.dedup();
    assert_eq!(names.len(), count);
}
