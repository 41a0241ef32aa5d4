//! Small files of our own, replaced as a whole.

use std::fs;
use std::io::{self, Read};
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Writes a value as JSON in such a way that a reader finds the old one or the new one, never a part. Makes the folder
/// where it is missing. Blocks.
pub(crate) fn write(path: &Path, value: &impl Serialize) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    fs::write(&beside, serde_json::to_vec(value)?)?;
    fs::rename(&beside, path)
}

/// Reads a value from a JSON file of at most `len_max` bytes. Blocks.
pub(crate) fn read<T: DeserializeOwned>(path: &Path, len_max: u64) -> io::Result<T> {
    let bytes = bytes(path, len_max)?;
    serde_json::from_slice(&bytes).map_err(io::Error::from)
}

/// Reads a regular file of at most `len_max` bytes. Blocks, but never for a writer of a pipe.
pub(crate) fn bytes(path: &Path, len_max: u64) -> io::Result<Vec<u8>> {
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    let mut bytes = Vec::new();
    let file = fs::File::open(path)?;
    file.take(len_max.saturating_add(1))
        .read_to_end(&mut bytes)?;
    if u64::try_from(bytes.len()).is_ok_and(|len| len <= len_max) {
        return Ok(bytes);
    }
    Err(io::Error::new(
        io::ErrorKind::FileTooLarge,
        format!("it has more than {len_max} bytes"),
    ))
}
