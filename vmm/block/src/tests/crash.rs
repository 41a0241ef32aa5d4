//! Power failures: what a flush promised is there, and the tables have at most leaks.
//!
//! Every change to the file is recorded. A crash keeps what came before the last sync, and of what
//! came after it any part.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::{dir, image, pattern, peer, read};
use crate::host_file::HostFile;
use crate::host_file::journal::Step;
use crate::qcow2::{Header, Layout, Qcow2Disk, Setup, create};
use crate::{Disk, OpenOptions, open};

const LEN: u64 = 2 << 20;
/// Stands for a byte that may be zero or what it was.
const UNKNOWN: u16 = 0x100;

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// A request: the steps recorded before it began, and what it touched.
struct Done {
    began: usize,
    touched: std::ops::Range<usize>,
}

/// A flush that succeeded: the steps recorded until then, the requests before it, and the content.
struct Promise {
    step: usize,
    requests: usize,
    content: Vec<u16>,
}

struct History {
    steps: Vec<Step>,
    requests: Vec<Done>,
    promises: Vec<Promise>,
}

/// Sends random requests to an image and records what happens to the file.
fn record(path: &Path, random: &mut Random) -> History {
    let file = HostFile::open(path, false, false).unwrap();
    let header = Header::read(&file).unwrap();
    let journal = std::sync::Arc::clone(&file.journal);
    *journal.steps.lock().unwrap() = Some(Vec::new());
    let setup = Setup {
        backing: None,
        read_only: false,
        writethrough: false,
        depth: 0,
    };
    let disk = Qcow2Disk::new(file, &header, setup).unwrap();
    let steps = || journal.steps.lock().unwrap().as_ref().unwrap().len();
    let mut content = vec![0u16; LEN as usize];
    let mut requests = Vec::new();
    let mut promises = vec![Promise {
        step: 0,
        requests: 0,
        content: content.clone(),
    }];
    for seed in 0..60 {
        let offset = random.below(LEN);
        let bound = if random.below(3) == 0 {
            300_000
        } else {
            20_000
        };
        let len = random.below(bound).min(LEN - offset);
        let touched = offset as usize..(offset + len) as usize;
        requests.push(Done {
            began: steps(),
            touched: touched.clone(),
        });
        match random.below(8) {
            0 => {
                disk.discard(offset, len).unwrap();
                content[touched]
                    .iter_mut()
                    .filter(|b| **b != 0)
                    .for_each(|b| *b = UNKNOWN);
            }
            1 => {
                disk.write_zeroes(offset, len, random.below(2) == 0)
                    .unwrap();
                content[touched].fill(0);
            }
            2 => {
                disk.flush().unwrap();
                let (requests, content) = (requests.len(), content.clone());
                promises.push(Promise {
                    step: steps(),
                    requests,
                    content,
                });
            }
            _ => {
                let bytes = pattern(seed, len as usize);
                disk.write_at(offset, &bytes).unwrap();
                let new = bytes.iter().map(|byte| u16::from(*byte));
                content[touched]
                    .iter_mut()
                    .zip(new)
                    .for_each(|(old, new)| *old = new);
            }
        }
    }
    drop(disk);
    let steps = journal.steps.lock().unwrap().take().unwrap();
    History {
        steps,
        requests,
        promises,
    }
}

fn replay(file: &File, step: &Step) {
    match step {
        Step::Write { offset, bytes } => file.write_all_at(bytes, *offset).unwrap(),
        Step::SetLen { len_bytes } => file.set_len(*len_bytes).unwrap(),
        Step::Sync => {}
        Step::Zero { offset, len_bytes } => {
            let inside = file
                .metadata()
                .unwrap()
                .len()
                .saturating_sub(*offset)
                .min(*len_bytes);
            file.write_all_at(&vec![0; inside as usize], *offset)
                .unwrap();
        }
    }
}

/// Writes the file that a crash after the first `crash` steps leaves.
fn crashed(path: &Path, start: &[u8], steps: &[Step], random: &mut Random) {
    std::fs::write(path, start).unwrap();
    let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    let synced = steps
        .iter()
        .rposition(|step| matches!(step, Step::Sync))
        .unwrap_or(0);
    let (certain, uncertain) = steps.split_at(synced);
    certain.iter().for_each(|step| replay(&file, step));
    for step in uncertain {
        if random.below(2) == 0 {
            replay(&file, step);
        }
    }
}

fn check_promise(disk: &dyn Disk, history: &History, crash: usize) {
    let promise = history
        .promises
        .iter()
        .rfind(|promise| promise.step <= crash)
        .unwrap();
    let mut expected = promise.content.clone();
    for request in history.requests[promise.requests..]
        .iter()
        .filter(|r| r.began <= crash)
    {
        expected[request.touched.clone()].fill(UNKNOWN);
    }
    let now = read(disk, 0, LEN as usize);
    let broken = now
        .iter()
        .zip(&expected)
        .position(|(now, expected)| *expected != UNKNOWN && *expected != u16::from(*now));
    assert_eq!(
        broken, None,
        "byte that a flush had promised, after {crash} steps"
    );
}

#[test]
fn a_power_failure_leaves_leaks_at_most_and_breaks_no_promise() {
    for (seed, (cluster_bits, refcount_order)) in
        [(9, 4), (9, 6), (12, 4), (16, 4)].into_iter().enumerate()
    {
        let dir = dir();
        let mut random = Random(seed as u64);
        let path = image(&dir, "disk.qcow2");
        create(
            &path,
            LEN,
            &Layout {
                cluster_bits,
                refcount_order,
            },
        )
        .unwrap();
        let start = std::fs::read(&path).unwrap();
        let history = record(&path, &mut random);
        for _ in 0..25 {
            let crash = random.below(history.steps.len() as u64) as usize;
            crashed(&path, &start, &history.steps[..crash], &mut random);
            peer::check_leaks_only(&path);
            let disk = open(&path, &OpenOptions::default()).unwrap();
            check_promise(&*disk, &history, crash);
            // Going on after the crash must not make leaks into errors.
            disk.write_at(random.below(LEN - 70_000), &pattern(1, 70_000))
                .unwrap();
            drop(disk);
            peer::check_leaks_only(&path);
        }
    }
}
