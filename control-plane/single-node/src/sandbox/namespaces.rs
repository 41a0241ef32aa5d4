//! The namespaces that a pod's containers share. Files hold them open, so they need no process and outlive this program.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread;

use nix::sched::{CloneFlags, unshare};
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_bind, unmount};
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, sendto, socket_with,
};

use super::mount_table::MountTable;
use super::spec::Namespaces;

/// Options of the shared memory of a pod.
const SHM_OPTIONS: &std::ffi::CStr = c"mode=1777,size=64m";
/// Longest host name of a pod (Kubernetes cuts longer ones).
const HOSTNAME_LEN_MAX_BYTES: usize = 63;

/// What a pod shares with the host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shared {
    /// `hostNetwork`.
    pub is_net_host: bool,
    /// `hostIPC`.
    pub is_ipc_host: bool,
    /// `hostPID`.
    pub is_pid_host: bool,
}

/// Makes a pod's namespaces and shared memory where they are missing, held open by files in a folder. Blocks.
///
/// # Errors
///
/// Fails when the host refuses; that takes root.
pub fn prepare(folder: &Path, shared: Shared, hostname: &str) -> io::Result<Namespaces> {
    let table = MountTable::read()?;
    let mut kinds = CloneFlags::empty();
    let mut wanted = |name: &str, is_host: bool, kind: CloneFlags| -> io::Result<Option<PathBuf>> {
        let path = folder.join(name);
        if is_host {
            return Ok(None);
        }
        if !table.is_mount_point(&path) {
            fs::write(&path, "")?;
            kinds |= kind;
        }
        Ok(Some(path))
    };
    let namespaces = Namespaces {
        net: wanted("net", shared.is_net_host, CloneFlags::CLONE_NEWNET)?,
        ipc: wanted("ipc", shared.is_ipc_host, CloneFlags::CLONE_NEWIPC)?,
        uts: wanted("uts", shared.is_net_host, CloneFlags::CLONE_NEWUTS)?,
        is_pid_host: shared.is_pid_host,
    };
    if !kinds.is_empty() {
        make_in_thread(kinds, &namespaces, hostname)?;
    }
    if !shared.is_ipc_host {
        shared_memory(&shm(folder), &table)?;
    }
    Ok(namespaces)
}

/// Returns where a pod's shared memory is.
#[must_use]
pub fn shm(folder: &Path) -> PathBuf {
    folder.join("shm")
}

fn shared_memory(shm: &Path, table: &MountTable) -> io::Result<()> {
    if table.is_mount_point(shm) {
        return Ok(());
    }
    fs::create_dir_all(shm)?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    Ok(mount("shm", shm, "tmpfs", flags, SHM_OPTIONS)?)
}

/// Namespaces belong to threads, so one that ends afterwards makes them.
fn make_in_thread(kinds: CloneFlags, namespaces: &Namespaces, hostname: &str) -> io::Result<()> {
    let files = [
        ("net", CloneFlags::CLONE_NEWNET, namespaces.net.clone()),
        ("ipc", CloneFlags::CLONE_NEWIPC, namespaces.ipc.clone()),
        ("uts", CloneFlags::CLONE_NEWUTS, namespaces.uts.clone()),
    ];
    let hostname = hostname.as_bytes()[..hostname.len().min(HOSTNAME_LEN_MAX_BYTES)].to_owned();
    thread::scope(|scope| {
        let make = move || -> io::Result<()> {
            unshare(kinds)?;
            if kinds.contains(CloneFlags::CLONE_NEWUTS) {
                rustix::system::sethostname(&hostname)?;
            }
            if kinds.contains(CloneFlags::CLONE_NEWNET) {
                set_up_network()?;
            }
            for (kind, flag, file) in files {
                if let Some(file) = file.filter(|_| kinds.contains(flag)) {
                    mount_bind(format!("/proc/thread-self/ns/{kind}"), file)?;
                }
            }
            Ok(())
        };
        let thread = thread::Builder::new()
            .name("namespaces".to_owned())
            .spawn_scoped(scope, make)?;
        let died = |_| {
            Err(io::Error::other(
                "the thread that makes namespaces has panicked",
            ))
        };
        thread.join().unwrap_or_else(died)
    })
}

/// What container runtimes set up in each new network namespace.
fn set_up_network() -> io::Result<()> {
    set_loopback_up()?;
    // DHCP servers of launchers use port 67 without being root. Where `/proc/sys` is read-only, their capability does.
    let _stays = fs::write("/proc/sys/net/ipv4/ip_unprivileged_port_start", "0");
    Ok(())
}

/// Sets the first interface, which is the loopback, up: one `RTM_NEWLINK` message (rtnetlink(7)).
fn set_loopback_up() -> io::Result<()> {
    const LEN: u32 = 32;
    const RTM_NEWLINK: u16 = 16;
    const NLM_F_REQUEST_ACK: u16 = 1 | 4;
    const IFF_UP: u32 = 1;
    const LOOPBACK_INDEX: u32 = 1;
    let header = [
        LEN.to_ne_bytes().as_slice(),
        &RTM_NEWLINK.to_ne_bytes(),
        &NLM_F_REQUEST_ACK.to_ne_bytes(),
        &1_u32.to_ne_bytes(),
        &[0; 4],
    ]
    .concat();
    let change = [
        [0; 4],
        LOOPBACK_INDEX.to_ne_bytes(),
        IFF_UP.to_ne_bytes(),
        IFF_UP.to_ne_bytes(),
    ]
    .concat();
    let socket = socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        None,
    )?;
    sendto(
        &socket,
        &[header, change].concat(),
        SendFlags::empty(),
        &SocketAddrNetlink::new(0, 0),
    )?;
    let mut answer = [0; 512];
    let (len, _) = recv(&socket, &mut answer[..], RecvFlags::empty())?;
    let code = answer
        .get(16..20)
        .filter(|_| len >= 20)
        .and_then(|code| code.try_into().ok());
    match code.map(i32::from_ne_bytes) {
        Some(0) => Ok(()),
        Some(code) => Err(io::Error::from_raw_os_error(-code)),
        None => Err(io::Error::other(
            "the kernel's answer on the loopback interface is short",
        )),
    }
}

/// Lets a pod's namespaces and shared memory go. Blocks.
///
/// # Errors
///
/// Fails when a mount cannot be removed.
pub fn remove(folder: &Path) -> io::Result<()> {
    let table = MountTable::read()?;
    for name in ["net", "ipc", "uts", "shm"] {
        let path = folder.join(name);
        if table.is_mount_point(&path) {
            unmount(&path, UnmountFlags::DETACH)?;
        }
    }
    Ok(())
}
