//! The kernel's messages about devices: `NETLINK_KOBJECT_UEVENT`, group 1 (`lib/kobject_uevent.c`).
//!
//! A message is `ACTION@DEVPATH`, then variables such as `SUBSYSTEM=usb`, each ended by a zero byte.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recvfrom, socket,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// The group of the messages that come from the kernel itself; udev's own come in another.
const KERNEL_GROUP: u32 = 1;
/// Longest message: the kernel's variables have 2048 bytes, and the path before them is shorter than a page.
const MESSAGE_LEN_MAX: usize = 8192;
/// Most messages that are read in one go, so that a flood of them leaves time for other things.
const MESSAGES_MAX: usize = 256;
/// Kinds of devices that may be, or hold, what is offered.
const SUBSYSTEMS: [&[u8]; 8] = [
    b"usb",
    b"pci",
    b"vfio",
    b"vfio-dev",
    b"mdev",
    b"misc",
    b"iommu",
    b"drivers",
];

/// Listens to the kernel.
#[derive(Debug)]
pub(super) struct Uevents(AsyncFd<OwnedFd>);

impl Uevents {
    /// Begins to listen.
    #[expect(
        deprecated,
        reason = "the new constructor is unsafe for descriptors that may be closed by others; this one is owned"
    )]
    pub(super) fn open() -> io::Result<Self> {
        let listening = socket(
            AddressFamily::Netlink,
            SockType::Datagram,
            SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
            SockProtocol::NetlinkKObjectUEvent,
        )?;
        // The kernel chooses the number under which it sends to us.
        bind(listening.as_raw_fd(), &NetlinkAddr::new(0, KERNEL_GROUP))?;
        Ok(Self(AsyncFd::with_interest(listening, Interest::READABLE)?))
    }

    /// Waits for messages, and says whether one of them was about devices of a kind that matters.
    pub(super) async fn next(&mut self) -> io::Result<bool> {
        let mut ready = self.0.readable().await?;
        let mut is_of_interest = false;
        for _ in 0..MESSAGES_MAX {
            match receive(ready.get_inner()) {
                Ok(one) => is_of_interest |= one,
                Err(Errno::EAGAIN) => {
                    ready.clear_ready();
                    break;
                }
                // Some were lost; who knows about what.
                Err(Errno::ENOBUFS) => is_of_interest = true,
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(is_of_interest)
    }
}

/// Reads a message, and says whether it is the kernel's and about something that matters.
fn receive(listening: &OwnedFd) -> Result<bool, Errno> {
    let mut bytes = [0; MESSAGE_LEN_MAX];
    let (len, sender) = recvfrom::<NetlinkAddr>(listening.as_raw_fd(), &mut bytes)?;
    let is_kernels = sender.is_some_and(|sender| sender.pid() == 0);
    let message = bytes.get(..len).unwrap_or(&bytes);
    Ok(is_kernels && is_of_interest(message))
}

/// Whether a message is about devices of a kind that matters.
fn is_of_interest(message: &[u8]) -> bool {
    let mut variables = message.split(|byte| *byte == 0).skip(1);
    let subsystem = variables.find_map(|variable| variable.strip_prefix(b"SUBSYSTEM="));
    subsystem.is_some_and(|subsystem| SUBSYSTEMS.contains(&subsystem))
}

#[cfg(test)]
mod tests;
