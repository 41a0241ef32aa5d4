//! Files below a folder, made so that nothing leads out of it: links in paths are read as a process would whose root the
//! folder is.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, Dir, FileType, Gid, Mode, OFlags, Timespec, Timestamps, UTIME_OMIT, Uid, XattrFlags,
    chmodat, chownat, fsetxattr, linkat, mkdirat, mknodat, openat, statat, symlinkat, unlinkat,
    utimensat,
};
use rustix::io::Errno;

use super::refused;
use crate::sandbox::beneath::{self, Links};

/// Pieces of zeroes of this length become holes.
const PIECE_LEN_BYTES: usize = 64 << 10;
/// Extended attributes of one file, and the bytes of one.
const EXTENDED_MAX: usize = 32;
const EXTENDED_LEN_MAX_BYTES: usize = 64 << 10;
/// Deepest folder that is removed; deeper ones come from links into each other.
const DEPTH_MAX: usize = 1024;

/// What a file has beside its content.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Attributes {
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) modified_s: i64,
    /// Names and values of extended attributes.
    pub(super) extended: Vec<(String, Vec<u8>)>,
}

/// Returns the extended attributes of a file that are kept: those of users, and capabilities of programs.
pub(super) fn extended<R: Read>(
    entry: &mut tar::Entry<'_, R>,
) -> io::Result<Vec<(String, Vec<u8>)>> {
    let mut kept = Vec::new();
    for extension in entry.pax_extensions()?.into_iter().flatten() {
        let extension = extension?;
        let name = extension
            .key()
            .ok()
            .and_then(|it| it.strip_prefix("SCHILY.xattr."));
        let Some(name) = name.filter(|it| it.starts_with("user.") || *it == "security.capability")
        else {
            continue;
        };
        if kept.len() >= EXTENDED_MAX || extension.value_bytes().len() > EXTENDED_LEN_MAX_BYTES {
            return Err(refused("it has too many or too long extended attributes"));
        }
        kept.push((name.to_owned(), extension.value_bytes().to_vec()));
    }
    Ok(kept)
}

/// The files of an image that is made.
pub(super) struct Tree<'a> {
    root: &'a OwnedFd,
    /// Whether owners can be set.
    is_root: bool,
}

impl<'a> Tree<'a> {
    pub(super) fn new(root: &'a OwnedFd) -> Self {
        Self {
            root,
            is_root: rustix::process::geteuid().is_root(),
        }
    }

    /// Makes a folder, or changes one that is there.
    pub(super) fn make_folder(&self, path: &Path, attributes: &Attributes) -> io::Result<()> {
        let Some(name) = path.file_name() else {
            return self.give(self.root, OsStr::new("."), attributes);
        };
        let parent = self.parent(path)?;
        if kind(&parent, name)? != Some(FileType::Directory) {
            self.make_way(&parent, name)?;
            mkdirat(&parent, name, Mode::RWXU)?;
        }
        self.give(&parent, name, attributes)
    }

