use std::sync::{Arc, Mutex};

use super::{BusError, Mmio, MmioBus, PortBus, PortIo};

#[derive(Default)]
struct Echo(Mutex<Vec<(u64, Vec<u8>)>>);

impl PortIo for Echo {
    fn port_read(&self, port: u16, data: &mut [u8]) {
        data.fill(port.to_le_bytes()[0]);
    }
    fn port_write(&self, port: u16, data: &[u8]) {
        self.0
            .lock()
            .unwrap()
            .push((u64::from(port), data.to_vec()));
    }
}

impl Mmio for Echo {
    fn mmio_read(&self, offset: u64, data: &mut [u8]) {
        data.fill(offset.to_le_bytes()[0]);
    }
    fn mmio_write(&self, offset: u64, data: &[u8]) {
        self.0.lock().unwrap().push((offset, data.to_vec()));
    }
}

#[test]
fn unmapped_ports_read_as_all_ones() {
    let bus = PortBus::new();
    let mut data = [0; 4];
    bus.read(0xfffe, &mut data);
    assert_eq!(data, [0xff; 4]);
}

#[test]
fn an_access_across_a_region_end_is_split_into_bytes() {
    let bus = PortBus::new();
    let echo = Arc::new(Echo::default());
    bus.insert(0x60..=0x61, echo.clone()).unwrap();
    let mut data = [0; 4];
    bus.read(0x60, &mut data);
    assert_eq!(data, [0x60, 0x61, 0xff, 0xff]);
    bus.read(0x5f, &mut data);
    assert_eq!(data, [0xff, 0x60, 0x61, 0xff]);
    bus.write(0x61, &[1, 2]);
    assert_eq!(*echo.0.lock().unwrap(), [(0x61, vec![1])]);
}

#[test]
fn overlapping_regions_are_refused() {
    let bus = MmioBus::new();
    bus.insert(0x1000..=0x1fff, Arc::new(Echo::default()))
        .unwrap();
    let refused = bus.insert(0x1fff..=0x2fff, Arc::new(Echo::default()));
    assert!(matches!(
        refused,
        Err(BusError::Overlap {
            other_first: 0x1000,
            ..
        })
    ));
    bus.insert(0x2000..=0x2fff, Arc::new(Echo::default()))
        .unwrap();
    assert_eq!(bus.remove(0x3000), Err(BusError::Missing { first: 0x3000 }));
    bus.remove(0x1000).unwrap();
    assert!(!bus.contains(0x1000));
}

#[test]
fn memory_devices_see_offsets_from_their_base() {
    let bus = MmioBus::new();
    let echo = Arc::new(Echo::default());
    bus.insert(u64::MAX - 0xff..=u64::MAX, echo.clone())
        .unwrap();
    bus.write(u64::MAX - 0xf, &[5; 8]);
    let mut data = [0; 2];
    bus.read(u64::MAX, &mut data);
    assert_eq!(data, [0xff, 0xff]);
    assert_eq!(*echo.0.lock().unwrap(), [(0xf0, vec![5; 8])]);
}
