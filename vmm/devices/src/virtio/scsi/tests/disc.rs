//! CD-ROM drives.

use std::sync::atomic::Ordering;

use super::*;

const TUR: [u8; 6] = [0; 6];
const EJECT: [u8; 6] = [0x1b, 0, 0, 0, 2, 0];
const LOAD: [u8; 6] = [0x1b, 0, 0, 0, 3, 0];
const POLL: [u8; 10] = [0x4a, 1, 0, 0, 0x10, 0, 0, 0, 8, 0];

fn prevent(locked: bool) -> [u8; 6] {
    [0x1e, 0, 0, 0, locked.into(), 0]
}

fn toc(flags: u8, format: u8, track: u8) -> [u8; 10] {
    [0x43, flags, format, 0, 0, 0, track, 1, 0, 0]
}

#[test]
fn a_disc_has_blocks_of_2048_bytes() {
    let mut rig = Rig::new();
    let capacity = rig.ask_in(CD, &[0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0], 8).good();
    assert_eq!(capacity, [0, 0, 1, 255, 0, 0, 8, 0]);
    let pattern = pattern(4096, 2);
    rig.disc.bytes.lock().unwrap()[4096..8192].copy_from_slice(&pattern);
    assert!(rig.ask_in(CD, &read_10(2, 2), 4096).good() == pattern);
    rig.ask_in(CD, &read_10(511, 2), 4096).check(5, 0x21, 0);
    // What only disks know.
    rig.ask_out(CD, &transfer_10(0x41, 0, 0, 1), &[0; 2048])
        .check(5, 0x20, 0);
    rig.ask(CD, &[0x42, 0, 0, 0, 0, 0, 0, 0, 0, 0])
        .check(5, 0x20, 0);
}

#[test]
fn the_table_of_contents_has_one_data_track() {
    let mut rig = Rig::new();
    let data = rig.ask_in(CD, &toc(0, 0, 0), 256).good();
    assert_eq!(data[..4], [0, 18, 1, 1], "length, first and last track");
    assert_eq!(data[4..12], [0, 0x14, 1, 0, 0, 0, 0, 0]);
    assert_eq!(data[12..20], [0, 0x14, 0xaa, 0, 0, 0, 2, 0], "lead-out");
    let data = rig.ask_in(CD, &toc(2, 0, 0xaa), 256).good();
    assert_eq!(
        data[4..],
        [0, 0x14, 0xaa, 0, 0, 0, 8, 62],
        "512 + 150 frames"
    );
    let data = rig.ask_in(CD, &toc(0, 1, 0), 256).good();
    assert_eq!(data, [0, 10, 1, 1, 0, 0x14, 1, 0, 0, 0, 0, 0], "sessions");
    let data = rig.ask_in(CD, &toc(0, 2, 0), 256).good();
    assert_eq!(data.len(), 4 + 4 * 11);
    let old = rig.ask_in(CD, &[0x43, 0, 0, 0, 0, 0, 0, 1, 0, 0x40], 256);
    assert_eq!(old.good()[1], 10, "the format in the last byte");
    rig.ask_in(CD, &toc(0, 5, 0), 256).check(5, 0x24, 0);
    rig.ask_in(CD, &toc(0, 0, 7), 256).check(5, 0x24, 0);
    rig.ask_in(DISK, &toc(0, 0, 0), 256).check(5, 0x20, 0);
}

#[test]
fn the_configuration_names_the_profile_of_the_medium() {
    let mut rig = Rig::new();
    let cdb = |kind: u8, feature: u8| [0x46, kind, 0, feature, 0, 0, 0, 1, 0, 0];
    let data = rig.ask_in(CD, &cdb(0, 0), 256).good();
    assert_eq!(usize::from(data[3]) + 4, data.len());
    assert_eq!(data[6..8], [0, 8], "CD-ROM");
    assert_eq!(data[8..20], [0, 0, 3, 8, 0, 0x10, 0, 0, 0, 8, 1, 0]);
    let one = rig.ask_in(CD, &cdb(2, 3), 256).good();
    assert_eq!(one[8..], [0, 3, 3, 4, 0x29, 0, 0, 0]);
    let current = rig.ask_in(CD, &cdb(1, 0x1e), 256).good();
    assert_eq!(current.len(), 16, "no DVD is read now");
    rig.cd_handle.change_medium(None).unwrap();
    let empty = rig.ask_in(CD, &cdb(1, 0), 256).good();
    assert_eq!(empty[6..8], [0, 0]);
    assert_eq!(empty.len(), 8 + 12 + 12 + 8);
}

