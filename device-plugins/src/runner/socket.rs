//! Sockets in the kubelet's folder: our own and the kubelet's.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::libc;
use nix::sys::stat::{Mode, fchmod};
use tokio::net::{UnixListener, UnixSocket, UnixStream};
use tokio_util::task::AbortOnDropHandle;

use super::connection::Acceptor;
use crate::fnv::fnv1a;
use crate::resource::ResourceName;

/// Name of the kubelet's socket.
pub(super) const KUBELET_SOCKET: &str = "kubelet.sock";
/// Domain of the resources whose sockets are named as upstream names them.
const PERMANENT: &str = "devices.kubevirt.io/";
/// Most characters of a resource that are in the name of its socket. Together with the rest a name has 47 bytes, which
/// leaves 60 for the kubelet's folder.
const READABLE_MAX: usize = 16;
/// Connections that may wait to be accepted.
const BACKLOG: u32 = 16;

/// Name of a resource's socket: `kubevirt-kvm.sock` for `devices.kubevirt.io/kvm`, and for others what can be read of the
/// name and a number made of all of it. No two resources have the same: a name without number is shorter than any with one.
#[must_use]
pub fn socket_name(resource: &ResourceName) -> String {
    let name = resource.as_str();
    match name.strip_prefix(PERMANENT) {
        Some(rest) if rest.len() <= READABLE_MAX => format!("kubevirt-{rest}.sock"),
        _ => {
            let last = name.rsplit('/').next().unwrap_or_default();
            let readable: String = last.chars().take(READABLE_MAX).collect();
            format!("kubevirt-{readable}-{:016x}.sock", fnv1a(name))
        }
    }
}

/// Tells one file from another that has its name later. A number may be given again, but not at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    device: u64,
    inode: u64,
    changed: (i64, i64),
}

impl Mark {
    /// The mark of the kubelet's socket, if it is there.
    pub(super) fn of_kubelet(folder: &Path) -> Option<Self> {
        let found = fs::metadata(folder.join(KUBELET_SOCKET)).ok()?;
        Some(Self {
            device: found.dev(),
            inode: found.ino(),
            changed: (found.ctime(), found.ctime_nsec()),
        })
    }

    /// A mark of no file, for tests.
    #[cfg(test)]
    pub(super) fn numbered(inode: u64) -> Self {
        Self {
            device: 0,
            inode,
            changed: (0, 0),
        }
    }
}

/// The plugin's socket, accepting.
#[derive(Debug)]
pub(super) struct OwnSocket {
    path: PathBuf,
    /// Device and number of the file, which stay while it is listened at.
    file: (u64, u64),
    _accepting: AbortOnDropHandle<()>,
}

impl OwnSocket {
    /// Makes the socket in the place of what has its name, for those who may write its file only: our user.
    pub(super) fn bind(folder: &Path, name: &str, acceptor: Acceptor) -> io::Result<Self> {
        let held = hold(folder)?;
        let short = short_path(&held, name);
        match fs::remove_file(&short) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = listen(&short)?;
        let path = folder.join(name);
        let file = file(&path)?;
        let accepting = tokio::spawn(acceptor.accept(listener));
        Ok(Self {
            path,
            file,
            _accepting: AbortOnDropHandle::new(accepting),
        })
    }

    /// Whether the socket is still where it was made.
    pub(super) fn is_there(&self) -> bool {
        file(&self.path).is_ok_and(|file| file == self.file)
    }

    /// Accepts nothing more, and removes the file unless it is another's by now.
    pub(super) fn remove(self) -> io::Result<()> {
        match self.is_there() {
            true => fs::remove_file(&self.path),
            false => Ok(()),
        }
    }
}

fn file(path: &Path) -> io::Result<(u64, u64)> {
    let found = fs::symlink_metadata(path)?;
    Ok((found.dev(), found.ino()))
}

fn listen(path: &Path) -> io::Result<UnixListener> {
    let socket = UnixSocket::new_stream()?;
    // Linux makes the file with the mode of the socket, so that there is no moment in which others may connect.
    fchmod(&socket, Mode::S_IRUSR | Mode::S_IWUSR)?;
    socket.bind(path)?;
    socket.listen(BACKLOG)
}

/// Connects to the kubelet.
pub(super) async fn connect(folder: &Path) -> io::Result<UnixStream> {
    let held = hold(folder)?;
    UnixStream::connect(short_path(&held, KUBELET_SOCKET)).await
}

/// Opens a folder to name what is in it.
fn hold(folder: &Path) -> io::Result<File> {
    let flags = libc::O_PATH | libc::O_DIRECTORY;
    OpenOptions::new()
        .read(true)
        .custom_flags(flags)
        .open(folder)
}

/// A path to a socket that is short enough, since it may have 108 bytes, however long the folder's is.
fn short_path(held: &File, name: &str) -> PathBuf {
    format!("/proc/self/fd/{}/{name}", held.as_raw_fd()).into()
}

#[cfg(test)]
mod tests {
    use super::socket_name;
    use crate::resource::ResourceName;

    fn name(resource: &str) -> String {
        socket_name(&ResourceName::new(resource).unwrap())
    }

    #[test]
    fn permanent_sockets_are_named_as_upstream_names_them() {
        assert_eq!(name("devices.kubevirt.io/kvm"), "kubevirt-kvm.sock");
        assert_eq!(
            name("devices.kubevirt.io/vhost-vsock"),
            "kubevirt-vhost-vsock.sock"
        );
    }

    #[test]
    fn resources_never_share_a_socket() {
        let resources = [
            "kubevirt.io/wifi-dongle",
            "example.com/wifi-dongle",
            "example.com-wifi/dongle",
            "devices.kubevirt.io/wifi-dongle",
            "devices.kubevirt.io/wifi-dongle-with-a-long-name",
            "devices.kubevirt.io/wifi-dongle-0123456789abcdef",
            "kubevirt.io/wifi-dongle-with-a-long-name",
            "kubevirt.io/wifi-dongle-with-a-long-name.2",
            "kubevirt.io/wifi_dongle",
            "kubevirt.io/WiFi-dongle",
        ];
        let names: std::collections::BTreeSet<String> = resources.map(name).into();
        assert_eq!(names.len(), resources.len(), "{names:?}");
    }

    #[test]
    fn names_are_short_and_stay_in_the_folder() {
        let long = format!("{}.io/{}", "a".repeat(60), "b".repeat(63));
        for resource in [
            long.as_str(),
            "a.io/b",
            "devices.kubevirt.io/sixteen-letters1",
        ] {
            let name = name(resource);
            assert!(name.len() <= 47, "{name}");
            assert!(
                name.starts_with("kubevirt-") && !name.contains('/'),
                "{name}"
            );
        }
    }
}
