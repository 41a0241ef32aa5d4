//! Guest memory as devices see it.

use std::fmt::Debug;
use std::sync::Arc;

use vm_memory::bitmap::{Bitmap, BitmapSlice, NewBitmap, WithBitmapSlice};

/// The guest's physical memory, with every write made through it reported to a [`WriteSink`].
pub type GuestMemory = vm_memory::GuestMemoryMmap<WriteLog>;

/// Learns of writes that the VMM makes into guest memory.
///
/// The dirty page log and the software CPU's code invalidation hang on it. Called after the bytes
/// are in memory, on the writing thread; must not block.
pub trait WriteSink: Send + Sync + Debug {
    /// Reports that `len_bytes` bytes from guest physical address `gpa` were written.
    fn written(&self, gpa: u64, len_bytes: usize);
}

/// The bitmap of one memory region: forwards writes to the region's sink and stores nothing.
///
/// Give it to `vm_memory::mmap::MmapRegionBuilder::new_with_bitmap`; a region made without one
/// reports nothing.
#[derive(Clone, Debug, Default)]
pub struct WriteLog {
    base_gpa: u64,
    sink: Option<Arc<dyn WriteSink>>,
}

impl WriteLog {
    /// Makes the log of the region that starts at guest physical address `base_gpa`.
    pub fn new(base_gpa: u64, sink: Arc<dyn WriteSink>) -> Self {
        Self {
            base_gpa,
            sink: Some(sink),
        }
    }
}

/// A [`WriteLog`] from some offset on; borrows the sink so that an access counts no references.
#[derive(Clone, Copy, Debug, Default)]
pub struct WriteLogSlice<'a> {
    base_gpa: u64,
    sink: Option<&'a dyn WriteSink>,
}

fn gpa_at(base_gpa: u64, offset: usize) -> u64 {
    base_gpa.wrapping_add(u64::try_from(offset).unwrap_or(u64::MAX))
}

fn report(sink: Option<&dyn WriteSink>, gpa: u64, len_bytes: usize) {
    if let Some(sink) = sink
        && len_bytes > 0
    {
        sink.written(gpa, len_bytes);
    }
}

impl<'a> WithBitmapSlice<'a> for WriteLog {
    type S = WriteLogSlice<'a>;
}

impl Bitmap for WriteLog {
    fn mark_dirty(&self, offset: usize, len: usize) {
        report(self.sink.as_deref(), gpa_at(self.base_gpa, offset), len);
    }

    fn dirty_at(&self, _offset: usize) -> bool {
        false
    }

    fn slice_at(&self, offset: usize) -> WriteLogSlice<'_> {
        WriteLogSlice {
            base_gpa: gpa_at(self.base_gpa, offset),
            sink: self.sink.as_deref(),
        }
    }
}

impl NewBitmap for WriteLog {
    fn with_len(_len: usize) -> Self {
        Self::default()
    }
}

impl<'b> WithBitmapSlice<'_> for WriteLogSlice<'b> {
    type S = WriteLogSlice<'b>;
}

impl BitmapSlice for WriteLogSlice<'_> {}

impl Bitmap for WriteLogSlice<'_> {
    fn mark_dirty(&self, offset: usize, len: usize) {
        report(self.sink, gpa_at(self.base_gpa, offset), len);
    }

    fn dirty_at(&self, _offset: usize) -> bool {
        false
    }

    fn slice_at(&self, offset: usize) -> Self {
        Self {
            base_gpa: gpa_at(self.base_gpa, offset),
            sink: self.sink,
        }
    }
}

#[cfg(test)]
mod tests;
