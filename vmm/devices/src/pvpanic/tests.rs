use std::sync::{Arc, Mutex};

use super::{PORT, Pvpanic, PvpanicPci};
use crate::bus::PortIo;
use crate::pci::PciFunction;
use crate::platform::{PlatformEvent, PlatformSink};

#[derive(Default)]
struct Events(Mutex<Vec<PlatformEvent>>);

impl PlatformSink for Events {
    fn notify(&self, event: PlatformEvent) {
        self.0.lock().unwrap().push(event);
    }
}

#[test]
fn the_port_tells_what_it_supports_and_reports_events() {
    let events = Arc::new(Events::default());
    let panic = Pvpanic::new(events.clone());
    let mut data = [0];
    panic.port_read(PORT, &mut data);
    assert_eq!(data, [7]);
    panic.port_write(PORT, &[1]);
    panic.port_write(PORT, &[6]);
    panic.port_write(PORT, &[0xf8]);
    let expected = [
        PlatformEvent::Panicked,
        PlatformEvent::CrashLoaded,
        PlatformEvent::ShutDown,
    ];
    assert_eq!(*events.0.lock().unwrap(), expected);
}

#[test]
fn the_pci_form_has_its_register_in_region_0() {
    let events = Arc::new(Events::default());
    let panic = PvpanicPci::new(events.clone());
    let mut id = [0; 4];
    panic.config_read(0, &mut id);
    assert_eq!(u32::from_le_bytes(id), 0x0011_1b36);
    panic.config_write(0x10, &0xfebf_0000u32.to_le_bytes());
    panic.config_write(0x04, &[2, 0]);
    assert_eq!(panic.bars()[0].base, 0xfebf_0000);
    panic.bar_write(0, 0, &[1]);
    panic.bar_write(0, 1, &[1]);
    assert_eq!(*events.0.lock().unwrap(), [PlatformEvent::Panicked]);
}
