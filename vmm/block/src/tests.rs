//! Tests over all formats: one conformance suite, a model, and qemu-img as a peer.

#![expect(
    clippy::cast_possible_truncation,
    reason = "sizes in tests are small constants, used as offsets and as lengths"
)]

mod conformance;
mod crash;
mod faults;
mod full_host;
mod grow;
mod model;
mod peer;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tempfile::TempDir;

use crate::qcow2::Layout;
use crate::{Disk, OpenOptions, open};

/// Makes a place for images.
fn dir() -> TempDir {
    tempfile::tempdir().unwrap()
}

/// Bytes that differ from one position to the next and from one seed to the next.
fn pattern(seed: u64, len: usize) -> Vec<u8> {
    let mut x = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..len)
        .map(|_| {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            x.to_le_bytes()[3]
        })
        .collect()
}

fn read(disk: &dyn Disk, offset: u64, len: usize) -> Vec<u8> {
    let mut buf = vec![0xee; len];
    disk.read_at(offset, &mut buf).unwrap();
    buf
}

fn following() -> OpenOptions {
    OpenOptions {
        follow_backing: true,
        ..OpenOptions::default()
    }
}

/// Makes a new image with these cluster and refcount sizes, and opens it.
fn new_qcow2(path: &Path, len_bytes: u64, cluster_bits: u32, refcount_order: u32) -> Arc<dyn Disk> {
    crate::qcow2::create(
        path,
        len_bytes,
        &Layout {
            cluster_bits,
            refcount_order,
        },
    )
    .unwrap();
    open(path, &OpenOptions::default()).unwrap()
}

fn image(dir: &TempDir, name: &str) -> PathBuf {
    dir.path().join(name)
}
