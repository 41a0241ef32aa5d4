//! What the guest said on its console, in a file of bounded size.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::Console;

/// Bytes in the file before it becomes the old one; a pod's folder may lie in memory.
const FILE_LEN: u64 = 5 << 20;
/// Those who follow the file may be other users.
const FILE_MODE: u32 = 0o644;

/// A file that takes what is written, and its predecessor under the same name with `.0` at its end.
#[derive(Debug)]
pub(super) struct Log {
    path: PathBuf,
    file: File,
    len: u64,
    limit: u64,
}

impl Log {
    fn open(path: &Path, limit: u64) -> io::Result<Self> {
        let file = create(path)?;
        Ok(Self {
            path: path.to_owned(),
            len: file.metadata()?.len(),
            file,
            limit,
        })
    }

    /// Starts the file anew; what it held stays under the other name.
    fn rotate(&mut self) -> io::Result<()> {
        let mut old = OsString::from(&self.path);
        old.push(".0");
        fs::rename(&self.path, old)?;
        self.file = create(&self.path)?;
        self.len = 0;
        Ok(())
    }
}

fn create(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.create(true).append(true).mode(FILE_MODE).open(path)
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.len >= self.limit {
            self.rotate()?;
        }
        let count = self.file.write(bytes)?;
        self.len += u64::try_from(count).unwrap_or(self.limit);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Console {
    /// Appends what the guest says to the file at `path`, on a thread of its own, until the console
    /// ends or the file cannot be written.
    ///
    /// # Errors
    ///
    /// Fails when the file cannot be made or the host refuses a thread.
    pub fn log_to(&self, path: &Path) -> io::Result<()> {
        let log = Log::open(path, FILE_LEN)?;
        // The viewers of the console know its queue, and the thread ends with the console.
        let (_queue, _thread) = self.view("console-log", log)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;

    use super::Log;

    #[test]
    fn a_full_file_makes_way_for_a_new_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("virt-serial0-log");
        let mut log = Log::open(&path, 4).unwrap();
        for text in ["abcd", "ef", "gh", "ij"] {
            log.write_all(text.as_bytes()).unwrap();
        }
        assert_eq!(fs::read(&path).unwrap(), b"ij");
        assert_eq!(
            fs::read(dir.path().join("virt-serial0-log.0")).unwrap(),
            b"efgh"
        );
    }

    #[test]
    fn a_log_goes_on_where_it_ended() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        for text in ["ab", "cd"] {
            Log::open(&path, 100)
                .unwrap()
                .write_all(text.as_bytes())
                .unwrap();
        }
        assert_eq!(fs::read(&path).unwrap(), b"abcd");
    }
}
