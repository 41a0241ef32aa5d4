//! Commands as a driver gives them.

mod blocks;
mod control;
mod disc;
mod errors;
mod host;
mod pages;

use std::sync::{Arc, Mutex};

use block::Disk;

use super::{Scsi, ScsiDiskOptions, ScsiKind, ScsiOptions};
use crate::virtio::disk::fake::FakeDisk;
use crate::virtio::disk::{DiskEvent, DiskHandle, ErrorPolicy};
use crate::virtio::driver::{BUFFERS_GPA, Driver, DriverQueue, readable, writable};

const REQUEST: u64 = BUFFERS_GPA;
const ANSWER: u64 = BUFFERS_GPA + 0x400;
const DATA: u64 = BUFFERS_GPA + 0x1000;

/// What the target answered.
#[derive(Debug, PartialEq, Eq)]
struct Reply {
    response: u8,
    status: u8,
    /// Sense key, additional sense code and qualifier.
    sense: Option<(u8, u8, u8)>,
    residual: u32,
    data: Vec<u8>,
    written: u32,
}

impl Reply {
    /// Expects GOOD; returns the data.
    fn good(self) -> Vec<u8> {
        assert_eq!((self.response, self.status, self.sense), (0, 0, None));
        self.data
    }

    /// Expects CHECK CONDITION with this sense key, code and qualifier.
    fn check(&self, key: u8, asc: u8, ascq: u8) {
        assert_eq!((self.response, self.status), (0, 2));
        assert_eq!(self.sense, Some((key, asc, ascq)));
    }
}

/// A host with a disk as target 0, a read-only disk as target 3 and a CD-ROM drive as target 5.
struct Rig {
    driver: Driver,
    scsi: Arc<Scsi>,
    control: DriverQueue,
    events: DriverQueue,
    requests: DriverQueue,
    disk: Arc<FakeDisk>,
    disc: Arc<FakeDisk>,
    disk_handle: DiskHandle,
    cd_handle: DiskHandle,
    refused: Arc<Mutex<Vec<DiskEvent>>>,
    ejected: Arc<Mutex<Vec<String>>>,
}

const DISK: u8 = 0;
const READ_ONLY: u8 = 3;
const CD: u8 = 5;

fn disk_options(change: impl FnOnce(&mut ScsiDiskOptions)) -> ScsiDiskOptions {
    let mut options = ScsiDiskOptions::new("sda", ScsiKind::Disk);
    options.serial = "serial-1".to_owned();
    change(&mut options);
    options
}

impl Rig {
    fn new() -> Self {
        Self::with(|_| {})
    }

    fn with_policy(policy: ErrorPolicy) -> Self {
        Self::with(|options| options.policy = policy)
    }

    /// Makes the host with a changed disk; all features are agreed on and power-on is told.
    fn with(change: impl FnOnce(&mut ScsiDiskOptions)) -> Self {
        let mut rig = Self::fresh(change);
        for target in [DISK, READ_ONLY, CD] {
            rig.ask(target, &[0x00; 6]).check(6, 0x29, 0);
        }
        rig
    }

    fn fresh(change: impl FnOnce(&mut ScsiDiskOptions)) -> Self {
        let scsi = Arc::new(Scsi::new(&ScsiOptions::default()).unwrap());
        let refused = Arc::new(Mutex::new(Vec::new()));
        let ejected = Arc::new(Mutex::new(Vec::new()));
        let (log, ejections) = (Arc::clone(&refused), Arc::clone(&ejected));
        let mut options = disk_options(change);
        options.on_error = Arc::new(move |event| log.lock().unwrap().push(event));
        let (disk, disc) = (FakeDisk::new(false), FakeDisk::new(true));
        let fixed = FakeDisk::new(true);
        let disk_handle = scsi
            .plug(DISK, Some(Arc::clone(&disk) as Arc<dyn Disk>), &options)
            .unwrap();
        let read_only = ScsiDiskOptions::new("sdb", ScsiKind::Disk);
        scsi.plug(READ_ONLY, Some(fixed), &read_only).unwrap();
        let mut cd = ScsiDiskOptions::new("sr0", ScsiKind::Cdrom);
        cd.on_eject = Arc::new(move |name| ejections.lock().unwrap().push(name.to_owned()));
        let cd_handle = scsi
            .plug(CD, Some(Arc::clone(&disc) as Arc<dyn Disk>), &cd)
            .unwrap();
        let driver = Driver::new(Arc::clone(&scsi) as Arc<_>);
        let queues = driver.start(0, &[16, 16, 16]);
        let [control, events, requests] = queues.try_into().ok().unwrap();
        Self {
            driver,
            scsi,
            control,
            events,
            requests,
            disk,
            disc,
            disk_handle,
            cd_handle,
            refused,
            ejected,
        }
    }

