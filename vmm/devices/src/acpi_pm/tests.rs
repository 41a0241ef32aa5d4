use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use super::{AcpiPm, TimerWidth};
use crate::bus::PortIo;
use crate::clock::{Clock, ManualClock};
use crate::interrupt::{IrqLine, IrqSink, Wake};
use crate::platform::{PlatformEvent, PlatformSink};
use crate::timer::TimerSource;

#[derive(Default)]
struct World {
    sci: AtomicBool,
    events: Mutex<Vec<PlatformEvent>>,
}

impl IrqSink for World {
    fn set_irq(&self, _gsi: u32, level: bool) {
        self.sci.store(level, Ordering::SeqCst);
    }
}

impl Wake for World {
    fn wake(&self) {}
}

impl PlatformSink for World {
    fn notify(&self, event: PlatformEvent) {
        self.events.lock().unwrap().push(event);
    }
}

struct Bench {
    pm: AcpiPm,
    clock: Arc<ManualClock>,
    world: Arc<World>,
}

impl Bench {
    fn new(width: TimerWidth) -> Self {
        let clock = Arc::new(ManualClock::default());
        let world = Arc::new(World::default());
        let sci = IrqLine::new(world.clone(), 9);
        let pm = AcpiPm::new(width, clock.clone(), world.clone(), sci, world.clone());
        Self { pm, clock, world }
    }
    fn out16(&self, port: u16, value: u16) {
        self.pm.port_write(port, &value.to_le_bytes());
    }
    fn in32(&self, port: u16) -> u32 {
        let mut data = [0; 4];
        self.pm.port_read(port, &mut data);
        u32::from_le_bytes(data)
    }
    fn sci(&self) -> bool {
        self.world.sci.load(Ordering::SeqCst)
    }
}

#[test]
fn the_timer_counts_at_its_frequency_and_wraps() {
    let bench = Bench::new(TimerWidth::Bits24);
    bench.clock.advance_ns(1_000_000_000);
    assert_eq!(bench.in32(0x608), 3_579_545);
    bench.clock.advance_ns(4_000_000_000);
    assert_eq!(bench.in32(0x608), 5 * 3_579_545 - (1 << 24));
    let wide = Bench::new(TimerWidth::Bits32);
    wide.clock.advance_ns(5_000_000_000);
    assert_eq!(wide.in32(0x608), 5 * 3_579_545);
}

#[test]
fn the_timer_interrupts_when_its_highest_bit_changes() {
    let bench = Bench::new(TimerWidth::Bits24);
    bench.out16(0x602, 1);
    let due_ns = bench.pm.next_event_ns().unwrap();
    assert_eq!(due_ns, ((1u64 << 23) * 1_000_000_000).div_ceil(3_579_545));
    bench.clock.advance_ns(due_ns);
    bench.pm.fire(bench.clock.now_ns());
    assert!(bench.sci());
    assert_eq!(bench.pm.next_event_ns(), None);
    bench.out16(0x600, 1);
    assert!(!bench.sci());
    assert_eq!(bench.in32(0x600), 0x0001_0000);
}

#[test]
fn the_power_button_raises_the_sci_when_enabled() {
    let bench = Bench::new(TimerWidth::Bits32);
    bench.pm.press_power_button();
    assert!(!bench.sci());
    bench.out16(0x602, 0x0100);
    assert!(bench.sci());
    assert_eq!(bench.in32(0x600), 0x0100_0100);
    bench.out16(0x600, 0x0100);
    assert!(!bench.sci());
}

#[test]
fn sleeping_with_type_s5_powers_off() {
    let bench = Bench::new(TimerWidth::Bits32);
    bench.out16(0x604, 0x0001);
    bench.out16(0x604, 0x3401);
    assert!(bench.world.events.lock().unwrap().is_empty());
    assert_eq!(
        bench.in32(0x604) & 0xffff,
        0x1401,
        "sleep enable reads as zero"
    );
    bench.out16(0x604, 0x2001);
    assert_eq!(
        *bench.world.events.lock().unwrap(),
        [PlatformEvent::PowerOff]
    );
}

#[test]
fn general_purpose_events_are_enabled_one_by_one() {
    let bench = Bench::new(TimerWidth::Bits32);
    bench.pm.raise_gpe(9);
    assert_eq!(bench.in32(0x620), 0x200);
    bench.pm.port_write(0x629, &[0x02]);
    assert!(bench.sci());
    bench.pm.port_write(0x621, &[0x02]);
    assert!(!bench.sci());
    bench.pm.raise_gpe(200);
    assert_eq!(bench.in32(0x620), 0);
}

#[test]
fn the_registers_move_with_their_base() {
    let bench = Bench::new(TimerWidth::Bits32);
    bench.out16(0xb002, 0x0120);
    assert_eq!(bench.in32(0x600) >> 16, 0x0120);
}
