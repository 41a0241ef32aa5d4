//! The host itself: configuration, addressing, malformed requests, saving and resetting.

use super::*;
use crate::conformance::Random;
use crate::lifecycle::Device;
use crate::pci::PciFunction;
use crate::virtio::spec::capability;

#[test]
fn configuration_space_describes_the_host() {
    let rig = Rig::new();
    let word = |at| u32::from_le_bytes(rig.driver.device_config::<4>(at));
    assert_eq!(word(0), 1, "num_queues");
    assert_eq!(word(4), 254, "seg_max");
    assert_eq!(word(8), 65536, "max_sectors");
    assert_eq!(word(12), 128, "cmd_per_lun");
    assert_eq!(word(16), 16, "event_info_size");
    assert_eq!((word(20), word(24)), (96, 32), "sense_size, cdb_size");
    assert_eq!(rig.driver.device_config::<2>(28), [0, 0], "max_channel");
    assert_eq!(rig.driver.device_config::<2>(30), [63, 0], "max_target");
    assert_eq!(word(32), 0, "max_lun");
    assert_eq!(rig.driver.offered() & 0xf, 1 << 1 | 1 << 2);
    assert_eq!(rig.driver.config16(2), 0x1048, "device ID");
    assert_eq!(
        rig.driver.common16(crate::virtio::spec::common::NUM_QUEUES),
        3
    );
}

#[test]
fn a_driver_chooses_the_sizes_of_sense_and_cdb_until_a_reset() {
    let mut rig = Rig::new();
    let set = |at: u64, value: u32| {
        rig.driver
            .write(capability::DEVICE, at, &value.to_le_bytes());
    };
    set(20, 8);
    set(24, 16);
    // What cannot be written stays.
    set(0, 99);
    assert_eq!(rig.driver.device_config::<4>(0), 1u32.to_le_bytes());
    rig.put_request(lun(DISK, 0), &[0x5e, 0]);
    let chain = [readable(REQUEST, 19 + 16), writable(ANSWER, 12 + 8)];
    let written = rig.requests.ask(&rig.driver, &chain);
    assert_eq!(written, 20);
    let answer = rig.driver.bytes(ANSWER, 20);
    assert_eq!(answer[..4], 8u32.to_le_bytes(), "sense_len is cut");
    assert_eq!((answer[10], answer[12], answer[14]), (2, 0x70, 5));
    rig.driver.negotiate(0);
    let word = |at| u32::from_le_bytes(rig.driver.device_config::<4>(at));
    assert_eq!((word(20), word(24)), (96, 32));
}

#[test]
fn what_is_not_there_is_a_bad_target() {
    let mut rig = Rig::new();
    for target in [1, 63, 64, 255] {
        let reply = rig.ask(target, &[0x00; 6]);
        assert_eq!((reply.response, reply.status), (3, 0), "target {target}");
    }
    let odd: [[u8; 8]; 4] = [
        [0, 0, 0x40, 0, 0, 0, 0, 0],
        [2, 0, 0x40, 0, 0, 0, 0, 0],
        [1, 0, 0x40, 0, 0, 0, 0, 1],
        [1, 0, 0x80, 0, 0, 0, 0, 0],
    ];
    for lun in odd {
        assert_eq!(rig.ask_lun(lun, &[0x00; 6], &[], 0).response, 3, "{lun:?}");
    }
    // Peripheral device addressing is as good as flat space addressing.
    rig.ask_lun([1, 0, 0, 0, 0, 0, 0, 0], &[0x00; 6], &[], 0)
        .good();
}

#[test]
fn a_unit_that_is_not_there_is_told_from_a_target() {
    let mut rig = Rig::new();
    let absent = lun(DISK, 5);
    rig.ask_lun(absent, &[0x00; 6], &[], 0).check(5, 0x25, 0);
    rig.ask_lun(absent, &read_10(0, 1), &[], 512)
        .check(5, 0x25, 0);
    let inquiry = rig.ask_lun(absent, &[0x12, 0, 0, 0, 36, 0], &[], 36).good();
    assert_eq!(inquiry[0], 0x7f, "no such unit can be there");
    let sense = rig.ask_lun(absent, &[3, 0, 0, 0, 18, 0], &[], 18).good();
    assert_eq!((sense[2], sense[12]), (5, 0x25));
    let luns = [0xa0, 0, 0, 0, 0, 0, 0, 0, 0, 64, 0, 0];
    assert_eq!(rig.ask_lun(absent, &luns, &[], 64).good().len(), 16);
    // The well-known unit for REPORT LUNS.
    let known = [1, 0, 0xc1, 0x01, 0, 0, 0, 0];
    let inquiry = rig.ask_lun(known, &[0x12, 0, 0, 0, 36, 0], &[], 36).good();
    assert_eq!(inquiry[0], 0x1e);
    assert_eq!(rig.ask_lun(known, &luns, &[], 64).good().len(), 16);
    rig.ask_lun(known, &[0x00; 6], &[], 0).good();
    rig.ask_lun(known, &read_10(0, 1), &[], 512)
        .check(5, 0x20, 0);
}

