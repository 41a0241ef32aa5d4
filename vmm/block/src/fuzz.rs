//! Opens arbitrary bytes as an image and uses it: the entry of the fuzz target.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::{Disk, Format, OpenOptions};

/// Longest access. A disk may say that it is larger than any host.
const ACCESS_BYTES_MAX: u64 = 256 << 10;

/// Opens `data` as a raw, a qcow2 and a probed image, for reading and for writing, and reads and writes some
/// of what that gives. Nothing may panic or grow without bound.
///
/// # Panics
/// When the host has no room for a temporary file, or this crate is at fault: that is what it is for.
pub fn open(data: &[u8]) {
    for format in [Some(Format::Raw), Some(Format::Qcow2), None] {
        for read_only in [true, false] {
            let file = Temporary::new(data);
            let options = OpenOptions {
                format,
                read_only,
                ..OpenOptions::default()
            };
            use_image(&file.0, &options);
        }
    }
}

/// A file that goes away with the value.
struct Temporary(PathBuf);

impl Temporary {
    fn new(data: &[u8]) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("block-fuzz-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, data).expect("the host takes the image");
        Self(path)
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        drop(std::fs::remove_file(&self.0));
    }
}

fn use_image(path: &Path, options: &OpenOptions) {
    let Ok(disk) = crate::open(path, options) else {
        return;
    };
    let len_bytes = disk.len_bytes();
    let middle = len_bytes / 2;
    let last = len_bytes.saturating_sub(ACCESS_BYTES_MAX / 2);
    for offset in [0, 511, 65_536, middle, last, len_bytes, u64::MAX - 511] {
        for wanted in [1, 512, 4_096, ACCESS_BYTES_MAX] {
            use_range(
                &*disk,
                offset,
                wanted.min(len_bytes.saturating_sub(offset).max(1)),
            );
        }
    }
    drop(disk.flush());
    // What was written must not make an image that cannot be opened or read.
    drop(disk);
    if let Ok(disk) = crate::open(path, options) {
        drop(disk.read_at(0, &mut [0; 512]));
    }
}

/// Errors are fine here: a damaged image has them.
fn use_range(disk: &dyn Disk, offset: u64, len_bytes: u64) {
    let mut buf = vec![0x5a; usize::try_from(len_bytes).expect("an access is short")];
    drop(disk.read_at(offset, &mut buf));
    drop(disk.write_at(offset, &buf));
    drop(disk.discard(offset, len_bytes));
    drop(disk.write_zeroes(offset, len_bytes, offset & 1 == 0));
    drop(disk.read_at(offset, &mut buf));
}

#[cfg(test)]
mod tests;