    /// Makes a file, and returns the bytes that it takes.
    pub(super) fn make_file(
        &self,
        path: &Path,
        content: impl Read,
        attributes: &Attributes,
    ) -> io::Result<u64> {
        let (parent, name) = self.place(path)?;
        let flags =
            OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat(&parent, name, flags, Mode::RUSR | Mode::WUSR)?;
        let mut file = File::from(file);
        let len_bytes = copy(content, &mut file)?;
        self.give(&parent, name, attributes)?;
        for (name, value) in &attributes.extended {
            match fsetxattr(&file, name.as_str(), value, XattrFlags::empty()) {
                // The file system has none, or this user may not.
                Ok(()) | Err(Errno::OPNOTSUPP | Errno::PERM) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(len_bytes)
    }

    /// Makes a symbolic link; where it leads is up to who reads it.
    pub(super) fn make_link(
        &self,
        path: &Path,
        target: &OsStr,
        attributes: &Attributes,
    ) -> io::Result<()> {
        let (parent, name) = self.place(path)?;
        symlinkat(target, &parent, name)?;
        self.give(&parent, name, attributes)
    }

    /// Gives a file of the image another name.
    pub(super) fn make_second_name(&self, path: &Path, target: &Path) -> io::Result<()> {
        let missing = || refused("a hard link has a target that the image does not have");
        let target_name = target.file_name().ok_or_else(missing)?;
        let target_parent = self.parent(target)?;
        if kind(&target_parent, target_name)?.is_none_or(|it| it == FileType::Directory) {
            return Err(missing());
        }
        let (parent, name) = self.place(path)?;
        match linkat(&target_parent, target_name, &parent, name, AtFlags::empty()) {
            Err(Errno::NOENT) => Err(refused("a hard link has itself as its target")),
            made => Ok(made?),
        }
    }

    pub(super) fn make_fifo(&self, path: &Path, attributes: &Attributes) -> io::Result<()> {
        let (parent, name) = self.place(path)?;
        mknodat(&parent, name, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)?;
        self.give(&parent, name, attributes)
    }

    /// Removes a file or a folder with all that is in it, if there is one.
    pub(super) fn remove(&self, path: &Path) -> io::Result<()> {
        let Some(name) = path.file_name() else {
            return Err(refused("the image hides its own root"));
        };
        match beneath::open(self.root, parent_of(path), Links::InRoot) {
            Ok(parent) => remove(&parent, name, 0),
            Err(error) if is_absent(&error) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Removes all that a folder has, except what is to be kept.
    pub(super) fn clear(&self, path: &Path, kept: &HashSet<PathBuf>) -> io::Result<()> {
        match beneath::open(self.root, path, Links::InRoot) {
            Ok(folder) => clear(&folder, path, kept),
            Err(error) if is_absent(&error) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Opens the folder that a path's last part is in, made where it is missing.
    fn parent(&self, path: &Path) -> io::Result<OwnedFd> {
        beneath::make_folder(self.root, parent_of(path), 0o755, Links::InRoot)
    }

    /// Returns the folder and the name of a path, where nothing is any more.
    fn place<'p>(&self, path: &'p Path) -> io::Result<(OwnedFd, &'p OsStr)> {
        let name = path
            .file_name()
            .ok_or_else(|| refused("the root of the image is no folder"))?;
        let parent = self.parent(path)?;
        self.make_way(&parent, name)?;
        Ok((parent, name))
    }

    fn make_way(&self, parent: &OwnedFd, name: &OsStr) -> io::Result<()> {
        remove(parent, name, 0)
    }

    /// Sets owner, mode and time, in this order: a change of owner takes rights away.
    fn give(&self, parent: &OwnedFd, name: &OsStr, attributes: &Attributes) -> io::Result<()> {
        if self.is_root {
            let (uid, gid) = (Uid::from_raw(attributes.uid), Gid::from_raw(attributes.gid));
            chownat(
                parent,
                name,
                Some(uid),
                Some(gid),
                AtFlags::SYMLINK_NOFOLLOW,
            )?;
        }
        if kind(parent, name)? != Some(FileType::Symlink) {
            // Nobody else changes these files, so the name still is no link.
            chmodat(
                parent,
                name,
                Mode::from_raw_mode(attributes.mode),
                AtFlags::empty(),
            )?;
        }
        let modified = Timespec {
            tv_sec: attributes.modified_s,
            tv_nsec: 0,
        };
        let accessed = Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_OMIT,
        };
        let times = Timestamps {
            last_access: accessed,
            last_modification: modified,
        };
        Ok(utimensat(parent, name, &times, AtFlags::SYMLINK_NOFOLLOW)?)
    }
}

fn parent_of(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new(""))
}

fn is_absent(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

/// Returns what has a name, links not followed.
fn kind(parent: impl AsFd, name: &OsStr) -> io::Result<Option<FileType>> {
    match statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(found) => Ok(Some(FileType::from_raw_mode(found.st_mode))),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Returns the names in a folder.
fn names(folder: impl AsFd) -> io::Result<Vec<Vec<u8>>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let open = openat(folder, ".", flags, Mode::empty())?;
    let mut names = Vec::new();
    for entry in Dir::read_from(open)? {
        let name = entry?.file_name().to_bytes().to_owned();
        if name != b"." && name != b".." {
            names.push(name);
        }
    }
    Ok(names)
}

fn remove(parent: impl AsFd, name: &OsStr, depth: usize) -> io::Result<()> {
    if depth > DEPTH_MAX {
        return Err(refused("folders are too deep to be removed"));
    }
    let is_folder = match kind(parent.as_fd(), name)? {
        None => return Ok(()),
        Some(kind) => kind == FileType::Directory,
    };
    if is_folder {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let folder = openat(parent.as_fd(), name, flags, Mode::empty())?;
        for inner in names(&folder)? {
            remove(&folder, OsStr::from_bytes(&inner), depth + 1)?;
        }
    }
    let flags = if is_folder {
        AtFlags::REMOVEDIR
    } else {
        AtFlags::empty()
    };
    Ok(unlinkat(parent, name, flags)?)
}

fn clear(folder: &OwnedFd, path: &Path, kept: &HashSet<PathBuf>) -> io::Result<()> {
    for name in names(folder)? {
        let name = OsStr::from_bytes(&name);
        let inner = path.join(name);
        if !kept.contains(&inner) {
            remove(folder, name, 0)?;
        } else if kind(folder, name)? == Some(FileType::Directory) {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            clear(&openat(folder, name, flags, Mode::empty())?, &inner, kept)?;
        }
    }
    Ok(())
}

/// Copies content with holes where it has nothing but zeroes, and returns the bytes that were written.
fn copy(mut content: impl Read, file: &mut File) -> io::Result<u64> {
    let mut piece = vec![0; PIECE_LEN_BYTES];
    let (mut end, mut written) = (0, 0);
    loop {
        let len = fill(&mut content, &mut piece)?;
        if len == 0 {
            break;
        }
        let len_bytes = u64::try_from(len).unwrap_or_default();
        if piece[..len].iter().any(|it| *it != 0) {
            file.seek(SeekFrom::Start(end))?;
            file.write_all(&piece[..len])?;
            written += len_bytes;
        }
        end += len_bytes;
    }
    file.set_len(end)?;
    Ok(written)
}

fn fill(content: &mut impl Read, piece: &mut [u8]) -> io::Result<usize> {
    let mut len = 0;
    while len < piece.len() {
        match content.read(&mut piece[len..]) {
            Ok(0) => break,
            Ok(more) => len += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(len)
}