#[test]
fn malformed_requests_fail_and_those_without_room_need_a_reset() {
    let mut rig = Rig::new();
    rig.put_request(lun(DISK, 0), &[0x00; 6]);
    let cut = [readable(REQUEST, 50), writable(ANSWER, 108)];
    let written = rig.requests.ask(&rig.driver, &cut);
    assert_eq!(
        rig.reply(written, 0).response,
        9,
        "a header that is cut short"
    );
    let reply = rig.ask_lun(lun(DISK, 0), &read_10(0, 1), &[1; 512], 512);
    assert_eq!(reply.response, 9, "both directions without the feature");
    rig.requests
        .submit(&rig.driver, &[readable(REQUEST, 51), writable(ANSWER, 107)]);
    rig.driver.wait_for_needs_reset();
    let mut queues = rig.driver.start(0, &[8, 8, 8]);
    rig.put_request(lun(DISK, 0), &[0x12, 0, 0, 0, 36, 0]);
    let chain = [
        readable(REQUEST, 51),
        writable(ANSWER, 108),
        writable(DATA, 36),
    ];
    assert_eq!(queues[2].ask(&rig.driver, &chain), 144);
}

#[test]
fn buffers_may_be_cut_anywhere() {
    let mut rig = Rig::new();
    rig.disk.write_at(0, &pattern(1024, 4)).unwrap();
    rig.put_request(lun(DISK, 0), &read_10(0, 2));
    let chain = [
        readable(REQUEST, 5),
        readable(REQUEST + 5, 46),
        writable(ANSWER, 3),
        writable(ANSWER + 3, 105),
        writable(DATA, 1000),
        writable(DATA + 1000, 24),
    ];
    assert_eq!(rig.requests.ask(&rig.driver, &chain), 108 + 1024);
    assert_eq!(rig.reply(108 + 1024, 1024).good(), pattern(1024, 4));
}

#[test]
fn a_storm_of_arbitrary_commands_is_answered() {
    let mut rig = Rig::new();
    let mut random = Random::new(11);
    for round in 0..4000u32 {
        let mut cdb = random.bytes(32);
        if round % 4 != 0 {
            // Small numbers get further.
            cdb[1] &= 0x1f;
            cdb[2..].iter_mut().for_each(|byte| *byte &= 0x03);
        }
        let choice = random.next();
        let target = [DISK, READ_ONLY, CD, 9][usize::try_from(choice & 3).unwrap()];
        let unit = if choice & 0xf0 == 0 { 7 } else { 0 };
        let len = u32::try_from(choice >> 8 & 0xfff).unwrap();
        let reply = if choice & 4 == 0 {
            rig.ask_lun(lun(target, unit), &cdb, &[], len)
        } else {
            let data = random.bytes(usize::try_from(len).unwrap());
            rig.ask_lun(lun(target, unit), &cdb, &data, 0)
        };
        assert!(reply.response <= 3, "{cdb:x?}: {reply:?}");
        assert!(reply.status == 0 || reply.status == 2, "{cdb:x?}");
        assert_eq!(reply.status == 2, reply.sense.is_some(), "{cdb:x?}");
        assert!(reply.residual <= len, "{cdb:x?}");
    }
    assert_eq!(rig.driver.status() & 0x40, 0, "no reset is needed");
    assert!(rig.refused.lock().unwrap().is_empty());
}

#[test]
fn what_a_guest_did_moves_to_a_fresh_host() {
    let mut rig = Rig::new();
    rig.driver
        .write(capability::DEVICE, 20, &40u32.to_le_bytes());
    rig.driver
        .write(capability::DEVICE, 20, &96u32.to_le_bytes());
    rig.ask(CD, &[0x1e, 0, 0, 0, 1, 0]).good();
    rig.disk
        .grows_to
        .store(2 << 20, std::sync::atomic::Ordering::SeqCst);
    rig.disk_handle.resize().unwrap();
    rig.driver.pci.pause();
    let saved = rig.driver.pci.save().unwrap();

    let mut other = Rig::fresh(|_| {});
    let memory = rig.driver.bytes(0, 0x10_0000);
    other.driver.pci.pause();
    other.driver.put(0, &memory);
    other.driver.pci.restore(&saved).unwrap();
    assert_eq!(other.driver.pci.save().unwrap(), saved);
    other.requests = rig.requests;
    other.driver.pci.resume();
    other.ask(DISK, &[0x00; 6]).check(6, 0x2a, 9);
    other.ask(DISK, &[0x00; 6]).good();
    other.ask(CD, &[0x1b, 0, 0, 0, 2, 0]).check(5, 0x53, 2);
}

