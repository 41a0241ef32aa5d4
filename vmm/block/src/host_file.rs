//! A file or block device of the host, with errors that say what was tried where.

#[cfg(test)]
pub(crate) mod journal;

use std::fs::{File, OpenOptions as FileOptions, TryLockError};
use std::io::{self, ErrorKind, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{FallocateFlags, OFlag, fallocate};

use crate::disk::DiskError;
use crate::open::OpenError;
use crate::width::{to_u64, to_usize};

/// Requests whose offset and length are multiples of this go past the page cache when that is
/// wanted. It is a page, so that a direct and a cached request never meet inside one page.
const DIRECT_ALIGN: u64 = 4096;

/// The largest buffer that is borrowed to move or to zero data; bounds memory per request.
const CHUNK_BYTES: u64 = 256 << 10;

/// Tells two names of one file from two files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Identity {
    device: u64,
    inode: u64,
}

/// An open file or block device.
#[derive(Debug)]
pub(crate) struct HostFile {
    path: PathBuf,
    file: File,
    direct: Option<File>,
    block_device: bool,
    note: Option<String>,
    /// What was done to the file, so that tests can replay it with a crash in between.
    #[cfg(test)]
    pub(crate) journal: std::sync::Arc<journal::Journal>,
}

impl HostFile {
    /// Opens an existing regular file or block device.
    pub(crate) fn open(path: &Path, read_only: bool, direct: bool) -> Result<Self, OpenError> {
        let failed = |source| OpenError::Open {
            path: path.to_owned(),
            source,
        };
        let mut options = FileOptions::new();
        // A FIFO would otherwise block the open until somebody comes to its other end.
        options
            .read(true)
            .write(!read_only)
            .custom_flags(OFlag::O_NONBLOCK.bits());
        let file = options.open(path).map_err(failed)?;
        let kind = file.metadata().map_err(failed)?.file_type();
        if !kind.is_file() && !kind.is_block_device() {
            return Err(OpenError::NotADisk {
                path: path.to_owned(),
            });
        }
        let (direct, note) = match direct.then(|| open_direct(path, &mut options)) {
            None => (None, None),
            Some(Ok(file)) => (Some(file), None),
            Some(Err(note)) => (None, Some(note)),
        };
        Ok(Self {
            path: path.to_owned(),
            file,
            direct,
            block_device: kind.is_block_device(),
            note,
            #[cfg(test)]
            journal: std::sync::Arc::default(),
        })
    }

    /// Takes over a file that was just created.
    pub(crate) fn from_new(path: &Path, file: File) -> Self {
        Self {
            path: path.to_owned(),
            file,
            direct: None,
            block_device: false,
            note: None,
            #[cfg(test)]
            journal: std::sync::Arc::default(),
        }
    }

    /// Returns the name under which the file was opened.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Tells whether this is a device, whose size is fixed.
    pub(crate) fn is_block_device(&self) -> bool {
        self.block_device
    }

    /// Returns what makes the file itself recognisable under any name.
    pub(crate) fn identity(&self) -> Result<Identity, DiskError> {
        let meta = self
            .file
            .metadata()
            .map_err(|e| self.failed("stat", 0, e))?;
        Ok(if self.block_device {
            Identity {
                device: meta.rdev(),
                inode: 0,
            }
        } else {
            Identity {
                device: meta.dev(),
                inode: meta.ino(),
            }
        })
    }

    /// Returns the present size in bytes.
    pub(crate) fn len_bytes(&self) -> Result<u64, DiskError> {
        let len = if self.block_device {
            (&self.file).seek(SeekFrom::End(0))
        } else {
            self.file.metadata().map(|m| m.len())
        };
        len.map_err(|e| self.failed("seek", 0, e))
    }

    /// Returns the room that the file takes on its file system, in bytes; a device takes all of its.
    pub(crate) fn allocated_bytes(&self) -> Result<u64, DiskError> {
        if self.block_device {
            return self.len_bytes();
        }
        let meta = self.file.metadata();
        // stat counts in units of 512 bytes, whatever the file system's blocks are.
        meta.map(|m| m.blocks().saturating_mul(512))
            .map_err(|e| self.failed("stat", 0, e))
    }

    /// Says why there is no direct I/O although it was asked for.
    pub(crate) fn note(&self) -> Option<String> {
        self.note.clone()
    }

