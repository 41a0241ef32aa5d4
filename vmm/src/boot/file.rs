//! Bounded reading of the files that a machine starts with.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use super::BootError;

/// Reads a whole file of at most `most` bytes.
pub(super) fn read(role: &'static str, path: &Path, most: u64) -> Result<Vec<u8>, BootError> {
    let failed = |source| BootError::Read {
        role,
        path: path.to_owned(),
        source,
    };
    let file = File::open(path).map_err(failed)?;
    let len_bytes = file.metadata().map_err(failed)?.len();
    let expected = usize::try_from(len_bytes.min(most)).unwrap_or(0);
    let mut bytes = Vec::with_capacity(expected + 1);
    // One byte more shows a file that is longer than its metadata said, or has none.
    file.take(most + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    let read_bytes = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    if read_bytes.max(len_bytes) > most {
        return Err(BootError::TooLong {
            role,
            path: path.to_owned(),
            len_bytes: read_bytes.max(len_bytes),
            most,
        });
    }
    Ok(bytes)
}

/// Returns the little-endian integer at `offset`, if it is there.
pub(super) fn u16_at(bytes: &[u8], offset: usize) -> Option<u16> {
    let bytes = bytes.get(offset..)?.first_chunk()?;
    Some(u16::from_le_bytes(*bytes))
}

/// Returns the little-endian integer at `offset`, if it is there.
pub(super) fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    let bytes = bytes.get(offset..)?.first_chunk()?;
    Some(u32::from_le_bytes(*bytes))
}

/// Returns the little-endian integer at `offset`, if it is there.
pub(super) fn u64_at(bytes: &[u8], offset: usize) -> Option<u64> {
    let bytes = bytes.get(offset..)?.first_chunk()?;
    Some(u64::from_le_bytes(*bytes))
}
