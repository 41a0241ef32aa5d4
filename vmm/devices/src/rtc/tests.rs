use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::{BootDevice, CmosConfig, Rtc};
use crate::bus::PortIo;
use crate::clock::{Clock, ManualClock};
use crate::interrupt::{IrqLine, IrqSink, Wake};
use crate::lifecycle::Device;
use crate::timer::{BoardTimer, TimerSource};

const SECOND_NS: u64 = 1_000_000_000;
/// Thursday, 29 February 2024, 23:59:58.
const LEAP_NIGHT_NS: u64 = 1_709_251_198 * SECOND_NS;

#[derive(Default)]
struct World(AtomicBool);

impl IrqSink for World {
    fn set_irq(&self, _gsi: u32, level: bool) {
        self.0.store(level, Ordering::SeqCst);
    }
}

impl Wake for World {
    fn wake(&self) {}
}

struct Bench {
    rtc: Arc<Rtc>,
    clock: Arc<ManualClock>,
    world: Arc<World>,
}

impl Bench {
    /// One clock serves as the machine's and the world's.
    fn new() -> Self {
        let clock = Arc::new(ManualClock::new(LEAP_NIGHT_NS));
        let world = Arc::new(World::default());
        let cmos = CmosConfig {
            low_memory_bytes: 3 << 30,
            high_memory_bytes: 5 << 30,
            cpus: 4,
            boot_order: vec![BootDevice::Cdrom, BootDevice::Disk],
        };
        let irq = IrqLine::new(world.clone(), 8);
        let rtc = Arc::new(Rtc::new(
            &cmos,
            clock.clone(),
            clock.clone(),
            world.clone(),
            irq,
        ));
        Self { rtc, clock, world }
    }
    fn get(&self, index: u8) -> u8 {
        self.rtc.port_write(0x70, &[index]);
        let mut data = [0];
        self.rtc.port_read(0x71, &mut data);
        data[0]
    }
    fn set(&self, index: u8, value: u8) {
        self.rtc.port_write(0x70, &[index]);
        self.rtc.port_write(0x71, &[value]);
    }
    fn date(&self) -> [u8; 8] {
        [0x32, 0x09, 0x08, 0x07, 0x06, 0x04, 0x02, 0x00].map(|index| self.get(index))
    }
    /// Moves on, fires what is due, and returns the interrupt line.
    fn advance(&self, by_ns: u64) -> bool {
        self.clock.advance_ns(by_ns);
        self.rtc.fire(self.clock.now_ns());
        self.world.0.load(Ordering::SeqCst)
    }
}

#[test]
fn the_time_reads_as_utc_in_binary_coded_decimal() {
    let bench = Bench::new();
    assert_eq!(
        bench.date(),
        [0x20, 0x24, 0x02, 0x29, 0x05, 0x23, 0x59, 0x58]
    );
    bench.advance(2 * SECOND_NS);
    assert_eq!(
        bench.date(),
        [0x20, 0x24, 0x03, 0x01, 0x06, 0x00, 0x00, 0x00]
    );
}

#[test]
fn binary_and_twelve_hour_modes_change_the_coding() {
    let bench = Bench::new();
    bench.set(0x0b, 0x04);
    assert_eq!(bench.date(), [20, 24, 2, 29, 5, 0x80 | 11, 59, 58]);
    bench.advance(2 * SECOND_NS);
    assert_eq!(bench.get(0x04), 12);
}

#[test]
fn a_time_written_under_set_goes_on_from_there() {
    let bench = Bench::new();
    bench.set(0x0b, 0x82);
    for (index, value) in [
        (0x32, 0x19),
        (9, 0x99),
        (8, 0x12),
        (7, 0x31),
        (4, 0x23),
        (2, 0x59),
        (0, 0x59),
    ] {
        bench.set(index, value);
    }
    bench.advance(5 * SECOND_NS);
    assert_eq!(bench.get(0), 0x59);
    bench.set(0x0b, 0x02);
    bench.advance(SECOND_NS);
    assert_eq!(
        bench.date(),
        [0x20, 0x00, 0x01, 0x01, 0x07, 0x00, 0x00, 0x00]
    );
}

