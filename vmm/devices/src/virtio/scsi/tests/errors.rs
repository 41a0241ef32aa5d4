//! What becomes of requests that the host refuses.

use std::sync::atomic::Ordering;

use super::*;
use crate::lifecycle::Device;

#[test]
fn a_refusal_is_reported_as_what_it_is() {
    let mut rig = Rig::new();
    rig.disk.fails.store(true, Ordering::SeqCst);
    rig.ask_out(DISK, &write_10(4, 1), &[1; 512])
        .check(7, 0x27, 7);
    rig.disk.fails.store(false, Ordering::SeqCst);
    rig.disk.breaks.store(true, Ordering::SeqCst);
    rig.ask_in(DISK, &read_10(4, 1), 512).check(3, 0x11, 0);
    rig.ask_out(DISK, &write_10(4, 1), &[1; 512])
        .check(3, 0x0c, 0);
    let refused = rig.refused.lock().unwrap();
    assert_eq!(refused.len(), 3);
    assert_eq!(
        (refused[0].device.as_str(), refused[0].offset),
        ("sda", 2048)
    );
    assert!(refused[0].no_space && !refused[0].stopped);
    assert_eq!(rig.disk_handle.counters().read().errors, 3);
}

#[test]
fn an_ignored_refusal_is_success_for_the_guest() {
    let mut rig = Rig::with_policy(ErrorPolicy::Ignore);
    rig.disk.fails.store(true, Ordering::SeqCst);
    rig.ask_out(DISK, &write_10(4, 1), &[1; 512]).good();
    assert_eq!(rig.refused.lock().unwrap().len(), 1);
}

#[test]
fn only_a_full_host_stops_where_that_was_asked_for() {
    let mut rig = Rig::with_policy(ErrorPolicy::StopOnEnospc);
    rig.disk.breaks.store(true, Ordering::SeqCst);
    rig.ask_in(DISK, &read_10(4, 1), 512).check(3, 0x11, 0);
}

/// Submits a write that the host refuses and waits until it is kept.
fn keep_a_write(rig: &mut Rig) {
    rig.disk.fails.store(true, Ordering::SeqCst);
    rig.put_request(lun(DISK, 0), &write_10(4, 1));
    rig.driver.put(DATA, &pattern(512, 2));
    let chain = [
        readable(REQUEST, 51),
        readable(DATA, 512),
        writable(ANSWER, 108),
    ];
    rig.requests.submit(&rig.driver, &chain);
    let refused = Arc::clone(&rig.refused);
    rig.driver
        .interrupts
        .wait_until(|| !refused.lock().unwrap().is_empty());
    assert!(rig.refused.lock().unwrap()[0].stopped);
}

#[test]
fn a_kept_request_is_done_after_resume() {
    for policy in [ErrorPolicy::Stop, ErrorPolicy::StopOnEnospc] {
        let mut rig = Rig::with_policy(policy);
        keep_a_write(&mut rig);
        rig.driver.notify(2);
        rig.driver.pci.pause();
        assert_eq!(rig.requests.take_used(&rig.driver), None, "still kept");
        // The host is still full: it is tried once and kept again.
        rig.driver.pci.resume();
        let refused = Arc::clone(&rig.refused);
        rig.driver
            .interrupts
            .wait_until(|| refused.lock().unwrap().len() == 2);
        rig.driver.pci.pause();
        rig.disk.fails.store(false, Ordering::SeqCst);
        rig.driver.pci.resume();
        let (_, written) = rig.requests.wait_used(&rig.driver);
        rig.reply(written, 0).good();
        assert_eq!(rig.disk.bytes.lock().unwrap()[2048..2560], pattern(512, 2));
        let counts = rig.disk_handle.counters().read();
        assert_eq!((counts.write_requests, counts.errors), (1, 2));
    }
}

#[test]
fn a_kept_request_moves_with_the_machine() {
    let mut rig = Rig::with_policy(ErrorPolicy::Stop);
    keep_a_write(&mut rig);
    rig.driver.pci.pause();
    let saved = rig.driver.pci.save().unwrap();
    let mut other = Rig::with_policy(ErrorPolicy::Stop);
    other.driver.pci.pause();
    other.driver.put(0, &rig.driver.bytes(0, 2 << 20));
    other.driver.pci.restore(&saved).unwrap();
    other.requests = rig.requests;
    other.driver.pci.resume();
    let (_, written) = other.requests.wait_used(&other.driver);
    other.reply(written, 0).good();
    assert_eq!(
        other.disk.bytes.lock().unwrap()[2048..2560],
        pattern(512, 2)
    );
    assert!(other.refused.lock().unwrap().is_empty());
}

#[test]
fn a_reset_forgets_a_kept_request() {
    let mut rig = Rig::with_policy(ErrorPolicy::Stop);
    keep_a_write(&mut rig);
    rig.driver.pci.pause();
    rig.driver.pci.reset();
    rig.disk.fails.store(false, Ordering::SeqCst);
    rig.driver.pci.resume();
    rig.driver.enable_function();
    let [control, events, requests] = rig.driver.start(0, &[16, 16, 16]).try_into().ok().unwrap();
    (rig.control, rig.events, rig.requests) = (control, events, requests);
    rig.ask(DISK, &[0x00; 6]).check(6, 0x29, 0);
    rig.ask_in(DISK, &read_10(4, 1), 512).good();
    assert_eq!(rig.disk.bytes.lock().unwrap()[2048], 0, "it was not done");
}
