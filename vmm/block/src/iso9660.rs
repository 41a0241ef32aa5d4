//! Writing ISO 9660 volumes with Joliet and Rock Ridge names (ECMA-119, IEEE P1282).
//!
//! The volumes are small: cloud-init seeds, configuration drives, config maps and secrets as disks.

mod layout;
mod names;
mod records;
#[cfg(test)]
mod tests;
mod time;
mod tree;
mod volume;

use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use layout::Layout;
use time::Time;
use tree::Tree;

/// Size of a logical block.
const BLOCK_BYTES: u64 = 2048;

/// Why a volume cannot be built or written.
#[derive(Debug, thiserror::Error)]
pub enum IsoError {
    /// The label is empty, longer than 32 characters or not printable ASCII.
    #[error("label a volume {label:?}: it must have 1 to 32 printable ASCII characters")]
    Label {
        /// The label.
        label: String,
    },
    /// A path is empty, is not relative, climbs with `..` or has a component that is too long.
    #[error("add {path:?} to a volume: {problem}")]
    Path {
        /// The path inside the volume.
        path: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A file or directory is larger than its 32-bit size field.
    #[error("add {path:?} to a volume: 4 GiB or more do not fit")]
    TooLarge {
        /// The path inside the volume.
        path: String,
    },
    /// There are more files or directories than the format can number.
    #[error("lay out a volume: its files and directories are more than the format can number")]
    VolumeTooLarge,
    /// The host refused to write the file.
    #[error("write the volume {}", path.display())]
    Write {
        /// The host file.
        path: PathBuf,
        /// The host's answer.
        source: io::Error,
    },
}

/// Collects files and directories and lays them out as a volume.
#[derive(Debug)]
pub struct IsoBuilder {
    label: String,
    tree: Tree,
    modified: SystemTime,
}

impl IsoBuilder {
    /// Starts an empty volume with a label such as `cidata` or `config-2`.
    ///
    /// # Errors
    /// [`IsoError::Label`].
    pub fn new(label: &str) -> Result<Self, IsoError> {
        let fits = (1..=32).contains(&label.len());
        if !fits || !label.bytes().all(|b| b == b' ' || b.is_ascii_graphic()) {
            return Err(IsoError::Label {
                label: label.to_owned(),
            });
        }
        Ok(Self {
            label: label.to_owned(),
            tree: Tree::new(),
            modified: SystemTime::now(),
        })
    }

    /// Sets the time that every file and the volume itself carries, in place of the present.
    pub fn modified(&mut self, time: SystemTime) -> &mut Self {
        self.modified = time;
        self
    }

    /// Adds a file and the directories that lead to it. A second file of the same path replaces the
    /// first.
    ///
    /// # Errors
    /// [`IsoError::Path`] and [`IsoError::TooLarge`].
    pub fn file(&mut self, path: &str, bytes: impl Into<Vec<u8>>) -> Result<&mut Self, IsoError> {
        self.tree.add_file(path, bytes.into())?;
        Ok(self)
    }

    /// Adds a directory and those that lead to it. One that is there already stays as it is.
    ///
    /// # Errors
    /// [`IsoError::Path`].
    pub fn directory(&mut self, path: &str) -> Result<&mut Self, IsoError> {
        self.tree.add_directory(path)?;
        Ok(self)
    }

    /// Lays out the volume.
    ///
    /// # Errors
    /// [`IsoError::VolumeTooLarge`] when the files together exceed the format's 32-bit block numbers.
    pub fn to_bytes(&self) -> Result<Vec<u8>, IsoError> {
        volume::write(
            &self.label,
            &Layout::new(&self.tree)?,
            Time::new(self.modified),
        )
    }

    /// Writes the volume to a file, in place of one that is there; a reader sees either of them whole.
    ///
    /// # Errors
    /// As [`to_bytes`](Self::to_bytes), and [`IsoError::Write`]; no partial file is left behind.
    pub fn write_to(&self, path: &Path) -> Result<(), IsoError> {
        let bytes = self.to_bytes()?;
        let mut partial = path.as_os_str().to_owned();
        partial.push(".partial");
        let written =
            std::fs::write(&partial, bytes).and_then(|()| std::fs::rename(&partial, path));
        written.map_err(|source| {
            let _gone = std::fs::remove_file(&partial);
            IsoError::Write {
                path: path.to_owned(),
                source,
            }
        })
    }
}
