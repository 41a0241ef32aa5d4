use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use crate::lifecycle::{Device, RestoreError, SaveError};
use crate::pci::PciFunction;
use crate::virtio::driver::{
    BUFFERS_GPA, Buffer, Driver, DriverQueue, EVENT_IDX, INDIRECT, NEXT, NONE, WRITE, readable,
    writable,
};
use crate::virtio::spec::{capability, common, feature, status};
use crate::virtio::{
    ConfigChange, DeviceType, QueueWorker, RingError, Rings, Served, Turn, VirtioDevice, WorkerPlan,
};

const NO_EVENTS: u64 = EVENT_IDX;

/// Counts what it serves and writes the count into the writable half.
struct Counter {
    served: Arc<AtomicU32>,
}

impl QueueWorker for Counter {
    fn serve(&mut self, rings: &mut Rings, turn: &Turn<'_>) -> Result<(), RingError> {
        for ring in rings.enabled() {
            ring.drain(turn, |memory, chain| {
                let count = self.served.fetch_add(1, Ordering::SeqCst);
                let len = chain.writable.len_bytes().min(4);
                chain
                    .writable
                    .write(memory, 0, &count.to_le_bytes()[..len])?;
                Ok(Served::Used(u32::try_from(len).unwrap()))
            })?;
        }
        Ok(())
    }
}

/// A device with two queues, one worker each.
#[derive(Default)]
struct Probe {
    served: Arc<AtomicU32>,
    change: Mutex<Option<ConfigChange>>,
    config: Mutex<[u8; 8]>,
}

impl VirtioDevice for Probe {
    fn device_type(&self) -> DeviceType {
        DeviceType::ENTROPY
    }

    fn class(&self) -> [u8; 3] {
        [0, 0xff, 0]
    }

    fn features(&self) -> u64 {
        1 << 3
    }

    fn queue_sizes(&self) -> Vec<u16> {
        vec![16, 64]
    }

    fn take_workers(&self) -> Vec<WorkerPlan> {
        let plan = |queue: u16| WorkerPlan {
            suffix: format!("q{queue}"),
            queues: vec![queue],
            worker: Box::new(Counter {
                served: Arc::clone(&self.served),
            }),
            thread: None,
        };
        vec![plan(0), plan(1)]
    }

    fn config_read(&self, offset: u64, data: &mut [u8]) {
        crate::virtio::read_config(&*self.config.lock().unwrap(), offset, data);
    }

    fn config_write(&self, offset: u64, data: &[u8]) {
        let mut config = self.config.lock().unwrap();
        for (at, byte) in (usize::try_from(offset).unwrap()..).zip(data) {
            if let Some(slot) = config.get_mut(at) {
                *slot = *byte;
            }
        }
    }

    fn set_config_change(&self, change: ConfigChange) {
        *self.change.lock().unwrap() = Some(change);
    }
}

fn probe() -> (Arc<Probe>, Driver) {
    let probe = Arc::new(Probe::default());
    let driver = Driver::new(Arc::clone(&probe) as Arc<dyn VirtioDevice>);
    (probe, driver)
}

#[test]
fn identity_is_that_of_a_modern_device() {
    let (_probe, driver) = probe();
    assert_eq!(driver.config32(0x00), 0x1044_1af4);
    assert_eq!(driver.config8(0x08), 1, "revision");
    assert_eq!(driver.config32(0x2c), 0x0044_1af4, "subsystem");
    assert_eq!(driver.config8(0x3d), 1, "INTA#");
    assert_eq!(
        driver.config16(driver.msix_reg + 2) & 0x7ff,
        2,
        "three vectors"
    );
}

#[test]
fn the_status_only_grows_until_it_is_zeroed() {
    let (_probe, driver) = probe();
    driver.set_status(status::ACKNOWLEDGE);
    driver.set_status(status::DRIVER);
    assert_eq!(driver.status(), status::ACKNOWLEDGE | status::DRIVER);
    driver.set_status(status::FAILED | status::NEEDS_RESET);
    assert_eq!(
        driver.status(),
        0x83,
        "only the device says that it needs a reset"
    );
    driver.set_status(0);
    assert_eq!(driver.status(), 0);
}

