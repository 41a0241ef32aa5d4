//! Task management, asynchronous notifications and events.

use std::sync::atomic::Ordering;

use super::*;
use crate::lifecycle::Device;

fn tmf(function: u32, lun: [u8; 8]) -> Vec<u8> {
    let mut request = vec![0; 4];
    request.extend(function.to_le_bytes());
    request.extend(lun);
    request.extend(77u64.to_le_bytes());
    request
}

fn notification(kind: u32, target: u8, events: u32) -> Vec<u8> {
    let mut request = kind.to_le_bytes().to_vec();
    request.extend(lun(target, 0));
    request.extend(events.to_le_bytes());
    request
}

#[test]
fn task_management_is_answered_when_no_task_is_left() {
    let mut rig = Rig::new();
    for function in [0, 1, 3, 6, 7] {
        assert_eq!(rig.control(&tmf(function, lun(DISK, 0)), 1), [0]);
    }
    for function in [2, 8, u32::MAX] {
        assert_eq!(rig.control(&tmf(function, lun(DISK, 0)), 1), [11]);
    }
    assert_eq!(rig.control(&tmf(5, lun(9, 0)), 1), [3], "no such target");
    assert_eq!(rig.control(&tmf(5, lun(DISK, 1)), 1), [12], "no such unit");
    assert_eq!(rig.control(&tmf(5, [0; 8]), 1), [3]);
    assert_eq!(rig.control(&99u32.to_le_bytes(), 1), [9], "unknown type");
    assert_eq!(rig.control(&[0, 0, 0, 0, 5], 1), [3], "cut short");
}

#[test]
fn a_unit_reset_lets_the_medium_go_and_is_told() {
    let mut rig = Rig::new();
    for (function, target) in [(5, CD), (4, DISK)] {
        rig.ask(target, &[0x1e, 0, 0, 0, 1, 0]).good();
        assert_eq!(rig.control(&tmf(function, lun(target, 0)), 1), [0]);
        rig.ask(target, &[0x00; 6]).check(6, 0x29, 3);
        rig.ask(target, &[0x00; 6]).good();
    }
    rig.ask(CD, &[0x1b, 0, 0, 0, 2, 0]).good();
}

#[test]
fn control_requests_without_room_need_a_reset() {
    let mut rig = Rig::new();
    rig.driver.put(REQUEST, &tmf(0, lun(DISK, 0)));
    rig.control.submit(&rig.driver, &[readable(REQUEST, 24)]);
    rig.driver.wait_for_needs_reset();
}

#[test]
fn media_changes_are_notified_to_those_who_asked() {
    let mut rig = Rig::new();
    let media = 16;
    let answer = rig.control(&notification(1, CD, 0xff), 5);
    assert_eq!(answer, [media, 0, 0, 0, 0], "query");
    assert_eq!(rig.control(&notification(1, DISK, 0xff), 5), [0; 5]);
    assert_eq!(rig.control(&notification(2, 9, 0xff), 5), [0, 0, 0, 0, 3]);
    rig.cd_handle.change_medium(None).unwrap();
    assert_eq!(rig.control(&notification(2, CD, 0xff), 5)[0], media);
    rig.offer_event_buffer();
    rig.cd_handle.change_medium(None).unwrap();
    assert_eq!(rig.event(), (2, CD, media.into()));
}

#[test]
fn targets_that_come_and_go_are_reported() {
    let mut rig = Rig::new();
    rig.offer_event_buffer();
    let options = ScsiDiskOptions::new("hot", ScsiKind::Disk);
    let disk = FakeDisk::new(false);
    rig.scsi.plug(20, Some(disk), &options).unwrap();
    assert_eq!(rig.event(), (1, 20, 1), "rescan");
    rig.ask(20, &[0x00; 6]).check(6, 0x29, 0);
    rig.scsi.unplug(20).unwrap();
    // The event waits for a buffer.
    assert_eq!(rig.ask(20, &[0x00; 6]).response, 3);
    rig.offer_event_buffer();
    assert_eq!(rig.event(), (1, 20, 2), "removed");
}

#[test]
fn a_new_capacity_is_an_event_and_an_attention() {
    let mut rig = Rig::new();
    rig.offer_event_buffer();
    rig.disk.grows_to.store(2 << 20, Ordering::SeqCst);
    assert_eq!(rig.disk_handle.resize().unwrap(), 2 << 20);
    assert_eq!(rig.event(), (3, DISK, 0x092a), "parameters changed");
    rig.ask_in(DISK, &read_10(0, 1), 512).check(6, 0x2a, 9);
    rig.ask_in(DISK, &read_10(4095, 1), 512).good();
    assert_eq!(rig.disk_handle.resize().unwrap(), 2 << 20);
    rig.ask(DISK, &[0x00; 6]).good();
}

#[test]
fn events_that_were_not_agreed_on_are_not_sent() {
    let mut rig = Rig::new();
    let queues = rig.driver.start(1 << 1 | 1 << 2, &[16, 16, 16]);
    let [control, events, requests] = queues.try_into().ok().unwrap();
    (rig.control, rig.events, rig.requests) = (control, events, requests);
    rig.offer_event_buffer();
    rig.scsi.unplug(READ_ONLY).unwrap();
    rig.disk.grows_to.store(2 << 20, Ordering::SeqCst);
    rig.disk_handle.resize().unwrap();
    rig.ask(DISK, &[0x00; 6]).check(6, 0x29, 0);
    rig.ask(DISK, &[0x00; 6]).check(6, 0x2a, 9);
    assert_eq!(rig.control(&notification(2, CD, 16), 5)[0], 16);
    rig.cd_handle.change_medium(None).unwrap();
    assert_eq!(rig.event(), (2, CD, 16), "the first that is sent");
}

#[test]
fn more_events_than_can_wait_are_marked_as_missed() {
    let mut rig = Rig::new();
    for _ in 0..40 {
        let options = ScsiDiskOptions::new("hot", ScsiKind::Disk);
        let disk = FakeDisk::new(false);
        rig.scsi.plug(20, Some(disk), &options).unwrap();
        rig.scsi.unplug(20).unwrap();
    }
    rig.driver.pci.pause();
    let saved = rig.driver.pci.save().unwrap();
    assert_eq!(saved.data["workers"][0]["events"]["missed"], true);
    rig.driver.pci.resume();
    rig.offer_event_buffer();
    assert_eq!(rig.event(), (0x8000_0001, 20, 1));
    rig.offer_event_buffer();
    assert_eq!(rig.event(), (1, 20, 2));
}
