//! How far an import or a pull is.

use std::io::{self, Read};
use std::sync::Arc;

/// Bytes between two reports on the same layer.
const STEP_BYTES: u64 = 256 << 10;

/// How far it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// An image is begun.
    Image {
        /// Its name.
        reference: String,
    },
    /// A layer is being fetched.
    Fetch(Part),
    /// A layer is being unpacked.
    Unpack(Part),
    /// The image was there already.
    Present,
}

/// A part of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Which layer, from 1.
    pub layer: usize,
    /// Of how many.
    pub layers: usize,
    /// Bytes that are done.
    pub done_bytes: u64,
    /// Bytes of the layer; 0 where that is not known.
    pub total_bytes: u64,
}

/// Is told how far it is.
pub type Report = Arc<dyn Fn(&Progress) + Send + Sync>;

/// Returns a report that nobody reads.
pub(super) fn silent() -> Report {
    Arc::new(|_| {})
}

/// Tells of what is read through it.
pub(super) struct Told<'a, R> {
    inner: R,
    report: &'a Report,
    part: Part,
    told_bytes: u64,
}

impl<'a, R> Told<'a, R> {
    pub(super) fn new(inner: R, part: Part, report: &'a Report) -> Self {
        report(&Progress::Unpack(part));
        Self {
            inner,
            report,
            part,
            told_bytes: 0,
        }
    }
}

impl<R: Read> Read for Told<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let len = self.inner.read(buffer)?;
        self.part.done_bytes += u64::try_from(len).unwrap_or_default();
        let is_end = len == 0 || self.part.done_bytes == self.part.total_bytes;
        let is_step = self.part.done_bytes - self.told_bytes >= STEP_BYTES;
        if is_step || (is_end && self.part.done_bytes > self.told_bytes) {
            self.told_bytes = self.part.done_bytes;
            (self.report)(&Progress::Unpack(self.part));
        }
        Ok(len)
    }
}