#[test]
fn features_must_be_offered_and_modern() {
    let (_probe, driver) = probe();
    let cases = [
        (0, false, "legacy driver"),
        (feature::VERSION_1, true, "nothing else"),
        (feature::VERSION_1 | 1 << 3, true, "a device feature"),
        (feature::VERSION_1 | 1 << 4, false, "not offered"),
        (feature::VERSION_1 | 1 << 33, false, "no IOMMU"),
    ];
    for (features, good, why) in cases {
        driver.set_status(0);
        driver.set_status(status::ACKNOWLEDGE | status::DRIVER);
        driver.accept(features);
        driver.set_status(status::FEATURES_OK);
        assert_eq!(driver.status() & status::FEATURES_OK != 0, good, "{why}");
        driver.set_status(status::DRIVER_OK);
        assert_eq!(
            driver.status() & status::DRIVER_OK != 0,
            good,
            "{why}: DRIVER_OK"
        );
    }
}

#[test]
fn features_are_settled_by_features_ok() {
    let (_probe, driver) = probe();
    driver.negotiate(0);
    driver.accept(0);
    driver.set32(common::DRIVER_FEATURE_SELECT, 0);
    assert_ne!(driver.common32(common::DRIVER_FEATURE), 0);
    driver.set32(common::DEVICE_FEATURE_SELECT, 2);
    assert_eq!(driver.common32(common::DEVICE_FEATURE), 0, "no third word");
}

#[test]
fn queue_registers_hold_only_what_can_be() {
    let (_probe, driver) = probe();
    driver.negotiate(0);
    assert_eq!(driver.common16(common::NUM_QUEUES), 2);
    driver.set16(common::QUEUE_SELECT, 1);
    assert_eq!(driver.common16(common::QUEUE_SIZE), 64);
    for (size, expected) in [(32, 32), (0, 32), (33, 32), (128, 32), (64, 64), (1, 1)] {
        driver.set16(common::QUEUE_SIZE, size);
        assert_eq!(driver.common16(common::QUEUE_SIZE), expected, "size {size}");
    }
    for (vector, expected) in [(2, 2), (3, NONE), (0, 0), (NONE, NONE)] {
        driver.set16(common::QUEUE_MSIX_VECTOR, vector);
        assert_eq!(driver.common16(common::QUEUE_MSIX_VECTOR), expected);
        driver.set16(common::CONFIG_MSIX_VECTOR, vector);
        assert_eq!(driver.common16(common::CONFIG_MSIX_VECTOR), expected);
    }
    driver.set_addresses(0x1_2345_6780, 0x2_0000_1000, 0x3_0000_2000);
    let desc: [u8; 8] = driver.read(capability::COMMON, common::QUEUE_DESC);
    assert_eq!(u64::from_le_bytes(desc), 0x1_2345_6780);
    driver.write(
        capability::COMMON,
        common::QUEUE_DESC,
        &0x5000u64.to_le_bytes(),
    );
    assert_eq!(driver.common32(common::QUEUE_DESC), 0x5000);
    driver.set16(common::QUEUE_ENABLE, 1);
    driver.set16(common::QUEUE_SIZE, 8);
    driver.set32(common::QUEUE_DESC, 0x6000);
    driver.set16(common::QUEUE_ENABLE, 0);
    assert_eq!(driver.common16(common::QUEUE_SIZE), 1, "settled by enable");
    assert_eq!(
        driver.common32(common::QUEUE_DESC),
        0x5000,
        "settled by enable"
    );
    assert_eq!(driver.common16(common::QUEUE_ENABLE), 1, "not undone by 0");
    driver.set16(common::QUEUE_SELECT, 2);
    assert_eq!(driver.common16(common::QUEUE_SIZE), 0, "no such queue");
    driver.set16(common::QUEUE_ENABLE, 1);
    assert_eq!(driver.common16(common::QUEUE_ENABLE), 0);
}

#[test]
fn accesses_of_another_width_change_nothing() {
    let (_probe, driver) = probe();
    driver.set16(common::DEVICE_STATUS, 0x0101);
    driver.set32(common::DEVICE_STATUS, 1);
    driver.set8(common::QUEUE_SELECT, 1);
    driver.write(capability::COMMON, common::QUEUE_SIZE, &[8, 0, 0]);
    assert_eq!(driver.status(), 0);
    assert_eq!(driver.common16(common::QUEUE_SELECT), 0);
    assert_eq!(driver.common16(common::QUEUE_SIZE), 16);
    let mut data = [0xee; 8];
    driver.pci.bar_read(0, 0x7ffc, &mut data);
    assert_eq!(data, [0; 8], "nothing lies there");
    driver.pci.bar_read(3, 0, &mut data);
    driver.pci.bar_write(3, 0, &data);
    driver.pci.bar_write(0, u64::MAX, &data);
}

