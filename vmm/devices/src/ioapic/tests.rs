use std::sync::{Arc, Mutex};

use super::{Ioapic, RouteListener};
use crate::bus::Mmio;
use crate::interrupt::{MsiMessage, MsiSink};

#[derive(Default)]
struct Sent(Mutex<Vec<MsiMessage>>);

impl Sent {
    fn take(&self) -> Vec<MsiMessage> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

impl MsiSink for Sent {
    fn send_msi(&self, msi: MsiMessage) {
        self.0.lock().unwrap().push(msi);
    }
}

fn ioapic() -> (Ioapic, Arc<Sent>) {
    let sent = Arc::new(Sent::default());
    (Ioapic::new(sent.clone()), sent)
}

fn write(ioapic: &Ioapic, register: u8, value: u32) {
    ioapic.mmio_write(0, &u32::from(register).to_le_bytes());
    ioapic.mmio_write(0x10, &value.to_le_bytes());
}

fn read(ioapic: &Ioapic, register: u8) -> u32 {
    ioapic.mmio_write(0, &[register]);
    let mut data = [0; 4];
    ioapic.mmio_read(0x10, &mut data);
    u32::from_le_bytes(data)
}

#[test]
fn version_names_24_entries_and_an_eoi_register() {
    let (ioapic, _) = ioapic();
    assert_eq!(read(&ioapic, 1), 0x0017_0020);
    write(&ioapic, 0, 0xffff_ffff);
    assert_eq!(read(&ioapic, 0), 0x0f00_0000);
    assert_eq!(read(&ioapic, 0x10), 0x0001_0000);
    assert_eq!(read(&ioapic, 0x40), 0);
}

#[test]
fn an_edge_becomes_a_message() {
    let (ioapic, sent) = ioapic();
    write(&ioapic, 0x15, 0x0300_0000);
    write(&ioapic, 0x14, 0x0000_0930);
    ioapic.set_irq(2, true);
    ioapic.set_irq(2, true);
    assert_eq!(
        sent.take(),
        [MsiMessage {
            address: 0xfee0_3004,
            data: 0x4130
        }]
    );
    ioapic.set_irq(2, false);
    ioapic.set_irq(2, true);
    assert_eq!(sent.take().len(), 1);
}

#[test]
fn an_edge_on_a_masked_pin_is_lost() {
    let (ioapic, sent) = ioapic();
    ioapic.set_irq(4, true);
    write(&ioapic, 0x18, 0x0000_0031);
    assert_eq!(sent.take(), []);
}

#[test]
fn a_level_interrupt_waits_for_its_end_and_comes_again_while_high() {
    let (ioapic, sent) = ioapic();
    write(&ioapic, 0x30, 0x0000_8051);
    ioapic.set_irq(16, true);
    ioapic.set_irq(16, false);
    ioapic.set_irq(16, true);
    assert_eq!(
        sent.take(),
        [MsiMessage {
            address: 0xfee0_0000,
            data: 0xc051
        }]
    );
    assert_eq!(read(&ioapic, 0x30), 0x0000_c051);
    ioapic.eoi(0x50);
    assert_eq!(sent.take(), []);
    ioapic.mmio_write(0x40, &0x51u32.to_le_bytes());
    assert_eq!(sent.take().len(), 1);
    ioapic.set_irq(16, false);
    ioapic.eoi(0x51);
    assert_eq!(read(&ioapic, 0x30), 0x0000_8051);
    assert_eq!(sent.take(), []);
}

#[test]
fn unmasking_a_high_level_pin_sends_its_message() {
    let (ioapic, sent) = ioapic();
    write(&ioapic, 0x30, 0x0001_8051);
    ioapic.set_irq(16, true);
    assert_eq!(sent.take(), []);
    write(&ioapic, 0x30, 0x0000_8051);
    assert_eq!(sent.take().len(), 1);
}

#[test]
fn remote_irr_is_read_only_but_goes_with_edge_mode() {
    let (ioapic, _) = ioapic();
    write(&ioapic, 0x30, 0x0000_8051);
    ioapic.set_irq(16, true);
    write(&ioapic, 0x30, 0x0001_8051);
    assert_eq!(read(&ioapic, 0x30), 0x0001_c051);
    write(&ioapic, 0x30, 0x0001_0051);
    assert_eq!(read(&ioapic, 0x30), 0x0001_0051);
}

#[derive(Default)]
struct Routes(Mutex<Vec<(usize, Option<MsiMessage>)>>);

impl RouteListener for Routes {
    fn route_changed(&self, pin: usize, route: Option<MsiMessage>) {
        self.0.lock().unwrap().push((pin, route));
    }
}

#[test]
fn the_listener_follows_the_table() {
    let (ioapic, _) = ioapic();
    let routes = Arc::new(Routes::default());
    ioapic.connect(routes.clone());
    write(&ioapic, 0x12, 0x0000_0041);
    write(&ioapic, 0x12, 0x0001_0041);
    let route = Some(MsiMessage {
        address: 0xfee0_0000,
        data: 0x4041,
    });
    assert_eq!(*routes.0.lock().unwrap(), [(1, route), (1, None)]);
    assert_eq!(ioapic.route(1), None);
}
