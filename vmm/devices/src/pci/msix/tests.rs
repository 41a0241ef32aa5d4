use std::sync::{Arc, Mutex};

use super::super::config_space::{ConfigSpace, Identity};
use super::{Msix, MsixPlacement};
use crate::interrupt::{MsiMessage, MsiSink};

#[derive(Default)]
struct Sent(Mutex<Vec<MsiMessage>>);

impl MsiSink for Sent {
    fn send_msi(&self, msi: MsiMessage) {
        self.0.lock().unwrap().push(msi);
    }
}

const ENABLE: u16 = 0x8000;
const MASK_ALL: u16 = 0x4000;

fn msix() -> (Msix, Arc<Sent>) {
    let sent = Arc::new(Sent::default());
    (Msix::new(70, sent.clone()), sent)
}

fn program(msix: &Msix, vector: u64, masked: bool) {
    msix.table_write(vector * 16, &0xfee0_1000u64.to_le_bytes());
    msix.table_write(
        vector * 16 + 8,
        &(0x40 + u32::try_from(vector).unwrap()).to_le_bytes(),
    );
    msix.table_write(vector * 16 + 12, &u32::from(masked).to_le_bytes());
}

fn is_pending(msix: &Msix, vector: u64) -> bool {
    let mut byte = [0];
    msix.pba_read(vector / 8, &mut byte);
    byte[0] >> (vector % 8) & 1 == 1
}

#[test]
fn an_enabled_unmasked_vector_sends_its_message() {
    let (msix, sent) = msix();
    msix.set_control(ENABLE);
    program(&msix, 3, false);
    msix.trigger(3);
    assert_eq!(
        *sent.0.lock().unwrap(),
        [MsiMessage {
            address: 0xfee0_1000,
            data: 0x43
        }]
    );
}

#[test]
fn a_masked_vector_stays_pending_until_unmasked() {
    let (msix, sent) = msix();
    msix.set_control(ENABLE);
    program(&msix, 66, true);
    msix.trigger(66);
    assert!(is_pending(&msix, 66));
    assert!(sent.0.lock().unwrap().is_empty());
    msix.table_write(66 * 16 + 12, &[0; 4]);
    assert!(!is_pending(&msix, 66));
    assert_eq!(sent.0.lock().unwrap().len(), 1);
}

#[test]
fn the_function_mask_holds_back_every_vector() {
    let (msix, sent) = msix();
    msix.set_control(ENABLE | MASK_ALL);
    program(&msix, 0, false);
    msix.trigger(0);
    msix.trigger(0);
    assert!(is_pending(&msix, 0));
    msix.set_control(ENABLE);
    assert_eq!(sent.0.lock().unwrap().len(), 1);
}

#[test]
fn a_disabled_or_missing_vector_sends_nothing() {
    let (msix, sent) = msix();
    program(&msix, 0, false);
    msix.trigger(0);
    msix.set_control(ENABLE);
    msix.trigger(70);
    msix.trigger(u16::MAX);
    assert!(sent.0.lock().unwrap().is_empty());
}

#[test]
fn odd_table_accesses_are_ignored() {
    let (msix, _) = msix();
    msix.table_write(2, &[1; 4]);
    msix.table_write(0, &[1; 2]);
    msix.table_write(u64::MAX - 3, &[1; 8]);
    let mut data = [9; 4];
    msix.table_read(70 * 16, &mut data);
    assert_eq!(data, [0; 4]);
    msix.table_read(12, &mut data);
    assert_eq!(data, [1, 0, 0, 0]);
}

#[test]
fn the_capability_tells_size_and_place() {
    let (msix, _) = msix();
    let mut config = ConfigSpace::new(Identity::default());
    let placement = MsixPlacement {
        table_bar: 1,
        table_offset: 0x2000,
        pba_bar: 1,
        pba_offset: 0x3000,
    };
    let offset = msix.add_capability(&mut config, placement).unwrap();
    assert_eq!(config.read_u16(offset + 2), 69);
    assert_eq!(config.read_u32(offset + 4), 0x2001);
    assert_eq!(config.read_u32(offset + 8), 0x3001);
    config.write(offset + 2, &[0xff; 2]);
    assert_eq!(config.read_u16(offset + 2), 0xc045);
}

#[test]
fn restore_gives_back_table_and_pending_bits() {
    let (msix, _) = msix();
    msix.set_control(ENABLE);
    program(&msix, 5, true);
    msix.trigger(5);
    let state = msix.save();
    let (other, sent) = self::msix();
    other.restore(&state).unwrap();
    assert_eq!(other.save(), state);
    other.table_write(5 * 16 + 12, &[0; 4]);
    assert_eq!(sent.0.lock().unwrap().len(), 1);
    other.reset();
    assert_eq!(other.save(), self::msix().0.save());
}