    /// Writes the fields before the data: unit, identifier, attribute and CDB.
    fn put_request(&self, lun: [u8; 8], cdb: &[u8]) {
        let mut request = lun.to_vec();
        request.extend(77u64.to_le_bytes());
        request.extend([0, 0, 0]);
        request.extend(cdb);
        request.resize(19 + 32, 0);
        self.driver.put(REQUEST, &request);
        self.driver.put(ANSWER, &[0xee; 108]);
    }

    fn reply(&self, written: u32, data_in: u32) -> Reply {
        let answer = self.driver.bytes(ANSWER, 108);
        let word = |at: usize| u32::from_le_bytes(*answer[at..].first_chunk().unwrap());
        let data = if written > 108 {
            let given = usize::try_from(written.min(108 + data_in) - 108).unwrap();
            self.driver.bytes(DATA, given)
        } else {
            Vec::new()
        };
        let sense = match word(0) {
            0 => None,
            18 => Some((answer[12 + 2], answer[12 + 12], answer[12 + 13])),
            other => panic!("sense_len {other}"),
        };
        if sense.is_some() {
            assert_eq!(answer[12], 0x70, "current sense data in fixed format");
        }
        Reply {
            response: answer[11],
            status: answer[10],
            sense,
            residual: word(4),
            data,
            written,
        }
    }

    fn ask_lun(&mut self, lun: [u8; 8], cdb: &[u8], data_out: &[u8], data_in: u32) -> Reply {
        self.put_request(lun, cdb);
        let mut chain = vec![readable(REQUEST, 51)];
        if !data_out.is_empty() {
            self.driver.put(DATA, data_out);
            chain.push(readable(DATA, u32::try_from(data_out.len()).unwrap()));
        }
        chain.push(writable(ANSWER, 108));
        if data_in > 0 {
            chain.push(writable(DATA, data_in));
        }
        let written = self.requests.ask(&self.driver, &chain);
        self.reply(written, data_in)
    }

    /// Gives a command without data.
    fn ask(&mut self, target: u8, cdb: &[u8]) -> Reply {
        self.ask_lun(lun(target, 0), cdb, &[], 0)
    }

    /// Gives a command that reads.
    fn ask_in(&mut self, target: u8, cdb: &[u8], data_in: u32) -> Reply {
        self.ask_lun(lun(target, 0), cdb, &[], data_in)
    }

    /// Gives a command that writes.
    fn ask_out(&mut self, target: u8, cdb: &[u8], data_out: &[u8]) -> Reply {
        self.ask_lun(lun(target, 0), cdb, data_out, 0)
    }

    /// Gives a control request; returns the answer's bytes.
    fn control(&mut self, request: &[u8], answer_bytes: u32) -> Vec<u8> {
        self.driver.put(REQUEST, request);
        let len = u32::try_from(request.len()).unwrap();
        let chain = [readable(REQUEST, len), writable(ANSWER, answer_bytes)];
        let written = self.control.ask(&self.driver, &chain);
        self.driver.bytes(ANSWER, usize::try_from(written).unwrap())
    }

    fn offer_event_buffer(&mut self) {
        self.events
            .submit(&self.driver, &[writable(DATA + 0x8000, 16)]);
    }

    /// Waits for an event in the buffer that was offered: kind, target and reason.
    fn event(&mut self) -> (u32, u8, u32) {
        let (_, written) = self.events.wait_used(&self.driver);
        assert_eq!(written, 16);
        let bytes = self.driver.bytes(DATA + 0x8000, 16);
        let word = |at: usize| u32::from_le_bytes(*bytes[at..].first_chunk().unwrap());
        // A Linux driver takes these bytes for the number itself, without a form of addressing.
        assert_eq!(bytes[6..12], [0; 6], "unit 0");
        (word(0), bytes[5], word(12))
    }
}

/// Makes the number of a unit: 1, target, single level number.
fn lun(target: u8, unit: u16) -> [u8; 8] {
    let [high, low] = unit.to_be_bytes();
    [1, target, 0x40 | high, low, 0, 0, 0, 0]
}

fn read_10(lba: u32, blocks: u16) -> [u8; 10] {
    transfer_10(0x28, 0, lba, blocks)
}

fn write_10(lba: u32, blocks: u16) -> [u8; 10] {
    transfer_10(0x2a, 0, lba, blocks)
}

fn transfer_10(op: u8, flags: u8, lba: u32, blocks: u16) -> [u8; 10] {
    let [l0, l1, l2, l3] = lba.to_be_bytes();
    let [b0, b1] = blocks.to_be_bytes();
    [op, flags, l0, l1, l2, l3, 0, b0, b1, 0]
}

fn transfer_16(op: u8, flags: u8, lba: u64, blocks: u32) -> Vec<u8> {
    let mut cdb = vec![op, flags];
    cdb.extend(lba.to_be_bytes());
    cdb.extend(blocks.to_be_bytes());
    cdb.extend([0, 0]);
    cdb
}

fn pattern(len: usize, seed: usize) -> Vec<u8> {
    (0..len)
        .map(|at| u8::try_from((at * 7 + seed + at / 512) % 251).unwrap())
        .collect()
}
