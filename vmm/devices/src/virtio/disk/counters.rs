//! What a disk has done so far.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Requests, bytes and time of one kind of request.
#[derive(Debug, Default)]
struct Kind {
    requests: AtomicU64,
    bytes: AtomicU64,
    ns: AtomicU64,
}

impl Kind {
    fn count(&self, bytes: u64, took: Duration) {
        let ns = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.ns.fetch_add(ns, Ordering::Relaxed);
    }
}

/// Counts what a disk has done since its device was made; read it from any thread without waiting.
#[derive(Debug, Default)]
pub struct DiskCounters {
    reads: Kind,
    writes: Kind,
    flushes: Kind,
    errors: AtomicU64,
}

/// The values of [`DiskCounters`] at one moment. Times are in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskCounts {
    /// Requests that read.
    pub read_requests: u64,
    /// Bytes that were read.
    pub read_bytes: u64,
    /// Time that reading took.
    pub read_ns: u64,
    /// Requests that wrote, also zeroes.
    pub write_requests: u64,
    /// Bytes that were written.
    pub write_bytes: u64,
    /// Time that writing took.
    pub write_ns: u64,
    /// Requests that flushed.
    pub flush_requests: u64,
    /// Time that flushing took.
    pub flush_ns: u64,
    /// Requests that the host refused, each time that one was tried.
    pub errors: u64,
}

impl DiskCounters {
    pub(super) fn count_read(&self, bytes: u64, took: Duration) {
        self.reads.count(bytes, took);
    }

    pub(super) fn count_write(&self, bytes: u64, took: Duration) {
        self.writes.count(bytes, took);
    }

    pub(super) fn count_flush(&self, took: Duration) {
        self.flushes.count(0, took);
    }

    pub(super) fn count_error(&self) {
        self.errors.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns the present values. They are read one after the other while the disk goes on.
    pub fn read(&self) -> DiskCounts {
        let of = |value: &AtomicU64| value.load(Ordering::Relaxed);
        DiskCounts {
            read_requests: of(&self.reads.requests),
            read_bytes: of(&self.reads.bytes),
            read_ns: of(&self.reads.ns),
            write_requests: of(&self.writes.requests),
            write_bytes: of(&self.writes.bytes),
            write_ns: of(&self.writes.ns),
            flush_requests: of(&self.flushes.requests),
            flush_ns: of(&self.flushes.ns),
            errors: of(&self.errors),
        }
    }
}
