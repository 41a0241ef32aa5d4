use std::sync::Arc;

use crate::fuzz::{Bench, Sink};
use crate::pci::{PciAddress, Pin, lpc};
use crate::pvpanic::PvpanicPci;

fn config_address(device: u32, reg: u32) -> [u8; 4] {
    (0x8000_0000 | device << 11 | reg).to_le_bytes()
}

fn config_write(bench: &Bench, device: u32, reg: u32, value: u32) {
    bench
        .chipset
        .ports
        .write(0xcf8, &config_address(device, reg));
    bench.chipset.ports.write(0xcfc, &value.to_le_bytes());
}

fn config_read(bench: &Bench, device: u32, reg: u32) -> u32 {
    bench
        .chipset
        .ports
        .write(0xcf8, &config_address(device, reg));
    let mut data = [0; 4];
    bench.chipset.ports.read(0xcfc, &mut data);
    u32::from_le_bytes(data)
}

fn memory_read(bench: &Bench, gpa: u64) -> u32 {
    let mut data = [0; 4];
    bench.chipset.mmio.read(gpa, &mut data);
    u32::from_le_bytes(data)
}

#[test]
fn the_bridges_are_where_firmware_looks() {
    let bench = Bench::new().unwrap();
    assert_eq!(config_read(&bench, 0, 0), 0x29c0_8086);
    assert_eq!(config_read(&bench, 0x1f, 0), 0x2918_8086);
    assert_eq!(config_read(&bench, 0x1f, 0x40), 0x601);
    assert_eq!(config_read(&bench, 5, 0), u32::MAX);
    assert_eq!(memory_read(&bench, 0xb000_0000), 0x29c0_8086);
    assert_eq!(memory_read(&bench, 0xb000_0000 + (0x1f << 15)), 0x2918_8086);
    assert_eq!(memory_read(&bench, 0xb010_0000), u32::MAX, "bus 1");
}

#[test]
fn configuration_needs_the_enable_bit() {
    let bench = Bench::new().unwrap();
    bench.chipset.ports.write(0xcf8, &[0; 4]);
    let mut data = [0; 4];
    bench.chipset.ports.read(0xcfc, &mut data);
    assert_eq!(data, [0xff; 4]);
    bench.chipset.ports.write(0xcf8, &config_address(0, 0));
    let mut word = [0; 2];
    bench.chipset.ports.read(0xcfe, &mut word);
    assert_eq!(word, [0xc0, 0x29]);
}

#[test]
fn regions_follow_their_registers() {
    let bench = Bench::new().unwrap();
    config_write(&bench, 1, 0x10, 0xc000_0000);
    assert_eq!(memory_read(&bench, 0xc000_0000), u32::MAX);
    config_write(&bench, 1, 0x04, 2);
    assert_eq!(memory_read(&bench, 0xc000_0000), 7);
    config_write(&bench, 1, 0x10, 0xd000_0000);
    assert_eq!(memory_read(&bench, 0xc000_0000), u32::MAX);
    assert_eq!(memory_read(&bench, 0xd000_0000), 7);
    bench.chipset.reset();
    assert_eq!(memory_read(&bench, 0xd000_0000), u32::MAX);
}

#[test]
fn a_region_in_anothers_place_appears_when_the_place_is_free() {
    let bench = Bench::new().unwrap();
    let second = Arc::new(PvpanicPci::new(Arc::new(Sink)));
    let at = PciAddress::new(2, 0).unwrap();
    bench.chipset.pci.add(at, second).unwrap();
    for device in [1, 2] {
        config_write(&bench, device, 0x10, 0xc000_0000);
        config_write(&bench, device, 0x04, 2);
    }
    config_write(&bench, 1, 0x10, 0xd000_0000);
    assert_eq!(memory_read(&bench, 0xc000_0000), 7);
    assert_eq!(memory_read(&bench, 0xd000_0000), 7);
    bench.chipset.pci.remove(at).unwrap();
    assert_eq!(memory_read(&bench, 0xc000_0000), u32::MAX);
    assert!(bench.chipset.pci.remove(at).is_err());
}