#[test]
fn the_update_is_announced() {
    let bench = Bench::new();
    assert_eq!(bench.get(0x0a), 0x26);
    bench.clock.advance_ns(SECOND_NS - 2_000_000);
    assert_eq!(bench.get(0x0a), 0xa6);
    bench.clock.advance_ns(2_000_000);
    assert_eq!(bench.get(0x0a), 0x26);
}

#[test]
fn the_update_ended_interrupt_stays_until_register_c_is_read() {
    let bench = Bench::new();
    assert_eq!(bench.rtc.next_event_ns(), None);
    bench.set(0x0b, 0x12);
    assert_eq!(bench.rtc.next_event_ns(), Some(LEAP_NIGHT_NS + SECOND_NS));
    assert!(!bench.advance(SECOND_NS - 1));
    assert!(bench.advance(1));
    assert_eq!(bench.rtc.next_event_ns(), None);
    assert_eq!(bench.get(0x0c) & 0xb0, 0x90);
    assert_eq!(bench.get(0x0c), 0x00);
    assert!(!bench.world.0.load(Ordering::SeqCst));
}

#[test]
fn the_periodic_interrupt_keeps_its_rate() {
    let bench = Bench::new();
    bench.set(0x0a, 0x26);
    bench.set(0x0b, 0x42);
    let mut interrupts = 0;
    for _ in 0..4096 {
        if bench.advance(SECOND_NS / 4096) {
            interrupts += 1;
            assert_eq!(bench.get(0x0c) & 0xc0, 0xc0);
        }
    }
    assert!(
        (1023..=1025).contains(&interrupts),
        "{interrupts} at 1024 Hz"
    );
}

#[test]
fn the_alarm_matches_time_and_wildcards() {
    let bench = Bench::new();
    for (index, value) in [(0x05, 0x00), (0x03, 0x00), (0x01, 0x01), (0x0b, 0x22)] {
        bench.set(index, value);
    }
    assert!(!bench.advance(2 * SECOND_NS));
    assert!(bench.advance(SECOND_NS));
    assert_eq!(bench.get(0x0c) & 0xa0, 0xa0);
    bench.set(0x05, 0xff);
    bench.set(0x03, 0xff);
    assert!(bench.advance(60 * SECOND_NS));
}

#[test]
fn memory_sizes_and_boot_order_are_where_firmware_looks() {
    let bench = Bench::new();
    let word = |at: u8| u16::from_le_bytes([bench.get(at), bench.get(at + 1)]);
    assert_eq!((word(0x15), word(0x17), word(0x30)), (640, 0xffff, 0xffff));
    assert_eq!(u32::from(word(0x34)) * 65536 + (16 << 20), 3 << 30);
    let high_blocks = u64::from(word(0x5b)) | u64::from(bench.get(0x5d)) << 16;
    assert_eq!(high_blocks * 65536, 5 << 30);
    assert_eq!(
        (bench.get(0x3d), bench.get(0x38), bench.get(0x5f)),
        (0x23, 0x01, 3)
    );
}

#[test]
fn reset_keeps_time_and_memory_and_drops_interrupts() {
    let bench = Bench::new();
    bench.set(0x0f, 0x0a);
    bench.set(0x0b, 0x12);
    bench.advance(SECOND_NS);
    bench.rtc.reset();
    assert!(!bench.world.0.load(Ordering::SeqCst));
    assert_eq!(
        (bench.get(0x0f), bench.get(0x0b), bench.get(0x00)),
        (0x0a, 0x02, 0x59)
    );
}

#[test]
fn the_board_timer_fires_it() {
    let bench = Bench::new();
    let timer = BoardTimer::new(bench.clock.clone());
    timer.add(bench.rtc.clone()).unwrap();
    bench.set(0x0b, 0x12);
    timer.run_due();
    assert!(!bench.world.0.load(Ordering::SeqCst));
    bench.clock.advance_ns(SECOND_NS + 5);
    timer.run_due();
    assert!(bench.world.0.load(Ordering::SeqCst));
}