#[test]
fn states_of_another_host_are_refused() {
    let rig = Rig::new();
    rig.driver.pci.pause();
    let saved = rig.driver.pci.save().unwrap();
    let refused = |change: fn(&mut serde_json::Value)| {
        let mut bad = saved.clone();
        change(&mut bad.data["workers"][0]);
        assert!(rig.driver.pci.restore(&bad).is_err(), "{}", bad.data);
        assert_eq!(rig.driver.pci.save().unwrap(), saved);
    };
    refused(|host| host["surprise"] = 1.into());
    refused(|host| host["units"] = serde_json::json!({}));
    refused(|host| {
        let unit = host["units"]["0"].clone();
        host["units"]["1"] = unit;
    });
    refused(|host| {
        let sense = serde_json::json!({ "key": 2, "asc": 4, "ascq": 0 });
        host["units"]["0"]["attentions"] = serde_json::json!([sense]);
    });
    refused(|host| {
        let event = serde_json::json!({ "kind": 1, "target": 0, "reason": 0 });
        host["events"]["waiting"] = vec![event; 65].into();
    });
}

#[test]
fn a_reset_brings_power_on_back() {
    let mut rig = Rig::new();
    rig.ask(CD, &[0x1b, 0, 0, 0, 2, 0]).good();
    rig.driver.pci.reset();
    let fresh = Rig::fresh(|_| {});
    fresh.driver.pci.pause();
    fresh.driver.pci.reset();
    assert_eq!(
        rig.driver.pci.save().unwrap(),
        fresh.driver.pci.save().unwrap()
    );
    rig.driver.enable_function();
    let [control, events, requests] = rig.driver.start(0, &[16, 16, 16]).try_into().ok().unwrap();
    (rig.control, rig.events, rig.requests) = (control, events, requests);
    for target in [DISK, READ_ONLY, CD] {
        rig.ask(target, &[0x00; 6]).check(6, 0x29, 0);
        rig.ask(target, &[0x00; 6]).good();
    }
    let mut command = [0; 2];
    rig.driver.pci.config_read(4, &mut command);
    assert_eq!(command, [6, 0]);
}

#[test]
fn targets_are_plugged_once() {
    let rig = Rig::new();
    let disk = || Some(FakeDisk::new(false) as Arc<dyn Disk>);
    let plug = |target, disk, kind| {
        let options = ScsiDiskOptions::new("x", kind);
        rig.scsi.plug(target, disk, &options).map(|_| ())
    };
    assert!(plug(DISK, disk(), ScsiKind::Disk).is_err());
    assert!(plug(64, disk(), ScsiKind::Disk).is_err());
    assert!(
        plug(1, None, ScsiKind::Disk).is_err(),
        "a disk without medium"
    );
    plug(1, None, ScsiKind::Cdrom).unwrap();
    rig.scsi.unplug(1).unwrap();
    assert!(rig.scsi.unplug(1).is_err());
    plug(1, disk(), ScsiKind::Disk).unwrap();
}

#[test]
fn each_request_queue_reaches_each_target() {
    let options = ScsiOptions {
        queues: 3,
        ..ScsiOptions::default()
    };
    let scsi = Arc::new(Scsi::new(&options).unwrap());
    for target in 0..2 {
        let disk = Some(FakeDisk::new(false) as Arc<dyn Disk>);
        let options = ScsiDiskOptions::new("sd", ScsiKind::Disk);
        scsi.plug(target, disk, &options).unwrap();
    }
    let driver = Driver::new(scsi);
    let mut queues = driver.start(0, &[8; 5]);
    for queue in &mut queues[2..] {
        for target in 0..2 {
            let mut request = lun(target, 0).to_vec();
            request.resize(19, 0);
            request.extend([0x12, 0, 0, 0, 36, 0]);
            request.resize(51, 0);
            driver.put(REQUEST, &request);
            let chain = [
                readable(REQUEST, 51),
                writable(ANSWER, 108),
                writable(DATA, 36),
            ];
            assert_eq!(queue.ask(&driver, &chain), 144);
        }
    }
}
