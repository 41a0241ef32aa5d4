//! Paths inside folders that others write: no link leads out of them.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, fstat, mkdirat, openat, openat2};
use rustix::io::Errno;

/// Most components of a path that are made.
const DEPTH_MAX: usize = 64;
/// How often a path is looked up that others disturb: hundreds of pods that start at once do so for a moment only.
const TRIES_MAX: usize = 1000;

/// How links in a path are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Links {
    /// As a process whose root the folder is would: `/etc` is the folder's `etc`.
    InRoot,
    /// Only such as stay in the folder; absolute ones are refused.
    Beneath,
}

impl Links {
    fn flags(self) -> ResolveFlags {
        let kind = match self {
            Self::InRoot => ResolveFlags::IN_ROOT,
            Self::Beneath => ResolveFlags::BENEATH,
        };
        kind | ResolveFlags::NO_MAGICLINKS
    }
}

/// Opens a folder only to name it.
///
/// # Errors
///
/// Fails when there is none.
pub fn folder(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(openat(CWD, path, flags, Mode::empty())?)
}

/// Opens what is at a path below a folder, only to name it.
///
/// # Errors
///
/// Fails when nothing is there, and when the path or a link leads out of the folder.
pub fn open(folder: impl AsFd, path: &Path, links: Links) -> io::Result<OwnedFd> {
    let path = relative(path, links)?;
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    Ok(resolve(folder.as_fd(), &path, flags, links)?)
}

/// Opens a folder at a path below a folder, and makes what is missing of it.
///
/// # Errors
///
/// As [`open`], and when something else than a folder is in the way.
pub fn make_folder(folder: impl AsFd, path: &Path, mode: u32, links: Links) -> io::Result<OwnedFd> {
    let path = relative(path, links)?;
    make(folder.as_fd(), &path, mode, links, 0)
}

/// Opens a file at a path below a folder, and makes it and its folders where missing.
///
/// # Errors
///
/// As [`make_folder`].
pub fn make_file(folder: impl AsFd, path: &Path, links: Links) -> io::Result<OwnedFd> {
    let path = relative(path, links)?;
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    match resolve(folder.as_fd(), &path, flags, links) {
        Err(Errno::NOENT) => {}
        opened => return Ok(opened?),
    }
    let (parent, name) = split(&path)?;
    let parent = make(folder.as_fd(), parent, 0o755, links, 0)?;
    let create = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
    openat(&parent, name, create, Mode::from_raw_mode(0o644))?;
    Ok(openat(
        &parent,
        name,
        flags | OFlags::NOFOLLOW,
        Mode::empty(),
    )?)
}

/// The kernel gives up when anybody renames or mounts while it looks at `..`; it says so, and is asked again.
fn resolve(
    folder: BorrowedFd<'_>,
    path: &Path,
    flags: OFlags,
    links: Links,
) -> Result<OwnedFd, Errno> {
    let mut found = Err(Errno::AGAIN);
    for _ in 0..TRIES_MAX {
        found = openat2(folder, path, flags, Mode::empty(), links.flags());
        if !matches!(found, Err(Errno::AGAIN | Errno::INTR)) {
            break;
        }
    }
    found
}

fn make(
    folder: impl AsFd,
    path: &Path,
    mode: u32,
    links: Links,
    depth: usize,
) -> io::Result<OwnedFd> {
    if depth > DEPTH_MAX {
        return Err(io::Error::other("the path has too many folders"));
    }
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    match resolve(folder.as_fd(), path, flags, links) {
        Err(Errno::NOENT) => {}
        opened => return Ok(opened?),
    }
    let (parent, name) = split(path)?;
    let parent = make(folder, parent, mode, links, depth + 1)?;
    match mkdirat(&parent, name, Mode::from_raw_mode(mode)) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(error) => return Err(error.into()),
    }
    Ok(openat(
        &parent,
        name,
        flags | OFlags::NOFOLLOW,
        Mode::empty(),
    )?)
}

fn split(path: &Path) -> io::Result<(&Path, &OsStr)> {
    let name = path.file_name();
    let name = name.ok_or_else(|| io::Error::other("the path has no name at its end"))?;
    let parent = path.parent().filter(|parent| *parent != Path::new(""));
    Ok((parent.unwrap_or(Path::new(".")), name))
}

/// Returns the path without a root and without `.`. One with `..` is refused below a folder, and resolved as text where
/// the folder is the root.
fn relative(path: &Path, links: Links) -> io::Result<PathBuf> {
    let mut relative = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => relative.push(name),
            Component::ParentDir if links == Links::InRoot => {
                relative.pop();
            }
            Component::RootDir if links == Links::InRoot => {}
            Component::CurDir => {}
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => {
                let reason = format!("{} leads out of its folder", path.display());
                return Err(io::Error::new(io::ErrorKind::InvalidInput, reason));
            }
        }
    }
    let is_empty = relative.as_os_str().is_empty();
    Ok(if is_empty { ".".into() } else { relative })
}

/// Returns a path that names an open file, whatever happens to the names that led to it.
#[must_use]
pub fn name(file: &OwnedFd) -> PathBuf {
    format!("/proc/self/fd/{}", file.as_raw_fd()).into()
}

/// Whether an open file is a folder.
///
/// # Errors
///
/// Fails when the host cannot tell.
pub fn is_folder(file: impl AsFd) -> io::Result<bool> {
    Ok(FileType::from_raw_mode(fstat(file)?.st_mode) == FileType::Directory)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::Path;

    use super::{Links, folder, make_file, make_folder, open};

    #[test]
    fn links_in_a_root_stay_in_it() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("run")).unwrap();
        fs::create_dir(root.path().join("var")).unwrap();
        symlink("/run", root.path().join("var/run")).unwrap();
        symlink("../../../..", root.path().join("up")).unwrap();
        let held = folder(root.path()).unwrap();
        make_folder(
            &held,
            Path::new("/var/run/kubevirt/sockets"),
            0o755,
            Links::InRoot,
        )
        .unwrap();
        assert!(root.path().join("run/kubevirt/sockets").is_dir());
        make_file(&held, Path::new("/up/etc/hosts"), Links::InRoot).unwrap();
        assert!(root.path().join("etc/hosts").is_file());
    }

    #[test]
    fn nothing_leads_out_of_a_volume() {
        let volume = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        symlink(outside.path(), volume.path().join("absolute")).unwrap();
        symlink("../..", volume.path().join("upward")).unwrap();
        symlink("inner", volume.path().join("fine")).unwrap();
        fs::create_dir(volume.path().join("inner")).unwrap();
        let held = folder(volume.path()).unwrap();
        open(&held, Path::new("fine"), Links::Beneath).unwrap();
        make_folder(&held, Path::new("fine/new"), 0o750, Links::Beneath).unwrap();
        assert!(volume.path().join("inner/new").is_dir());
        for odd in [
            "absolute",
            "absolute/x",
            "upward/x",
            "../x",
            "/etc",
            "a/../../x",
        ] {
            make_folder(&held, Path::new(odd), 0o750, Links::Beneath).unwrap_err();
        }
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
    }
}
