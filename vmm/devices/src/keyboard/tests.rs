use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use super::{COMMAND, DATA, Keyboard};
use crate::bus::PortIo;
use crate::interrupt::{IrqLine, IrqSink};
use crate::platform::{PlatformEvent, PlatformSink, ResetSource};

#[derive(Default)]
struct World {
    irq: AtomicBool,
    events: Mutex<Vec<PlatformEvent>>,
}

impl IrqSink for World {
    fn set_irq(&self, _gsi: u32, level: bool) {
        self.irq.store(level, Ordering::SeqCst);
    }
}

impl PlatformSink for World {
    fn notify(&self, event: PlatformEvent) {
        self.events.lock().unwrap().push(event);
    }
}

fn keyboard() -> (Keyboard, Arc<World>) {
    let world = Arc::new(World::default());
    (
        Keyboard::new(IrqLine::new(world.clone(), 1), world.clone()),
        world,
    )
}

fn inb(keyboard: &Keyboard, port: u16) -> u8 {
    let mut data = [0];
    keyboard.port_read(port, &mut data);
    data[0]
}

/// Sends a command and returns every byte of the answer.
fn ask(keyboard: &Keyboard, writes: &[(u16, u8)]) -> Vec<u8> {
    for (port, value) in writes {
        keyboard.port_write(*port, &[*value]);
    }
    let mut answer = Vec::new();
    while inb(keyboard, COMMAND) & 1 != 0 {
        answer.push(inb(keyboard, DATA));
    }
    answer
}

type Case = (&'static [(u16, u8)], &'static [u8]);

#[test]
fn tests_and_probes_are_answered_at_once() {
    let (keyboard, _) = keyboard();
    let cases: [Case; 9] = [
        (&[(COMMAND, 0xaa)], &[0x55]),
        (&[(COMMAND, 0xab)], &[0x00]),
        (&[(COMMAND, 0xa9)], &[0x01]),
        (&[(COMMAND, 0xd3), (DATA, 0x5a)], &[0x5a]),
        (&[(DATA, 0xff)], &[0xfa, 0xaa]),
        (&[(DATA, 0xf2)], &[0xfa, 0xab, 0x83]),
        (&[(DATA, 0xed), (DATA, 0x07)], &[0xfa, 0xfa]),
        (&[(DATA, 0xf0), (DATA, 0x00)], &[0xfa, 0xfa, 0x02]),
        (&[(DATA, 0x12)], &[0xfe]),
    ];
    for (writes, answer) in cases {
        assert_eq!(ask(&keyboard, writes), answer, "{writes:x?}");
    }
}

#[test]
fn the_mode_byte_reads_back() {
    let (keyboard, world) = keyboard();
    assert_eq!(
        ask(&keyboard, &[(COMMAND, 0x60), (DATA, 0x74), (COMMAND, 0x20)]),
        [0x74]
    );
    keyboard.port_write(COMMAND, &[0xaa]);
    assert!(!world.irq.load(Ordering::SeqCst));
    keyboard.port_write(COMMAND, &[0x60]);
    keyboard.port_write(DATA, &[0x01]);
    assert!(world.irq.load(Ordering::SeqCst));
    assert_eq!(inb(&keyboard, DATA), 0x55);
    assert!(!world.irq.load(Ordering::SeqCst));
}

#[test]
fn pulsing_line_0_resets_the_machine() {
    let (keyboard, world) = keyboard();
    keyboard.port_write(COMMAND, &[0xff]);
    assert!(world.events.lock().unwrap().is_empty());
    keyboard.port_write(COMMAND, &[0xfe]);
    keyboard.port_write(COMMAND, &[0xd1]);
    keyboard.port_write(DATA, &[0x02]);
    let reset = PlatformEvent::Reset(ResetSource::Keyboard);
    assert_eq!(*world.events.lock().unwrap(), [reset, reset]);
}

#[test]
fn the_output_port_tells_a20() {
    let (keyboard, _) = keyboard();
    assert_eq!(ask(&keyboard, &[(COMMAND, 0xdd), (COMMAND, 0xd0)]), [0x01]);
    assert_eq!(
        ask(&keyboard, &[(COMMAND, 0xd1), (DATA, 0xdf), (COMMAND, 0xd0)]),
        [0x03]
    );
}

#[test]
fn a_flood_of_commands_does_not_grow_the_queue() {
    let (keyboard, _) = keyboard();
    for _ in 0..1000 {
        keyboard.port_write(DATA, &[0xf2]);
    }
    assert_eq!(ask(&keyboard, &[]).len(), 16);
}
