//! Creating empty images.

use std::fs::{File, OpenOptions as FileOptions};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use crate::disk::{DiskError, SECTOR_BYTES};
use crate::open::Format;
use crate::qcow2;

/// Why an image could not be created. No file is left behind.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// There is a file of that name, which is not touched.
    #[error("create {}: it exists already, remove it first", path.display())]
    Exists {
        /// The image file.
        path: PathBuf,
    },
    /// The host refused to create or size the file.
    #[error("create {}", path.display())]
    Host {
        /// The image file.
        path: PathBuf,
        /// The host's answer.
        source: io::Error,
    },
    /// The size is zero or beyond what the format or the file system can hold.
    #[error("create {}: a size of {len_bytes} bytes is {problem}", path.display())]
    Size {
        /// The image file.
        path: PathBuf,
        /// The size that was asked for.
        len_bytes: u64,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The first bytes could not be written.
    #[error("write {}", path.display())]
    Write {
        /// The image file.
        path: PathBuf,
        /// What went wrong.
        source: DiskError,
    },
}

/// Creates an empty, sparse image that reads as zeroes.
///
/// A size that is not a multiple of 512 bytes is rounded up to one.
///
/// # Errors
/// [`CreateError`]; no file is left behind then, and an existing file stays as it is.
pub fn create_empty(path: &Path, len_bytes: u64, format: Format) -> Result<(), CreateError> {
    match format {
        Format::Qcow2 => qcow2::create(path, len_bytes, &qcow2::Layout::default()),
        Format::Raw => {
            let len_bytes = whole_sectors(path, len_bytes)?;
            create_file(path, |file| {
                file.set_len(len_bytes)
                    .map_err(|source| refused(path, len_bytes, source))
            })
        }
    }
}

/// Rounds a size up to whole sectors, and refuses zero and what no file can hold.
pub(crate) fn whole_sectors(path: &Path, len_bytes: u64) -> Result<u64, CreateError> {
    let size = |problem| CreateError::Size {
        path: path.to_owned(),
        len_bytes,
        problem,
    };
    if len_bytes == 0 {
        return Err(size("no disk"));
    }
    match len_bytes.checked_next_multiple_of(SECTOR_BYTES) {
        Some(whole) if i64::try_from(whole).is_ok() => Ok(whole),
        _ => Err(size("more than a file can hold")),
    }
}

/// Creates a file that must not exist yet, has `fill` write it, and removes it if that fails.
pub(crate) fn create_file(
    path: &Path,
    fill: impl FnOnce(File) -> Result<(), CreateError>,
) -> Result<(), CreateError> {
    let file = FileOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .open(path);
    let file = file.map_err(|source| match source.kind() {
        ErrorKind::AlreadyExists => CreateError::Exists {
            path: path.to_owned(),
        },
        _ => CreateError::Host {
            path: path.to_owned(),
            source,
        },
    })?;
    let filled = fill(file);
    if filled.is_err() {
        remove_partial(path);
    }
    filled
}

/// Removes a file that was created here and could not be completed.
pub(crate) fn remove_partial(path: &Path) {
    if let Err(error) = std::fs::remove_file(path) {
        tracing::warn!(path = %path.display(), %error, "partial file could not be removed");
    }
}

fn refused(path: &Path, len_bytes: u64, source: io::Error) -> CreateError {
    let path = path.to_owned();
    if source.kind() == ErrorKind::FileTooLarge {
        let problem = "more than a file can hold here";
        return CreateError::Size {
            path,
            len_bytes,
            problem,
        };
    }
    CreateError::Host { path, source }
}