#[test]
fn used_buffers_send_the_queues_message() {
    let (_probe, driver) = probe();
    let mut queues = driver.start(NO_EVENTS, &[16, 64]);
    assert_eq!(queues[1].ask(&driver, &[writable(BUFFERS_GPA, 16)]), 4);
    driver.interrupts.expect_messages(&[2]);
    assert_eq!(queues[0].ask(&driver, &[writable(BUFFERS_GPA + 64, 2)]), 2);
    driver.interrupts.expect_messages(&[2, 1]);
    assert_eq!(driver.bytes(BUFFERS_GPA, 4), [0, 0, 0, 0]);
    assert_eq!(driver.bytes(BUFFERS_GPA + 64, 2), [1, 0]);
    assert_eq!(driver.isr(), 0, "no ISR status beside MSI-X");
    assert!(driver.interrupts.levels().is_empty(), "no pin beside MSI-X");
}

#[test]
fn without_msix_the_isr_status_drives_the_pin() {
    let (probe, driver) = probe();
    driver.negotiate(0);
    let mut queue = driver.queue(0, 16);
    driver.driver_ok();
    queue.ask(&driver, &[writable(BUFFERS_GPA, 4)]);
    driver.interrupts.expect_levels(&[true]);
    assert_ne!(driver.config16(0x06) & 8, 0, "interrupt status");
    assert_eq!(driver.isr(), 1);
    assert_eq!(driver.isr(), 0, "cleared by the read");
    assert_eq!(driver.config16(0x06) & 8, 0);
    driver.interrupts.expect_levels(&[true, false]);
    probe.change.lock().unwrap().as_ref().unwrap().report();
    driver.interrupts.expect_levels(&[true, false, true]);
    assert_eq!(driver.isr(), 2, "configuration change");
    driver.interrupts.expect_levels(&[true, false, true, false]);
    driver.pci.config_write(0x04, &0x0406u16.to_le_bytes());
    queue.ask(&driver, &[writable(BUFFERS_GPA, 4)]);
    driver
        .interrupts
        .wait_until(|| driver.config16(0x06) & 8 != 0);
    driver.pci.pause();
    assert_eq!(driver.interrupts.levels().len(), 4, "interrupt disable");
    driver.pci.config_write(0x04, &0x0006u16.to_le_bytes());
    driver
        .interrupts
        .expect_levels(&[true, false, true, false, true]);
}

#[test]
fn a_driver_can_do_without_interrupts() {
    let (_probe, driver) = probe();
    let mut queues = driver.start(NO_EVENTS, &[16]);
    driver.put(queues[0].avail_gpa, &1u16.to_le_bytes());
    queues[0].ask(&driver, &[writable(BUFFERS_GPA, 4)]);
    driver.pci.pause();
    assert!(driver.interrupts.messages().is_empty());
}

#[test]
fn configuration_changes_count_the_generation_up() {
    let (probe, driver) = probe();
    let generation = || driver.common8(common::CONFIG_GENERATION);
    let before = generation();
    let change = probe.change.lock().unwrap().clone().unwrap();
    change.report();
    assert_eq!(generation(), before + 1);
    assert_eq!(driver.isr(), 0, "no interrupt before DRIVER_OK");
    driver.start(0, &[16]);
    change.report();
    assert_eq!(driver.interrupts.messages(), [0]);
    driver.write(capability::DEVICE, 2, &[7, 8]);
    assert_eq!(driver.device_config::<8>(0), [0, 0, 7, 8, 0, 0, 0, 0]);
}

#[test]
fn configuration_space_reaches_the_structures() {
    let (_probe, driver) = probe();
    let window = |offset: u32, len: u32| {
        driver.pci.config_write(driver.pci_cfg_reg + 4, &[0]);
        driver
            .pci
            .config_write(driver.pci_cfg_reg + 8, &offset.to_le_bytes());
        driver
            .pci
            .config_write(driver.pci_cfg_reg + 12, &len.to_le_bytes());
    };
    let data = driver.pci_cfg_reg + 16;
    window(0x14, 1);
    driver.pci.config_write(data, &[status::ACKNOWLEDGE]);
    assert_eq!(driver.status(), status::ACKNOWLEDGE);
    assert_eq!(driver.config32(data) & 0xff, u32::from(status::ACKNOWLEDGE));
    window(0x12, 2);
    assert_eq!(driver.config32(data) & 0xffff, 2, "number of queues");
    window(0x04, 4);
    assert_ne!(driver.config32(data), 0, "features");
    for (offset, len) in [(0x14, 3), (0x8000, 4), (u32::MAX, 4), (0x13, 2), (0x14, 0)] {
        window(offset, len);
        driver.pci.config_write(data, &[0; 4]);
        assert_eq!(driver.status(), status::ACKNOWLEDGE, "{offset:#x}+{len}");
    }
}