    /// Claims the file for one writer or several readers, as far as its file system can.
    ///
    /// The claim ends when the file is closed, also by the death of the process.
    pub(crate) fn claim(&self, read_only: bool) -> Result<(), OpenError> {
        let claimed = if read_only {
            self.file.try_lock_shared()
        } else {
            self.file.try_lock()
        };
        match claimed {
            Ok(()) => Ok(()),
            Err(TryLockError::WouldBlock) => Err(OpenError::InUse {
                path: self.path.clone(),
            }),
            Err(TryLockError::Error(error)) => {
                tracing::debug!(path = %self.path.display(), %error, "image cannot be locked");
                Ok(())
            }
        }
    }

    /// Reads from `offset` on until `buf` is full or the file ends; returns the bytes read.
    pub(crate) fn read_up_to(&self, offset: u64, buf: &mut [u8]) -> Result<usize, DiskError> {
        let mut done = match &self.direct {
            Some(file) if is_direct(offset, buf.len()) => read_direct(file, offset, buf),
            _ => Ok(0),
        }
        .map_err(|e| self.failed("read", offset, e))?;
        while done < buf.len() {
            let at = offset + to_u64(done);
            match self.file.read_at(&mut buf[done..], at) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(self.failed("read", at, e)),
            }
        }
        Ok(done)
    }

    /// Fills `buf` from `offset` on; a file that ends before that is an error.
    pub(crate) fn read_exact(&self, offset: u64, buf: &mut [u8]) -> Result<(), DiskError> {
        let done = self.read_up_to(offset, buf)?;
        if done == buf.len() {
            return Ok(());
        }
        Err(self.failed(
            "read",
            offset + to_u64(done),
            ErrorKind::UnexpectedEof.into(),
        ))
    }

    /// Writes all of `buf` from `offset` on.
    pub(crate) fn write_all(&self, offset: u64, buf: &[u8]) -> Result<(), DiskError> {
        #[cfg(test)]
        self.journal.note(|| journal::Step::Write {
            offset,
            bytes: buf.to_vec(),
        });
        let written = match &self.direct {
            Some(file) if is_direct(offset, buf.len()) => write_direct(file, offset, buf),
            _ => self.file.write_all_at(buf, offset),
        };
        written.map_err(|e| self.failed("write", offset, e))
    }

    /// Makes everything written so far survive a power failure.
    pub(crate) fn sync(&self) -> Result<(), DiskError> {
        #[cfg(test)]
        self.journal.note(|| journal::Step::Sync);
        self.file.sync_data().map_err(|e| self.failed("sync", 0, e))
    }

    /// Sets the size; what is added reads as zeroes and takes no room.
    pub(crate) fn set_len(&self, len_bytes: u64) -> Result<(), DiskError> {
        #[cfg(test)]
        self.journal.note(|| journal::Step::SetLen { len_bytes });
        self.file
            .set_len(len_bytes)
            .map_err(|e| self.failed("resize", len_bytes, e))
    }

    /// Gives the room of the range back to the host if it can do that; tells whether it did.
    ///
    /// What was given back reads as zeroes.
    pub(crate) fn punch(&self, offset: u64, len_bytes: u64) -> Result<bool, DiskError> {
        let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        self.fallocate("discard", flags, offset, len_bytes)
    }

    /// Makes the range read as zeroes by the cheapest means the host has.
    pub(crate) fn zero(
        &self,
        offset: u64,
        len_bytes: u64,
        may_unmap: bool,
    ) -> Result<(), DiskError> {
        if may_unmap && self.punch(offset, len_bytes)? {
            return Ok(());
        }
        let flags = FallocateFlags::FALLOC_FL_ZERO_RANGE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        if self.fallocate("write zeroes", flags, offset, len_bytes)? {
            return Ok(());
        }
        self.write_zero_bytes(offset, len_bytes)
    }

    fn write_zero_bytes(&self, offset: u64, len_bytes: u64) -> Result<(), DiskError> {
        let zeroes = vec![0; to_usize(len_bytes.min(CHUNK_BYTES))];
        let end = offset + len_bytes;
        let mut at = offset;
        while at < end {
            let chunk = (end - at).min(CHUNK_BYTES);
            self.write_all(at, &zeroes[..to_usize(chunk)])?;
            at += chunk;
        }
        Ok(())
    }

    /// Calls fallocate, which Linux also implements for block devices; false if it is not supported
    /// here or not for a range with this alignment.
    fn fallocate(
        &self,
        operation: &'static str,
        flags: FallocateFlags,
        offset: u64,
        len_bytes: u64,
    ) -> Result<bool, DiskError> {
        use nix::errno::Errno;
        if len_bytes == 0 {
            return Ok(true);
        }
        let (Ok(start), Ok(len)) = (i64::try_from(offset), i64::try_from(len_bytes)) else {
            return Err(self.failed(operation, offset, ErrorKind::InvalidInput.into()));
        };
        #[cfg(test)]
        self.journal
            .note(|| journal::Step::Zero { offset, len_bytes });
        loop {
            return match fallocate(&self.file, flags, start, len) {
                Ok(()) => {
                    #[cfg(test)]
                    self.journal
                        .note(|| journal::Step::Zero { offset, len_bytes });
                    Ok(true)
                }
                Err(Errno::EINTR) => continue,
                Err(Errno::EOPNOTSUPP | Errno::ENOSYS | Errno::EINVAL | Errno::EPERM) => Ok(false),
                Err(errno) => Err(self.failed(operation, offset, errno.into())),
            };
        }
    }

    fn failed(&self, operation: &'static str, offset: u64, source: io::Error) -> DiskError {
        DiskError::from_host(operation, offset, &self.path, source)
    }
}