#[test]
fn disc_information_and_capabilities_describe_a_finished_disc_and_a_tray() {
    let mut rig = Rig::new();
    let data = rig
        .ask_in(CD, &[0x51, 0, 0, 0, 0, 0, 0, 0, 64, 0], 64)
        .good();
    assert_eq!((data.len(), data[1], data[2]), (34, 32, 0x0e));
    let page = rig
        .ask_in(CD, &[0x5a, 0, 0x2a, 0, 0, 0, 0, 0, 64, 0], 64)
        .good();
    assert_eq!(page[7], 0, "no block descriptor");
    assert_eq!((page[8], page[9], page[14]), (0x2a, 20, 0x29));
    rig.ask(CD, &prevent(true)).good();
    let page = rig.ask_in(CD, &[0x1a, 0, 0x2a, 0, 64, 0], 64).good();
    assert_eq!(page[10], 0x2b, "locked");
    let state = rig
        .ask_in(CD, &[0xbd, 0, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0], 8)
        .good();
    assert_eq!(state, [0; 8]);
}

#[test]
fn a_guest_ejects_and_loads_what_is_not_locked() {
    let mut rig = Rig::new();
    rig.ask(CD, &prevent(true)).good();
    rig.ask(CD, &EJECT).check(5, 0x53, 2);
    assert!(rig.ejected.lock().unwrap().is_empty());
    rig.ask(CD, &prevent(false)).good();
    rig.ask(CD, &EJECT).good();
    rig.ask(CD, &EJECT).good();
    assert_eq!(*rig.ejected.lock().unwrap(), ["sr0"], "reported once");
    rig.ask(CD, &TUR).check(2, 0x3a, 2);
    rig.ask_in(CD, &read_10(0, 1), 2048).check(2, 0x3a, 2);
    let poll = rig.ask_in(CD, &POLL, 8).good();
    assert_eq!(poll, [0, 6, 4, 0x10, 3, 1, 0, 0], "removed, tray open");
    rig.ask(CD, &LOAD).good();
    let poll = rig.ask_in(CD, &POLL, 8).good();
    assert_eq!(poll, [0, 6, 4, 0x10, 2, 2, 0, 0], "new medium, tray closed");
    rig.ask(CD, &TUR).check(6, 0x28, 0);
    rig.ask(CD, &TUR).good();
    let poll = rig.ask_in(CD, &POLL, 8).good();
    assert_eq!(poll[4], 0, "nothing new");
    rig.ask_in(CD, &[0x4a, 0, 0, 0, 0x10, 0, 0, 0, 8, 0], 8)
        .check(5, 0x24, 0);
    let other = rig.ask_in(CD, &[0x4a, 1, 0, 0, 2, 0, 0, 0, 8, 0], 8).good();
    assert_eq!(other, [0, 2, 0x80, 0x10], "no event of that class");
}

#[test]
fn the_host_changes_the_medium_whatever_the_guest_locked() {
    let mut rig = Rig::new();
    rig.ask(CD, &prevent(true)).good();
    rig.cd_handle.change_medium(None).unwrap();
    rig.ask(CD, &TUR).check(6, 0x28, 0);
    rig.ask(CD, &TUR).check(2, 0x3a, 1);
    rig.ask_in(CD, &[0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0], 8)
        .check(2, 0x3a, 1);
    assert_eq!(rig.cd_handle.capacity_bytes(), 0);
    assert!(rig.cd_handle.resize().is_err());
    let other = FakeDisk::new(true);
    other.bytes.lock().unwrap()[0] = 0x77;
    rig.cd_handle.change_medium(Some(other)).unwrap();
    rig.ask_in(CD, &read_10(0, 1), 2048).check(6, 0x28, 0);
    assert_eq!(rig.ask_in(CD, &read_10(0, 1), 2048).good()[0], 0x77);
    assert!(
        rig.ejected.lock().unwrap().is_empty(),
        "the guest did nothing"
    );
}

#[test]
fn a_long_disc_is_a_dvd_and_an_empty_drive_can_be_had() {
    let mut rig = Rig::new();
    let long = FakeDisk::new(true);
    long.grows_to.store(800 << 20, Ordering::SeqCst);
    let empty = ScsiDiskOptions::new("sr1", ScsiKind::Cdrom);
    let handle = rig.scsi.plug(6, None, &empty).unwrap();
    rig.ask(6, &TUR).check(6, 0x29, 0);
    rig.ask(6, &TUR).check(2, 0x3a, 1);
    rig.ask_in(6, &[0x12, 0, 0, 0, 36, 0], 36).good();
    long.refresh_len().unwrap();
    handle.change_medium(Some(long)).unwrap();
    let cdb = [0x46, 0, 0, 0, 0, 0, 0, 0, 8, 0];
    assert_eq!(rig.ask_in(6, &cdb, 8).good()[6..], [0, 0x10]);
}