#[test]
fn nothing_runs_without_bus_mastering() {
    let (probe, driver) = probe();
    let mut queues = driver.start(0, &[16]);
    driver.pci.config_write(0x04, &0x0002u16.to_le_bytes());
    queues[0].submit(&driver, &[writable(BUFFERS_GPA, 4)]);
    assert_eq!(probe.served.load(Ordering::SeqCst), 0);
    driver.pci.config_write(0x04, &0x0006u16.to_le_bytes());
    queues[0].wait_used(&driver);
}

#[test]
fn a_kernel_may_signal_the_notification() {
    let (_probe, driver) = probe();
    let mut queues = driver.start(0, &[16, 64]);
    let events = driver.pci.notify_eventfds().unwrap();
    assert_eq!(
        events.iter().map(|event| event.0).collect::<Vec<_>>(),
        [0x3000, 0x3004]
    );
    let head = queues[1].put_chain(&driver, &[writable(BUFFERS_GPA, 4)]);
    queues[1].offer(&driver, head);
    events[1].1.write(1).unwrap();
    queues[1].wait_used(&driver);
}

#[test]
fn one_queue_can_be_reset_and_used_again() {
    let (_probe, driver) = probe();
    let mut queues = driver.start(0, &[8, 8]);
    for _ in 0..5 {
        queues[0].ask(&driver, &[writable(BUFFERS_GPA, 4)]);
        queues[1].ask(&driver, &[writable(BUFFERS_GPA, 4)]);
    }
    driver.set16(common::QUEUE_SELECT, 0);
    driver.set16(common::QUEUE_RESET, 1);
    assert_eq!(driver.common16(common::QUEUE_RESET), 0, "done");
    assert_eq!(driver.common16(common::QUEUE_ENABLE), 0);
    assert_eq!(
        driver.common16(common::QUEUE_SIZE),
        16,
        "largest size again"
    );
    queues[1].ask(&driver, &[writable(BUFFERS_GPA, 4)]);
    let mut queue = driver.queue(0, 16);
    assert_eq!(driver.common16(common::QUEUE_ENABLE), 1);
    queue.ask(&driver, &[writable(BUFFERS_GPA, 4)]);
}

#[test]
fn queue_reset_must_be_agreed_on() {
    let (_probe, driver) = probe();
    driver.start(feature::RING_RESET, &[8]);
    driver.set16(common::QUEUE_SELECT, 0);
    driver.set16(common::QUEUE_RESET, 1);
    assert_eq!(driver.common16(common::QUEUE_ENABLE), 1);
}

#[test]
fn indirect_tables_continue_a_chain() {
    let (_probe, driver) = probe();
    let mut queues = driver.start(0, &[8]);
    let table = BUFFERS_GPA + 0x1000;
    let (first, last) = (readable(BUFFERS_GPA, 8), writable(BUFFERS_GPA + 64, 4));
    let first = Buffer {
        flags: NEXT,
        ..first
    };
    DriverQueue::put_descriptor(&driver, table, 0, first, 3);
    DriverQueue::put_descriptor(&driver, table, 3, last, 0);
    let indirect = Buffer {
        gpa: table,
        len: 64,
        flags: INDIRECT,
    };
    assert_eq!(queues[0].ask(&driver, &[indirect]), 4);
}

/// Lays out one hostile request in a fresh queue.
type Mischief = fn(&Driver, &mut DriverQueue);