impl Drop for HostFile {
    /// Ends the claim now: a child process that is being started may hold a copy of the descriptor.
    fn drop(&mut self) {
        if let Err(error) = self.file.unlock() {
            tracing::debug!(path = %self.path.display(), %error, "image cannot be unlocked");
        }
    }
}

/// Opens the file once more for direct I/O, and tries whether that works; an error says why not.
fn open_direct(path: &Path, options: &mut FileOptions) -> Result<File, String> {
    let opened = options
        .custom_flags((OFlag::O_DIRECT | OFlag::O_NONBLOCK).bits())
        .open(path)
        .and_then(|file| {
            // Some file systems take the flag and refuse the access.
            let page = to_usize(DIRECT_ALIGN);
            read_direct(&file, 0, &mut vec![0; page]).map(|_| file)
        });
    opened.map_err(|error| {
        let path = path.display();
        tracing::warn!(%path, %error, "no direct I/O here, the page cache will be used");
        format!("{path}: no direct I/O here ({error}), the page cache is used")
    })
}

fn is_direct(offset: u64, len: usize) -> bool {
    len > 0 && offset.is_multiple_of(DIRECT_ALIGN) && to_u64(len).is_multiple_of(DIRECT_ALIGN)
}

/// Borrows memory whose address direct I/O accepts.
struct AlignedBuffer {
    bytes: Vec<u8>,
    start: usize,
    len: usize,
}

impl AlignedBuffer {
    fn new(wanted: usize) -> Self {
        let len = wanted.min(to_usize(CHUNK_BYTES));
        let bytes = vec![0; len + to_usize(DIRECT_ALIGN)];
        let start = bytes.as_ptr().align_offset(to_usize(DIRECT_ALIGN));
        Self { bytes, start, len }
    }

    fn bytes(&mut self, len: usize) -> &mut [u8] {
        &mut self.bytes[self.start..][..len]
    }
}

fn read_direct(file: &File, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
    let mut bounce = AlignedBuffer::new(buf.len());
    let mut done = 0;
    while done < buf.len() {
        let want = (buf.len() - done).min(bounce.len);
        let got = match file.read_at(bounce.bytes(want), offset + to_u64(done)) {
            Err(e) if e.kind() == ErrorKind::Interrupted => continue,
            other => other?,
        };
        buf[done..done + got].copy_from_slice(bounce.bytes(got));
        done += got;
        // A short answer ends at the end of the file; the cached path reads what may follow.
        if got < want {
            break;
        }
    }
    Ok(done)
}

fn write_direct(file: &File, offset: u64, buf: &[u8]) -> io::Result<()> {
    let mut bounce = AlignedBuffer::new(buf.len());
    let mut at = offset;
    for chunk in buf.chunks(bounce.len) {
        let aligned = bounce.bytes(chunk.len());
        aligned.copy_from_slice(chunk);
        file.write_all_at(aligned, at)?;
        at += to_u64(chunk.len());
    }
    Ok(())
}
