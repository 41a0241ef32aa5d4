use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::Pic;
use crate::bus::PortIo;
use crate::interrupt::Wake;

fn out(pic: &Pic, port: u16, value: u8) {
    pic.port_write(port, &[value]);
}

fn inb(pic: &Pic, port: u16) -> u8 {
    let mut data = [0];
    pic.port_read(port, &mut data);
    data[0]
}

/// Programs both chips as a PC firmware does: vectors 0x08 and 0x70, cascade, 8086 mode.
fn pic() -> Pic {
    let pic = Pic::new();
    for (port, base, cascade) in [(0x20, 0x08, 0x04), (0xa0, 0x70, 0x02)] {
        out(&pic, port, 0x11);
        out(&pic, port + 1, base);
        out(&pic, port + 1, cascade);
        out(&pic, port + 1, 0x01);
    }
    pic
}

#[test]
fn an_edge_is_delivered_once_with_its_vector() {
    let pic = pic();
    pic.set_irq(4, true);
    assert!(pic.intr());
    assert_eq!(pic.acknowledge(), Some(0x0c));
    out(&pic, 0x20, 0x20);
    assert!(!pic.intr());
    pic.set_irq(4, false);
    pic.set_irq(4, true);
    assert!(pic.intr());
}

#[test]
fn icw2_to_icw4_do_not_change_the_mask_and_ocw1_does() {
    let pic = pic();
    assert_eq!(inb(&pic, 0x21), 0);
    out(&pic, 0x21, 0xfe);
    assert_eq!(inb(&pic, 0x21), 0xfe);
    pic.set_irq(1, true);
    assert!(!pic.intr());
    out(&pic, 0x21, 0xfc);
    assert_eq!(pic.acknowledge(), Some(0x09));
}

#[test]
fn the_slave_interrupts_through_input_2() {
    let pic = pic();
    pic.set_irq(8, true);
    assert_eq!(inb(&pic, 0x20), 0x04);
    assert_eq!(pic.acknowledge(), Some(0x70));
    pic.set_irq(12, true);
    assert!(!pic.intr(), "less urgent than the interrupt in service");
    out(&pic, 0xa0, 0x20);
    out(&pic, 0x20, 0x20);
    assert_eq!(pic.acknowledge(), Some(0x74));
}

#[test]
fn a_more_urgent_input_nests_and_a_less_urgent_waits() {
    let pic = pic();
    pic.set_irq(5, true);
    assert_eq!(pic.acknowledge(), Some(0x0d));
    pic.set_irq(7, true);
    assert!(!pic.intr());
    pic.set_irq(0, true);
    assert_eq!(pic.acknowledge(), Some(0x08));
    out(&pic, 0x20, 0x0b);
    assert_eq!(inb(&pic, 0x20), 0x21);
    out(&pic, 0x20, 0x60);
    assert_eq!(inb(&pic, 0x20), 0x20);
    out(&pic, 0x20, 0x20);
    assert_eq!(pic.acknowledge(), Some(0x0f));
}

#[test]
fn a_level_input_asks_as_long_as_it_is_high() {
    let pic = pic();
    out(&pic, 0x4d0, 0xff);
    out(&pic, 0x4d1, 0xff);
    assert_eq!((inb(&pic, 0x4d0), inb(&pic, 0x4d1)), (0xf8, 0xde));
    pic.set_irq(11, true);
    assert_eq!(pic.acknowledge(), Some(0x73));
    out(&pic, 0xa0, 0x20);
    out(&pic, 0x20, 0x20);
    assert_eq!(pic.acknowledge(), Some(0x73));
    pic.set_irq(11, false);
    out(&pic, 0xa0, 0x20);
    out(&pic, 0x20, 0x20);
    assert!(!pic.intr());
}

#[test]
fn automatic_end_of_interrupt_leaves_nothing_in_service() {
    let pic = pic();
    out(&pic, 0x20, 0x11);
    out(&pic, 0x21, 0x20);
    out(&pic, 0x21, 0x04);
    out(&pic, 0x21, 0x03);
    pic.set_irq(3, true);
    assert_eq!(pic.acknowledge(), Some(0x23));
    out(&pic, 0x20, 0x0b);
    assert_eq!(inb(&pic, 0x20), 0);
}

#[test]
fn rotation_makes_the_served_input_the_least_urgent() {
    let pic = pic();
    pic.set_irq(0, true);
    assert_eq!(pic.acknowledge(), Some(0x08));
    out(&pic, 0x20, 0xa0);
    pic.set_irq(0, false);
    pic.set_irq(0, true);
    pic.set_irq(7, true);
    assert_eq!(pic.acknowledge(), Some(0x0f));
}

#[test]
fn polling_acknowledges() {
    let pic = pic();
    pic.set_irq(6, true);
    out(&pic, 0x20, 0x0c);
    assert_eq!(inb(&pic, 0x20), 0x86);
    out(&pic, 0x20, 0x0c);
    assert_eq!(inb(&pic, 0x20), 0);
}

#[test]
fn special_mask_mode_lets_less_urgent_inputs_through() {
    let pic = pic();
    pic.set_irq(1, true);
    assert_eq!(pic.acknowledge(), Some(0x09));
    pic.set_irq(6, true);
    out(&pic, 0x21, 0x02);
    assert!(!pic.intr());
    out(&pic, 0x20, 0x68);
    assert_eq!(pic.acknowledge(), Some(0x0e));
}

#[test]
fn special_fully_nested_mode_lets_a_more_urgent_slave_input_through() {
    let pic = pic();
    for (port, value) in [(0x20, 0x11), (0x21, 0x08), (0x21, 0x04), (0x21, 0x11)] {
        out(&pic, port, value);
    }
    pic.set_irq(12, true);
    assert_eq!(pic.acknowledge(), Some(0x74));
    pic.set_irq(9, true);
    assert_eq!(pic.acknowledge(), Some(0x71));
    pic.set_irq(10, true);
    assert!(!pic.intr());
}

#[test]
fn a_request_that_was_masked_away_is_not_acknowledged() {
    let pic = pic();
    pic.set_irq(4, true);
    out(&pic, 0x21, 0xff);
    assert_eq!(pic.acknowledge(), None);
}

struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn assertion_wakes_the_boot_processor() {
    let pic = pic();
    let count = Arc::new(Count(AtomicUsize::new(0)));
    pic.connect(count.clone());
    out(&pic, 0x21, 0xff);
    pic.set_irq(4, true);
    assert_eq!(count.0.load(Ordering::SeqCst), 0);
    out(&pic, 0x21, 0);
    assert_eq!(count.0.load(Ordering::SeqCst), 1);
}
