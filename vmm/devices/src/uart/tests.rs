use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use super::{ConsoleOut, Uart, WAITING_BYTES};
use crate::bus::PortIo;
use crate::interrupt::{IrqLine, IrqSink, Wake};

#[derive(Default)]
struct Line(AtomicBool);

impl IrqSink for Line {
    fn set_irq(&self, _gsi: u32, level: bool) {
        self.0.store(level, Ordering::SeqCst);
    }
}

#[derive(Clone, Default)]
struct Sent(Arc<Mutex<Vec<u8>>>);

impl ConsoleOut for Sent {
    fn write(&mut self, bytes: &[u8]) {
        self.0.lock().unwrap().extend(bytes);
    }
}

struct Bench {
    uart: Uart,
    line: Arc<Line>,
    sent: Sent,
}

impl Bench {
    fn new() -> Self {
        let line = Arc::new(Line::default());
        let sent = Sent::default();
        let irq = IrqLine::new(line.clone(), 4);
        Self {
            uart: Uart::new("serial0", 0x3f8, irq, Box::new(sent.clone())),
            line,
            sent,
        }
    }
    fn out(&self, register: u16, value: u8) {
        self.uart.port_write(0x3f8 + register, &[value]);
    }
    fn inb(&self, register: u16) -> u8 {
        let mut data = [0];
        self.uart.port_read(0x3f8 + register, &mut data);
        data[0]
    }
    fn irq(&self) -> bool {
        self.line.0.load(Ordering::SeqCst)
    }
}

#[test]
fn sent_bytes_reach_the_console() {
    let bench = Bench::new();
    b"ok\n".iter().for_each(|byte| bench.out(0, *byte));
    assert_eq!(*bench.sent.0.lock().unwrap(), b"ok\n");
    assert_eq!(bench.inb(5), 0x60);
}

#[test]
fn the_divisor_latch_hides_behind_dlab() {
    let bench = Bench::new();
    bench.out(3, 0x83);
    bench.out(0, 0x01);
    bench.out(1, 0x02);
    assert_eq!((bench.inb(0), bench.inb(1)), (0x01, 0x02));
    bench.out(3, 0x03);
    assert_eq!((bench.inb(0), bench.inb(1)), (0, 0));
    assert!(bench.sent.0.lock().unwrap().is_empty());
}

#[test]
fn an_empty_transmitter_interrupts_until_the_iir_is_read() {
    let bench = Bench::new();
    bench.out(1, 0x02);
    assert!(bench.irq());
    assert_eq!(bench.inb(2), 0x02);
    assert!(!bench.irq());
    assert_eq!(bench.inb(2), 0x01);
    bench.out(0, b'x');
    assert!(bench.irq());
    bench.out(1, 0x00);
    assert!(!bench.irq());
}

#[test]
fn received_data_outranks_the_empty_transmitter() {
    let bench = Bench::new();
    bench.out(2, 0x81);
    bench.out(1, 0x03);
    bench.uart.push_input(b"a");
    assert_eq!(bench.inb(2), 0xcc);
    bench.uart.push_input(b"1234567");
    assert_eq!(bench.inb(2), 0xc4);
    assert_eq!(bench.inb(5) & 1, 1);
    for byte in b"a1234567" {
        assert_eq!(bench.inb(0), *byte);
    }
    assert_eq!(bench.inb(5) & 1, 0);
    assert_eq!(bench.inb(2), 0xc2);
}

#[test]
fn the_iir_tells_a_16550a() {
    let bench = Bench::new();
    assert_eq!(bench.inb(2), 0x01);
    bench.out(2, 0x01);
    assert_eq!(bench.inb(2), 0xc1);
    bench.out(7, 0x5a);
    assert_eq!(bench.inb(7), 0x5a);
    bench.out(1, 0xff);
    assert_eq!(bench.inb(1), 0x0f);
}

#[test]
fn loopback_returns_data_and_modem_lines() {
    let bench = Bench::new();
    bench.out(4, 0x1a);
    assert_eq!(bench.inb(6) & 0xf0, 0x90);
    bench.out(0, b'z');
    assert_eq!(bench.inb(0), b'z');
    assert!(bench.sent.0.lock().unwrap().is_empty());
    bench.out(4, 0x0b);
    assert_eq!(bench.inb(6), 0xb2, "data set ready has changed");
    assert_eq!(bench.inb(6), 0xb0);
}

#[test]
fn a_full_loop_reports_an_overrun_once() {
    let bench = Bench::new();
    bench.out(4, 0x10);
    bench.out(0, 1);
    bench.out(0, 2);
    assert_eq!(bench.inb(5), 0x63);
    assert_eq!(bench.inb(5), 0x61);
}

struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn too_much_input_is_refused_until_the_guest_reads() {
    let bench = Bench::new();
    let room = Arc::new(Count(AtomicUsize::new(0)));
    bench.uart.connect_room(room.clone());
    bench.out(2, 0x01);
    let input = vec![b'i'; 3000];
    let accepted = bench.uart.push_input(&input);
    assert_eq!(accepted, WAITING_BYTES);
    assert_eq!(bench.uart.push_input(&input), 16);
    assert_eq!(bench.uart.push_input(&input), 0);
    assert_eq!(room.0.load(Ordering::SeqCst), 0);
    for _ in 0..600 {
        bench.inb(0);
    }
    assert_eq!(room.0.load(Ordering::SeqCst), 1);
    assert!(bench.uart.push_input(&input) > 500);
}

#[test]
fn clearing_the_receiver_drops_the_fifo_but_not_what_waits() {
    let bench = Bench::new();
    bench.out(2, 0x01);
    bench.uart.push_input(&(0..20).collect::<Vec<u8>>());
    bench.out(2, 0x03);
    assert_eq!(bench.inb(0), 16);
}
