//! A bound for the headers of tar archives, which their reader holds in memory.

use std::cell::Cell;
use std::io::{self, Read, Seek, SeekFrom};
use std::rc::Rc;

/// Most bytes of headers before one file: long names and extended attributes.
const HEADERS_MAX_BYTES: u64 = 2 << 20;

/// How much may be read now. Clones are the same.
#[derive(Clone, Debug)]
pub(super) struct Allowance {
    left_bytes: Rc<Cell<u64>>,
}

impl Default for Allowance {
    /// Allows the headers of a file.
    fn default() -> Self {
        Self {
            left_bytes: Rc::new(Cell::new(HEADERS_MAX_BYTES)),
        }
    }
}

impl Allowance {
    /// Allows the headers of the next file; to be called when the content of the one before was read.
    pub(super) fn headers(&self) {
        self.left_bytes.set(HEADERS_MAX_BYTES);
    }

    /// Allows the content of a file.
    pub(super) fn content(&self) {
        self.left_bytes.set(u64::MAX);
    }

    /// Bounds a reader.
    pub(super) fn bound<R>(&self, inner: R) -> Bounded<R> {
        Bounded {
            inner,
            allowance: self.clone(),
        }
    }
}

/// A reader that fails where it reads more than is allowed.
pub(super) struct Bounded<R> {
    pub(super) inner: R,
    allowance: Allowance,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let len = self.inner.read(buffer)?;
        let left = &self.allowance.left_bytes;
        let rest = left
            .get()
            .checked_sub(u64::try_from(len).unwrap_or(u64::MAX));
        let too_long = || {
            io::Error::new(
                io::ErrorKind::InvalidData,
                "the headers of a file are too long",
            )
        };
        left.set(rest.ok_or_else(too_long)?);
        Ok(len)
    }
}

impl<R: Seek> Seek for Bounded<R> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.inner.seek(to)
    }
}
