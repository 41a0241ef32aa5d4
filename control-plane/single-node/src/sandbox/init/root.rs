//! A container's root: its image, with a layer of its own over it that is written.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use rustix::mount::{MountFlags, mount, mount_bind, mount_bind_recursive, mount_remount};

use super::told;
use crate::sandbox::image::ImageRoot;
use crate::sandbox::spec::ContainerSpec;

/// Folders of a container in its own folder on the host.
const ROOT: &str = "root";
const UPPER: &str = "upper";
const WORK: &str = "work";
/// Where a layer in memory is mounted when the host's file system cannot hold one.
const MEMORY: &str = "memory";
/// Most that a root in memory holds; it counts for the container.
const MEMORY_OPTIONS: &str = "mode=0755,size=256m,nr_inodes=64k";
/// Folders of the host that hold programs and libraries where they are no links into `/usr`.
const PROGRAM_FOLDERS: [&str; 7] = ["bin", "sbin", "lib", "lib32", "lib64", "libx32", "libexec"];
/// Files and folders of the host's `/etc` that programs need and that hold no secrets.
const SHARED_ETC: [&str; 6] = [
    "ld.so.cache",
    "alternatives",
    "ssl/certs",
    "ca-certificates",
    "pki",
    "fonts",
];
/// Accounts of the built-in image: those that pods of KubeVirt use.
const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nqemu:x:107:107:qemu:/:/sbin/nologin\nnobody:x:65534:65534:nobody:/:/sbin/nologin\n";
const GROUP: &str = "root:x:0:\ntty:x:5:\nqemu:x:107:\nnobody:x:65534:\n";
const NSSWITCH: &str = "passwd: files\ngroup: files\nhosts: files dns\n";
/// Empty folders of the built-in image, with their modes.
const FOLDERS: [(&str, u32); 11] = [
    ("dev", 0o755),
    ("proc", 0o555),
    ("sys", 0o555),
    ("etc", 0o755),
    ("home", 0o755),
    ("mnt", 0o755),
    ("root", 0o700),
    ("run", 0o755),
    ("tmp", 0o1777),
    ("usr", 0o755),
    ("var/tmp", 0o1777),
];

/// Mounts the root and returns where. What it is made of can be seen in this mount namespace only.
pub(super) fn mount_root(folder: &Path, spec: &ContainerSpec) -> io::Result<PathBuf> {
    let root = folder.join(ROOT);
    fs::create_dir_all(&root)?;
    match &spec.root {
        ImageRoot::Folder(image) => overlay(folder, image, &root)?,
        ImageRoot::Host(programs) => host(programs, &root)?,
    }
    Ok(root)
}

/// Makes the root read-only where the pod wants that, once everything is mounted.
pub(super) fn finish(root: &Path, spec: &ContainerSpec) -> io::Result<()> {
    if !spec.is_root_read_only {
        return Ok(());
    }
    mount_remount(root, MountFlags::BIND | MountFlags::RDONLY, "")
        .map_err(told("make the root read-only"))
}

fn overlay(folder: &Path, image: &Path, root: &Path) -> io::Result<()> {
    if !image.is_dir() {
        let reason = format!("the image's folder {} is gone", image.display());
        return Err(io::Error::new(io::ErrorKind::NotFound, reason));
    }
    let on_disk = overlay_with(folder, image, root);
    if on_disk.is_ok() {
        return Ok(());
    }
    // The host's file system cannot hold layers, as an overlay itself cannot.
    let memory = folder.join(MEMORY);
    fs::create_dir_all(&memory)?;
    mount_tmpfs(&memory)?;
    overlay_with(&memory, image, root).or_else(|_| by_entries(image, root))
}

fn overlay_with(layers: &Path, image: &Path, root: &Path) -> io::Result<()> {
    let [upper, work] = [UPPER, WORK].map(|name| layers.join(name));
    fs::create_dir_all(&upper)?;
    fs::create_dir_all(&work)?;
    // The root folder itself looks as the image's.
    fs::set_permissions(&upper, fs::metadata(image)?.permissions())?;
    let mut options = OsString::from("lowerdir=");
    options.push(escaped(image));
    options.push(",upperdir=");
    options.push(escaped(&upper));
    options.push(",workdir=");
    options.push(escaped(&work));
    mount_overlay(root, &options)
}

fn mount_overlay(on: &Path, options: &OsString) -> io::Result<()> {
    let options = std::ffi::CString::new(options.as_bytes())?;
    let mounted = mount("overlay", on, "overlay", MountFlags::empty(), &*options);
    mounted.map_err(told(
        "lay the container's files over the image's (overlayfs)",
    ))
}

/// Writes a path so that overlayfs reads it as one.
fn escaped(path: &Path) -> OsString {
    let mut escaped = Vec::new();
    for byte in path.as_os_str().as_bytes() {
        if b"\\:,".contains(byte) {
            escaped.push(b'\\');
        }
        escaped.push(*byte);
    }
    OsString::from_vec(escaped)
}