#[test]
fn hostile_rings_need_a_reset_and_do_no_more() {
    let cases: [(&str, Mischief); 12] = [
        ("a descriptor that follows itself", |driver, queue| {
            let buffer = Buffer {
                flags: WRITE | NEXT,
                ..writable(BUFFERS_GPA, 4)
            };
            DriverQueue::put_descriptor(driver, queue.desc_gpa, 0, buffer, 0);
            queue.offer(driver, 0);
        }),
        ("a longer loop", |driver, queue| {
            for at in 0..4 {
                let buffer = Buffer {
                    flags: NEXT,
                    ..readable(BUFFERS_GPA, 4)
                };
                DriverQueue::put_descriptor(driver, queue.desc_gpa, at, buffer, (at + 1) % 4);
            }
            queue.offer(driver, 0);
        }),
        ("a next descriptor outside the table", |driver, queue| {
            let buffer = Buffer {
                flags: NEXT,
                ..readable(BUFFERS_GPA, 4)
            };
            DriverQueue::put_descriptor(driver, queue.desc_gpa, 0, buffer, 99);
            queue.offer(driver, 0);
        }),
        ("a head outside the table", |driver, queue| {
            queue.offer(driver, 0x4000);
        }),
        ("a buffer outside memory", |driver, queue| {
            let head = queue.put_chain(driver, &[writable(0x4000_0000, 4)]);
            queue.offer(driver, head);
        }),
        ("a buffer around the end of addresses", |driver, queue| {
            let head = queue.put_chain(driver, &[writable(u64::MAX - 3, 64)]);
            queue.offer(driver, head);
        }),
        ("a buffer of 4 GiB", |driver, queue| {
            let head = queue.put_chain(driver, &[writable(BUFFERS_GPA, u32::MAX)]);
            queue.offer(driver, head);
        }),
        (
            "a readable buffer behind a writable one",
            |driver, queue| {
                let chain = [writable(BUFFERS_GPA, 4), readable(BUFFERS_GPA, 4)];
                let head = queue.put_chain(driver, &chain);
                queue.offer(driver, head);
            },
        ),
        ("an indirect table outside memory", |driver, queue| {
            let table = Buffer {
                gpa: 0x4000_0000,
                len: 64,
                flags: INDIRECT,
            };
            let head = queue.put_chain(driver, &[table]);
            queue.offer(driver, head);
        }),
        ("an indirect table of no descriptors", |driver, queue| {
            let table = Buffer {
                gpa: BUFFERS_GPA,
                len: 0,
                flags: INDIRECT,
            };
            let head = queue.put_chain(driver, &[table]);
            queue.offer(driver, head);
        }),
        ("an indirect table in an indirect table", |driver, queue| {
            let table = Buffer {
                gpa: BUFFERS_GPA,
                len: 16,
                flags: INDIRECT,
            };
            DriverQueue::put_descriptor(driver, BUFFERS_GPA, 0, table, 0);
            let head = queue.put_chain(driver, &[table]);
            queue.offer(driver, head);
        }),
        ("more chains than the ring holds", |driver, queue| {
            queue.put_chain(driver, &[writable(BUFFERS_GPA, 4)]);
            driver.put(queue.avail_gpa + 2, &500u16.to_le_bytes());
        }),
    ];
    let (probe, driver) = probe();
    for (round, (name, mischief)) in (1..).zip(cases) {
        let mut queues = driver.start(0, &[16, 16]);
        queues[1].ask(&driver, &[writable(BUFFERS_GPA, 4)]);
        let served = probe.served.load(Ordering::SeqCst);
        mischief(&driver, &mut queues[0]);
        driver.notify(0);
        driver.wait_for_needs_reset();
        let told = || {
            let messages = driver.interrupts.messages();
            messages.iter().filter(|vector| **vector == 0).count() == round
        };
        driver.interrupts.wait_until(told);
        assert_eq!(queues[0].take_used(&driver), None, "{name}");
        assert_eq!(probe.served.load(Ordering::SeqCst), served, "{name}");
    }
}

#[test]
fn rings_outside_memory_need_a_reset() {
    let (_probe, driver) = probe();
    let cases = [
        (0x4000_0000, 0x2000, 0x3000),
        (0x1000, u64::MAX - 1, 0x3000),
        (0x1000, 0x2000, 0xffff_ffff_ffff_fffc),
        (0x1008, 0x2000, 0x3000),
        (0x1000, 0x2001, 0x3000),
        (0x1000, 0x2000, 0x3002),
    ];
    for (desc_gpa, avail_gpa, used_gpa) in cases {
        driver.negotiate(0);
        driver.set16(common::QUEUE_SELECT, 0);
        driver.set_addresses(desc_gpa, avail_gpa, used_gpa);
        driver.set16(common::QUEUE_ENABLE, 1);
        driver.driver_ok();
        assert_ne!(driver.status() & status::NEEDS_RESET, 0, "{desc_gpa:#x}");
    }
    let mut queues = driver.start(0, &[16]);
    queues[0].ask(&driver, &[writable(BUFFERS_GPA, 4)]);
}

