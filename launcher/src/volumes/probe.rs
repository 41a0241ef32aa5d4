//! What the host's file or device under a disk is like.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use nix::fcntl::OFlag;
use nix::sys::statvfs::statvfs;

use super::{Medium, VolumeCause};

/// Unit of `st_blocks`, whatever the file system.
const STAT_BLOCK_BYTES: u64 = 512;
/// First bytes of a qcow2 image.
const QCOW2_MAGIC: &[u8; 4] = b"QFI\xfb";

/// Checks that a path leads to a regular file or a block device and returns what it is like.
pub(super) fn medium(path: &Path) -> Result<Medium, VolumeCause> {
    let metadata = fs::metadata(path).map_err(|source| VolumeCause::Read {
        path: path.to_owned(),
        source,
    })?;
    let kind = metadata.file_type();
    let block_device = kind.is_block_device();
    if !kind.is_file() && !block_device {
        return Err(VolumeCause::NoImage {
            path: path.to_owned(),
            found: if kind.is_dir() {
                "a folder"
            } else {
                "neither a file nor a block device"
            },
            cure: "a disk needs an image file or a block device there",
        });
    }
    let block_bytes = if block_device {
        device_block_bytes(metadata.rdev())
    } else {
        file_block_bytes(path)
    };
    let allocated_bytes = metadata.blocks().saturating_mul(STAT_BLOCK_BYTES);
    let is_full = metadata.len() > 0 && allocated_bytes >= metadata.len();
    Ok(Medium {
        direct_io: takes_direct_io(path),
        // A qcow2 image has the room that it has come to need.
        preallocated: !block_device && is_full && !is_qcow2(path),
        block_bytes,
    })
}

fn is_qcow2(path: &Path) -> bool {
    let mut magic = [0; QCOW2_MAGIC.len()];
    let read = File::open(path).and_then(|mut file| file.read_exact(&mut magic));
    read.is_ok() && magic == *QCOW2_MAGIC
}

fn takes_direct_io(path: &Path) -> bool {
    // O_NONBLOCK: the path was checked, but may have become a FIFO since.
    let flags = OFlag::O_DIRECT | OFlag::O_NONBLOCK;
    let mut options = File::options();
    options.read(true).custom_flags(flags.bits());
    options.open(path).is_ok()
}

/// A file's block size is its file system's.
fn file_block_bytes(path: &Path) -> Option<(u32, u32)> {
    let size = u32::try_from(statvfs(path).ok()?.block_size()).ok()?;
    Some((size, size))
}

fn device_block_bytes(device: u64) -> Option<(u32, u32)> {
    let (major, minor) = (nix::sys::stat::major(device), nix::sys::stat::minor(device));
    let disk = Path::new("/sys/dev/block").join(format!("{major}:{minor}"));
    // A partition's queue is its disk's.
    let queues = [disk.join("queue"), disk.join("../queue")];
    let read = |name: &str| {
        let mut paths = queues.iter().map(|queue| queue.join(name));
        let text = paths.find_map(|path| fs::read_to_string(path).ok())?;
        text.trim().parse().ok()
    };
    Some((read("logical_block_size")?, read("physical_block_size")?))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::medium;

    #[test]
    fn a_file_with_all_its_room_is_preallocated_and_a_sparse_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let (full, sparse) = (dir.path().join("full"), dir.path().join("sparse"));
        let qcow2 = dir.path().join("qcow2");
        block::create_empty(&qcow2, 1 << 30, block::Format::Qcow2).unwrap();
        assert!(!medium(&qcow2).unwrap().preallocated);
        fs::write(&full, vec![1; 1 << 20]).unwrap();
        fs::File::create(&sparse).unwrap().set_len(1 << 20).unwrap();
        fs::File::open(&full).unwrap().sync_all().unwrap();
        assert!(medium(&full).unwrap().preallocated);
        assert!(!medium(&sparse).unwrap().preallocated);
        let (logical, physical) = medium(&full).unwrap().block_bytes.unwrap();
        assert!(logical >= 512 && physical >= logical);
    }

    #[test]
    fn a_folder_is_no_disk() {
        let dir = tempfile::tempdir().unwrap();
        let error = medium(dir.path()).unwrap_err().to_string();
        assert!(error.contains("is a folder"), "{error}");
    }
}