/// Without overlayfs: a folder in memory in which what the image has at its top is mounted, read-only.
fn by_entries(image: &Path, root: &Path) -> io::Result<()> {
    mount_tmpfs(root)?;
    for entry in fs::read_dir(image)? {
        let entry = entry?;
        let (from, to) = (entry.path(), root.join(entry.file_name()));
        let kind = entry.file_type()?;
        if kind.is_symlink() {
            symlink(fs::read_link(from)?, to)?;
        } else if kind.is_dir() && is_written(&entry.file_name()) {
            fs::create_dir(&to)?;
            fs::set_permissions(&to, entry.metadata()?.permissions())?;
        } else if kind.is_dir() {
            fs::create_dir(&to)?;
            bind_read_only(&from, &to)?;
        } else if kind.is_file() {
            fs::write(&to, "")?;
            bind_read_only(&from, &to)?;
        }
    }
    Ok(())
}

fn is_written(name: &std::ffi::OsStr) -> bool {
    ["dev", "proc", "sys", "run", "tmp"]
        .iter()
        .any(|written| name == *written)
}

fn mount_tmpfs(on: &Path) -> io::Result<()> {
    let options = std::ffi::CString::new(MEMORY_OPTIONS)?;
    let mounted = mount(
        "tmpfs",
        on,
        "tmpfs",
        MountFlags::NODEV | MountFlags::NOSUID,
        &*options,
    );
    mounted.map_err(told(format_args!(
        "mount a file system in memory on {}",
        on.display()
    )))
}

/// Mounts a folder or file of the host read-only.
pub(super) fn bind_read_only(from: &Path, to: &Path) -> io::Result<()> {
    let failed = |error: rustix::io::Errno| {
        told(format_args!("mount {} in the container", from.display()))(error)
    };
    mount_bind(from, to).map_err(failed)?;
    mount_remount(
        to,
        MountFlags::BIND | MountFlags::RDONLY | MountFlags::NODEV,
        "",
    )
    .map_err(failed)
}

/// The built-in image.
fn host(programs: &Path, root: &Path) -> io::Result<()> {
    mount_tmpfs(root)?;
    for (name, mode) in FOLDERS {
        let path = root.join(name);
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(&path)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(mode))?;
    }
    // Relative, for those who look in from outside.
    symlink("../run", root.join("var/run"))?;
    for (name, text) in [
        ("passwd", PASSWD),
        ("group", GROUP),
        ("nsswitch.conf", NSSWITCH),
    ] {
        fs::write(root.join("etc").join(name), text)?;
    }
    for name in SHARED_ETC {
        share(&Path::new("/etc").join(name), &root.join("etc").join(name))?;
    }
    for name in PROGRAM_FOLDERS {
        program_folder(&Path::new("/").join(name), &root.join(name))?;
    }
    usr(programs, &root.join("usr"))
}

fn share(from: &Path, to: &Path) -> io::Result<()> {
    let Ok(found) = fs::metadata(from) else {
        return Ok(());
    };
    if found.is_dir() {
        fs::create_dir_all(to)?;
        return bind_read_only(from, to);
    }
    fs::copy(from, to).map(|_| ())
}

/// Makes what the host has at such a name: a link into `/usr`, or a folder.
fn program_folder(from: &Path, to: &Path) -> io::Result<()> {
    let Ok(found) = fs::symlink_metadata(from) else {
        return Ok(());
    };
    if found.is_symlink() {
        return symlink(fs::read_link(from)?, to);
    }
    fs::create_dir(to)?;
    bind_read_only(from, to)
}

fn usr(programs: &Path, to: &Path) -> io::Result<()> {
    let mut options = OsString::from("lowerdir=");
    options.push(escaped(programs));
    options.push(":/usr");
    mount_overlay(to, &options).or_else(|_| usr_by_links(programs, to))
}

/// Without overlayfs: programs are links, to the host's and to ours.
fn usr_by_links(programs: &Path, usr: &Path) -> io::Result<()> {
    mount_tmpfs(usr)?;
    for (from, name) in [
        (Path::new("/usr").to_owned(), ".host"),
        (programs.to_owned(), ".own"),
    ] {
        fs::create_dir(usr.join(name))?;
        mount_bind_recursive(&from, usr.join(name)).map_err(told("mount /usr"))?;
        mount_remount(usr.join(name), MountFlags::BIND | MountFlags::RDONLY, "")
            .map_err(told("mount /usr"))?;
    }
    fs::create_dir(usr.join("bin"))?;
    for entry in fs::read_dir("/usr")? {
        let name = entry?.file_name();
        if name != "bin" {
            symlink(Path::new(".host").join(&name), usr.join(&name))?;
        }
    }
    link_all(
        &usr.join(".own/bin"),
        Path::new("../.own/bin"),
        &usr.join("bin"),
    )?;
    link_all(
        Path::new("/usr/bin"),
        Path::new("../.host/bin"),
        &usr.join("bin"),
    )
}

fn link_all(listed: &Path, named: &Path, into: &Path) -> io::Result<()> {
    for entry in fs::read_dir(listed)? {
        let name = entry?.file_name();
        match symlink(named.join(&name), into.join(&name)) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
    }
    Ok(())
}