#[test]
fn a_paused_device_is_saved_and_goes_on_elsewhere() {
    let (_probe, driver) = probe();
    let mut queues = driver.start(0, &[8, 8]);
    for _ in 0..11 {
        queues[0].ask(&driver, &[writable(BUFFERS_GPA, 4)]);
    }
    assert!(matches!(driver.pci.save(), Err(SaveError::Busy { .. })));
    driver.pci.pause();
    queues[0].submit(&driver, &[writable(BUFFERS_GPA, 4)]);
    let saved = driver.pci.save().unwrap();
    let target = Arc::new(Probe::default());
    let elsewhere = Driver::with_memory(target, driver.memory.clone());
    elsewhere.pci.pause();
    elsewhere.pci.restore(&saved).unwrap();
    assert_eq!(
        elsewhere.pci.save().unwrap(),
        saved,
        "saved again, it is the same"
    );
    elsewhere.pci.resume();
    queues[0].wait_used(&elsewhere);
    elsewhere.interrupts.expect_messages(&[1]);
    assert_eq!(driver.pci.save().unwrap(), saved, "the source stays paused");
}

#[test]
fn a_foreign_state_is_refused_and_changes_nothing() {
    let (_probe, driver) = probe();
    driver.start(0, &[8, 8]);
    driver.pci.pause();
    let saved = driver.pci.save().unwrap();
    let refused = |change: fn(&mut serde_json::Value)| {
        let mut bad = saved.clone();
        change(&mut bad.data);
        assert!(driver.pci.restore(&bad).is_err(), "{}", bad.data);
        assert_eq!(driver.pci.save().unwrap(), saved);
    };
    refused(|data| data["registers"]["queues"][0]["size"] = 3.into());
    refused(|data| data["registers"]["queues"][0]["max_size"] = 32.into());
    refused(|data| data["registers"]["queues"][0]["vector"] = 3.into());
    refused(|data| data["registers"]["driver_features"] = 1.into());
    refused(|data| data["registers"]["status"] = 0x4f.into());
    refused(|data| data["registers"]["queues"] = serde_json::json!([]));
    refused(|data| data["workers"] = serde_json::json!([null]));
    refused(|data| data["surprise"] = 1.into());
    let mut other = saved.clone();
    other.kind = "virtio-2".to_owned();
    let kind = driver.pci.restore(&other);
    assert!(matches!(kind, Err(RestoreError::Kind { .. })));
}

#[test]
fn power_on_reset_forgets_everything() {
    let (_probe, driver) = probe();
    driver.pci.pause();
    let fresh = Driver::new(Arc::new(Probe::default()));
    fresh.pci.reset();
    let expected = fresh.pci.save().unwrap();
    driver.pci.resume();
    let mut queues = driver.start(0, &[8, 8]);
    queues[0].ask(&driver, &[writable(BUFFERS_GPA, 4)]);
    driver.pci.reset();
    assert_eq!(driver.pci.save().unwrap(), expected);
    driver.enable_function();
    let mut queues = driver.start(0, &[8, 8]);
    queues[0].ask(&driver, &[writable(BUFFERS_GPA, 4)]);
}

#[test]
fn pausing_under_load_loses_no_request() {
    const ROUNDS: u32 = 200;
    let (probe, driver) = probe();
    let mut queues = driver.start(0, &[16]);
    let queue = &mut queues[0];
    let mut done = 0;
    for round in 0..ROUNDS {
        for _ in 0..8 {
            let head = queue.put_chain(&driver, &[writable(BUFFERS_GPA, 4)]);
            queue.offer(&driver, head);
        }
        driver.notify(0);
        driver.pci.pause();
        let quiet = probe.served.load(Ordering::SeqCst);
        driver.notify(0);
        assert!(quiet <= (round + 1) * 8);
        assert_eq!(
            probe.served.load(Ordering::SeqCst),
            quiet,
            "served while paused"
        );
        driver.pci.resume();
        for _ in 0..8 {
            queue.wait_used(&driver);
            done += 1;
        }
    }
    assert_eq!(done, ROUNDS * 8);
    assert_eq!(probe.served.load(Ordering::SeqCst), ROUNDS * 8);
}