#[test]
fn the_configuration_window_moves_and_closes() {
    let bench = Bench::new().unwrap();
    config_write(&bench, 0, 0x60, 0xe000_0001);
    assert_eq!(bench.chipset.host_bridge.window_gpa(), Some(0xe000_0000));
    assert_eq!(memory_read(&bench, 0xe000_0000), 0x29c0_8086);
    assert_eq!(memory_read(&bench, 0xb000_0000), u32::MAX);
    bench.chipset.mmio.write(0xe000_0060, &0u32.to_le_bytes());
    assert_eq!(memory_read(&bench, 0xe000_0000), u32::MAX);
}

#[test]
fn the_power_management_block_moves_with_pmbase() {
    let bench = Bench::new().unwrap();
    let read = |port: u16| {
        let mut data = [0; 2];
        bench.chipset.ports.read(port, &mut data);
        u16::from_le_bytes(data)
    };
    assert_eq!(read(0x604), 1);
    config_write(&bench, 0x1f, 0x40, 0xb000);
    assert_eq!((read(0x604), read(0xb004)), (0xffff, 1));
    config_write(&bench, 0x1f, 0x44, 0);
    assert_eq!(read(0xb004), 0xffff);
}

#[test]
fn interrupt_pins_reach_the_ioapic_and_the_routed_isa_interrupt() {
    let bench = Bench::new().unwrap();
    let gsi = lpc::gsi_of(3, Pin::A);
    assert_eq!(gsi, 23);
    let line = bench
        .chipset
        .lpc
        .line(PciAddress::new(3, 0).unwrap(), Pin::A);
    let ioapic_lines = || {
        bench
            .chipset
            .devices()
            .iter()
            .find(|device| device.name() == "ioapic")
            .unwrap()
            .save()
            .unwrap()
            .data["lines"]
            .as_u64()
            .unwrap()
    };
    line.set_level(true);
    assert_eq!(ioapic_lines(), 1 << 23);
    // PIRQ H to ISA interrupt 11.
    config_write(&bench, 0x1f, 0x68, 0x0b80_8080);
    assert_eq!(ioapic_lines(), 1 << 23 | 1 << 11);
    line.set_level(false);
    assert_eq!(ioapic_lines(), 0);
}

#[test]
fn a_shared_interrupt_stays_high_until_every_pin_is_low() {
    let bench = Bench::new().unwrap();
    let pin = |device, pin| {
        bench
            .chipset
            .lpc
            .line(PciAddress::new(device, 0).unwrap(), pin)
    };
    let (one, other) = (pin(3, Pin::A), pin(2, Pin::B));
    one.set_level(true);
    other.set_level(true);
    one.set_level(false);
    let save = || crate::lifecycle::Device::save(&*bench.chipset.ioapic).unwrap();
    assert_eq!(save().data["lines"], 1u64 << 23);
    other.set_level(false);
    assert_eq!(save().data["lines"], 0);
}

#[test]
fn the_interval_timer_is_pin_2() {
    let bench = Bench::new().unwrap();
    bench.chipset.irqs.set_irq(0, true);
    bench.chipset.irqs.set_irq(2, true);
    let saved = crate::lifecycle::Device::save(&*bench.chipset.ioapic).unwrap();
    assert_eq!(saved.data["lines"], 4);
}

#[test]
fn a_dropped_board_leaves_nothing_behind() {
    let bench = Bench::new().unwrap();
    let ports = Arc::downgrade(&bench.chipset.ports);
    let pci = Arc::downgrade(&bench.chipset.pci);
    bench.chipset.start().unwrap();
    drop(bench);
    assert!(ports.upgrade().is_none());
    assert!(pci.upgrade().is_none());
}
