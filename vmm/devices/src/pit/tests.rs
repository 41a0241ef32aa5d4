use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::Pit;
use super::counter::ns_of_ticks;
use crate::bus::PortIo;
use crate::clock::{Clock, ManualClock};
use crate::interrupt::{IrqLine, IrqSink, Wake};
use crate::timer::TimerSource;

#[derive(Default)]
struct Edges(AtomicUsize);

impl IrqSink for Edges {
    fn set_irq(&self, _gsi: u32, level: bool) {
        self.0.fetch_add(usize::from(level), Ordering::SeqCst);
    }
}

struct Nobody;

impl Wake for Nobody {
    fn wake(&self) {}
}

struct Bench {
    pit: Pit,
    clock: Arc<ManualClock>,
    edges: Arc<Edges>,
}

impl Bench {
    fn new() -> Self {
        let clock = Arc::new(ManualClock::new(1_000_000));
        let edges = Arc::new(Edges::default());
        let pit = Pit::new(
            clock.clone(),
            Arc::new(Nobody),
            IrqLine::new(edges.clone(), 0),
        );
        Self { pit, clock, edges }
    }
    fn out(&self, port: u16, value: u8) {
        self.pit.port_write(port, &[value]);
    }
    fn inb(&self, port: u16) -> u8 {
        let mut data = [0];
        self.pit.port_read(port, &mut data);
        data[0]
    }
    fn word(&self, port: u16) -> u16 {
        u16::from_le_bytes([self.inb(port), self.inb(port)])
    }
    fn tick(&self, ticks: u64) {
        self.clock.advance_ns(ns_of_ticks(ticks));
    }
    /// Fires what is due; returns the rising edges so far.
    fn edges(&self) -> usize {
        if self
            .pit
            .next_event_ns()
            .is_some_and(|due_ns| due_ns <= self.clock.now_ns())
        {
            self.pit.fire(self.clock.now_ns());
        }
        self.edges.0.load(Ordering::SeqCst)
    }
    /// Programs a counter with low byte then high byte.
    fn program(&self, counter: u8, mode: u8, count: u16) {
        self.out(0x43, counter << 6 | 0x30 | mode << 1);
        let [low, high] = count.to_le_bytes();
        self.out(0x40 + u16::from(counter), low);
        self.out(0x40 + u16::from(counter), high);
    }
}

#[test]
fn mode_0_interrupts_once_on_terminal_count() {
    let bench = Bench::new();
    bench.program(0, 0, 1000);
    assert_eq!(bench.edges(), 0);
    bench.tick(999);
    assert_eq!(bench.edges(), 0);
    bench.tick(1);
    assert_eq!(bench.edges(), 1);
    bench.tick(100_000);
    assert_eq!(bench.edges(), 1);
    assert_eq!(bench.pit.next_event_ns(), None);
}

#[test]
fn mode_2_interrupts_every_period_and_merges_what_was_missed() {
    let bench = Bench::new();
    bench.program(0, 2, 1193);
    for period in 1..5 {
        bench.tick(1193);
        assert_eq!(bench.edges(), period);
    }
    bench.tick(11930);
    assert_eq!(bench.edges(), 5);
    bench.tick(1193);
    assert_eq!(bench.edges(), 6);
}

#[test]
fn the_latched_count_stays_until_both_bytes_are_read() {
    let bench = Bench::new();
    bench.program(0, 2, 0);
    bench.tick(0x1234);
    bench.out(0x43, 0x00);
    bench.tick(100);
    bench.out(0x43, 0x00);
    assert_eq!(bench.word(0x40), 0xedcc);
    assert_eq!(bench.word(0x40), 0xedcc - 100);
}

#[test]
fn mode_3_counts_in_twos_and_is_high_half_the_time() {
    let bench = Bench::new();
    bench.out(0x61, 1);
    bench.program(2, 3, 1000);
    bench.tick(100);
    assert_eq!(bench.word(0x42), 800);
    assert_eq!(bench.inb(0x61) & 0x20, 0x20);
    bench.tick(450);
    assert_eq!(bench.inb(0x61) & 0x20, 0);
}

#[test]
fn counter_2_runs_while_its_gate_is_open() {
    let bench = Bench::new();
    bench.program(2, 0, 1000);
    bench.tick(5000);
    assert_eq!(bench.inb(0x61) & 0x21, 0);
    bench.out(0x61, 1);
    bench.tick(400);
    bench.out(0x61, 0);
    bench.tick(5000);
    assert_eq!(bench.word(0x42), 600);
    bench.out(0x61, 1);
    bench.tick(600);
    assert_eq!(bench.inb(0x61) & 0x21, 0x21);
}

#[test]
fn read_back_latches_status_before_count() {
    let bench = Bench::new();
    bench.program(0, 2, 500);
    bench.out(0x43, 0xc2);
    assert_eq!(bench.inb(0x40), 0xb4);
    assert_eq!(bench.word(0x40), 500);
    bench.out(0x43, 0x34);
    bench.out(0x43, 0xe2);
    assert_eq!(
        bench.inb(0x40) & 0x40,
        0x40,
        "null count until a count is loaded"
    );
}

#[test]
fn binary_coded_decimal_counts_in_digits() {
    let bench = Bench::new();
    bench.out(0x61, 1);
    bench.out(0x43, 0xb5);
    bench.out(0x42, 0x00);
    bench.out(0x42, 0x10);
    bench.tick(1);
    assert_eq!(bench.word(0x42), 0x0999);
}

#[test]
fn one_byte_access_modes_load_the_other_byte_as_zero() {
    let bench = Bench::new();
    bench.out(0x43, 0x24);
    bench.out(0x40, 0x10);
    assert_eq!(bench.inb(0x40), 0x10);
    bench.tick(0x1000 - 1);
    assert_eq!(bench.edges(), 0);
    bench.tick(1);
    assert_eq!(bench.edges(), 1);
}

#[test]
fn mode_4_strobes_once() {
    let bench = Bench::new();
    bench.program(0, 4, 2000);
    bench.tick(2000);
    assert_eq!(bench.edges(), 1);
    bench.tick(70_000);
    assert_eq!(bench.edges(), 1);
}

#[test]
fn a_guest_cannot_ask_for_more_than_ten_thousand_interrupts_a_second() {
    let bench = Bench::new();
    bench.program(0, 2, 2);
    for _ in 0..1000 {
        bench.tick(12);
        bench.edges();
    }
    assert!(bench.edges() <= 101);
}

#[test]
fn the_refresh_bit_toggles() {
    let bench = Bench::new();
    let first = bench.inb(0x61) & 0x10;
    bench.tick(18);
    assert_ne!(bench.inb(0x61) & 0x10, first);
}
