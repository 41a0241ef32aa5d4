//! Files that are made on a volume with the volume's size: a host disk, or the image of an empty claim.

use std::fs;
use std::io;
use std::path::Path;

use block::Format;
use nix::sys::statvfs::statvfs;

use super::VolumeCause;

/// Sizes are whole MiB, which every block size divides.
const ALIGNMENT_BYTES: u64 = 1 << 20;
/// How much smaller than asked for a volume may be (`pvcTolerateLessSpaceUpToPercent`): file systems
/// take some of the room for themselves.
const TOLERATED_LESS_PERCENT: u64 = 10;
/// Room that stays free on a volume (`minimumReservePVCBytes`).
const RESERVED_BYTES: u64 = 131_072;

/// Makes a sparse raw image of a size, or of a little less where the volume has no room for more.
/// Returns its size, bytes.
///
/// The image is sparse: other files may still take the room that it was promised.
pub(super) fn create(file: &Path, wanted_bytes: u64) -> Result<u64, VolumeCause> {
    if let Some(parent) = file.parent() {
        fs::create_dir_all(parent).map_err(|source| VolumeCause::Make {
            path: parent.to_owned(),
            source,
        })?;
    }
    let len_bytes = size(file, wanted_bytes, available_bytes(file)?)?;
    block::create_empty(file, len_bytes, Format::Raw)?;
    Ok(len_bytes)
}

fn available_bytes(file: &Path) -> Result<u64, VolumeCause> {
    let folder = file.parent().unwrap_or(file);
    let stat = statvfs(folder).map_err(|errno| VolumeCause::Read {
        path: folder.to_owned(),
        source: io::Error::from(errno),
    })?;
    let free_bytes = stat.blocks_available().saturating_mul(stat.fragment_size());
    Ok(free_bytes.saturating_sub(RESERVED_BYTES))
}

fn size(file: &Path, wanted_bytes: u64, available_bytes: u64) -> Result<u64, VolumeCause> {
    let tolerated_bytes = wanted_bytes - wanted_bytes / 100 * TOLERATED_LESS_PERCENT;
    if available_bytes < tolerated_bytes {
        return Err(VolumeCause::NoRoom {
            path: file.to_owned(),
            wanted_bytes,
            available_bytes,
            tolerated_bytes,
        });
    }
    let len_bytes = wanted_bytes.min(available_bytes);
    let aligned = len_bytes - len_bytes % ALIGNMENT_BYTES;
    // What is smaller than the alignment has the size that was asked for.
    Ok(if aligned == 0 { len_bytes } else { aligned })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{available_bytes, create, size};
    use crate::volumes::VolumeCause;

    const MIB: u64 = 1 << 20;

    fn sized(wanted_bytes: u64, available_bytes: u64) -> Option<u64> {
        size(Path::new("/v/disk.img"), wanted_bytes, available_bytes).ok()
    }

    #[test]
    fn sizes_are_whole_mib_and_a_tenth_less_is_tolerated() {
        assert_eq!(sized(100 * MIB, 500 * MIB), Some(100 * MIB));
        assert_eq!(sized(100 * MIB + 5, 500 * MIB), Some(100 * MIB));
        assert_eq!(sized(100 * MIB, 95 * MIB + 7), Some(95 * MIB));
        assert_eq!(sized(100 * MIB, 90 * MIB), Some(90 * MIB));
        assert_eq!(sized(100 * MIB, 89 * MIB), None);
        assert_eq!(sized(512, 500 * MIB), Some(512));
        assert_eq!(sized(u64::MAX, 500 * MIB), None);
    }

    #[test]
    fn too_little_room_is_told_in_figures() {
        let error = size(Path::new("/v/disk.img"), 100 * MIB, 10 * MIB).unwrap_err();
        let text = error.to_string();
        for part in [
            "/v/disk.img",
            "104857600",
            "10485760",
            "94371840",
            "free some room",
        ] {
            assert!(text.contains(part), "{part} is not in {text}");
        }
    }

    #[test]
    fn a_file_of_the_size_is_sparse() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("v/disk.img");
        let wanted_bytes = (available_bytes(&dir.path().join("x")).unwrap() / 2).min(8 << 30);
        let made = create(&file, wanted_bytes).unwrap();
        assert_eq!(made, wanted_bytes - wanted_bytes % MIB);
        assert!(matches!(
            create(&file, wanted_bytes),
            Err(VolumeCause::Create(_))
        ));
    }
}
