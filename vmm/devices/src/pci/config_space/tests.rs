use super::{BarKind, BarRegion, COMMAND_INTX_DISABLE, ConfigSpace, Identity, LayoutError, Pin};

fn space() -> ConfigSpace {
    ConfigSpace::new(Identity {
        vendor: 0x1af4,
        device: 0x1042,
        revision: 1,
        class: [1, 0, 0],
        subsystem_vendor: 0x1af4,
        subsystem: 2,
    })
}

#[test]
fn identity_is_read_only() {
    let mut space = space();
    space.write(0, &[0xff; 4]);
    space.write(8, &[0xff; 4]);
    assert_eq!(space.read_u32(0), 0x1042_1af4);
    assert_eq!(space.read_u32(8), 0x0100_0001);
    assert_eq!(space.read_u32(0x2c), 0x0002_1af4);
}

#[test]
fn writing_all_ones_to_a_bar_reads_back_its_size_and_kind() {
    let mut space = space();
    space.add_bar(0, BarKind::Io, 0x20).unwrap();
    space.add_bar(1, BarKind::Memory32, 0x1000).unwrap();
    space.add_bar(4, BarKind::Memory64, 0x4000).unwrap();
    for bar in 0..6u16 {
        space.write(0x10 + 4 * bar, &[0xff; 4]);
    }
    assert_eq!(space.read_u32(0x10), 0xffff_ffe1);
    assert_eq!(space.read_u32(0x14), 0xffff_f000);
    assert_eq!(space.read_u32(0x18), 0);
    assert_eq!(space.read_u32(0x20), 0xffff_c00c);
    assert_eq!(space.read_u32(0x24), 0xffff_ffff);
}

#[test]
fn regions_decode_only_when_enabled_and_placed() {
    let mut space = space();
    space.add_bar(0, BarKind::Io, 0x20).unwrap();
    space.add_bar(4, BarKind::Memory64, 0x4000).unwrap();
    space.write(0x04, &[2, 0]);
    assert_eq!(space.bars(), []);
    space.write(0x20, &0x8000_0000u32.to_le_bytes());
    space.write(0x24, &0x1u32.to_le_bytes());
    space.write(0x10, &0xc000u32.to_le_bytes());
    let memory = BarRegion {
        bar: 4,
        kind: BarKind::Memory64,
        base: 0x1_8000_0000,
        size: 0x4000,
    };
    assert_eq!(space.bars(), [memory]);
    space.write(0x04, &[3, 0]);
    let ports = BarRegion {
        bar: 0,
        kind: BarKind::Io,
        base: 0xc000,
        size: 0x20,
    };
    assert_eq!(space.bars(), [ports, memory]);
}

#[test]
fn capabilities_are_linked_in_order() {
    let mut space = space();
    assert_eq!(space.add_capability(0x11, &[0; 10], &[0, 0xc0]), Ok(0x40));
    assert_eq!(space.add_capability(0x09, &[7; 14], &[]), Ok(0x4c));
    let mut pointer = [0];
    space.read(0x34, &mut pointer);
    assert_eq!(pointer, [0x40]);
    assert_eq!(space.read_u16(0x40), 0x4c11);
    assert_eq!(space.read_u16(0x4c), 0x0009);
    assert_eq!(space.read_u16(0x06) & 0x10, 0x10);
    space.write(0x42, &[0xff; 2]);
    assert_eq!(space.read_u16(0x42), 0xc000);
    assert!(matches!(
        space.add_capability(9, &[0; 200], &[]),
        Err(LayoutError::Capability {
            id: 9,
            len_bytes: 202
        })
    ));
}

#[test]
fn impossible_bars_are_refused() {
    let mut space = space();
    space.add_bar(0, BarKind::Memory64, 0x1000).unwrap();
    assert!(space.add_bar(1, BarKind::Io, 0x20).is_err());
    assert!(space.add_bar(5, BarKind::Memory64, 0x1000).is_err());
    assert!(space.add_bar(2, BarKind::Memory32, 0x1001).is_err());
    assert!(space.add_bar(6, BarKind::Memory32, 0x1000).is_err());
}

#[test]
fn interrupt_disable_silences_the_pin_but_not_the_status() {
    let mut space = space();
    space.set_pin(Pin::B);
    assert_eq!(space.read_u16(0x3c), 0x0200);
    assert!(space.set_interrupt(true));
    space.write(0x04, &COMMAND_INTX_DISABLE.to_le_bytes());
    assert!(!space.pin_level());
    assert_eq!(space.read_u16(0x06) & 8, 8);
}

#[test]
fn reset_and_restore_give_back_registers() {
    let mut space = space();
    space.add_bar(1, BarKind::Memory32, 0x1000).unwrap();
    let fresh = space.save();
    space.write(0x14, &0xfebf_0000u32.to_le_bytes());
    space.write(0x04, &[7, 4]);
    let changed = space.save();
    space.reset();
    assert_eq!(space.save(), fresh);
    space.restore(&changed).unwrap();
    assert_eq!(space.save(), changed);
    let mut other = ConfigSpace::new(Identity::default());
    assert!(other.restore(&changed).is_err());
}
