//! Files that are waited for without a thread: pipes, terminals, processes, changes of folders.

use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// An open file that can be waited for.
pub(super) struct Descriptor {
    file: AsyncFd<OwnedFd>,
}

impl Descriptor {
    /// A file that is only read.
    pub(super) fn readable(file: OwnedFd) -> io::Result<Self> {
        Self::new(file, Interest::READABLE)
    }

    /// A file that is only written.
    pub(super) fn writable(file: OwnedFd) -> io::Result<Self> {
        Self::new(file, Interest::WRITABLE)
    }

    #[expect(
        deprecated,
        reason = "what replaces it wants a promise that an OwnedFd keeps by itself: it always is the same open file"
    )]
    fn new(file: OwnedFd, interest: Interest) -> io::Result<Self> {
        let flags = fcntl_getfl(&file)?;
        fcntl_setfl(&file, flags | OFlags::NONBLOCK)?;
        Ok(Self {
            file: AsyncFd::with_interest(file, interest)?,
        })
    }

    /// Waits until there is something to read, or the process has ended.
    pub(super) async fn ready(&self) {
        let _ready = self.file.readable().await;
    }

    pub(super) async fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let mut ready = self.file.readable().await?;
            let read = ready.try_io(|file| Ok(rustix::io::read(file.get_ref(), &mut *buffer)?));
            match read {
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(read) => return read,
                Err(_not_ready) => {}
            }
        }
    }

    pub(super) async fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let mut ready = self.file.writable().await?;
            let written = ready.try_io(|file| Ok(rustix::io::write(file.get_ref(), bytes)?));
            match written {
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(written) => bytes = &bytes[written?..],
                Err(_not_ready) => {}
            }
        }
        Ok(())
    }
}
