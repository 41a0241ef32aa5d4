//! What is mounted where in our view (proc_pid_mountinfo(5)).

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// One mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountEntry {
    /// Where.
    pub point: PathBuf,
    /// What of its file system is seen there.
    pub root: PathBuf,
    /// Whether what is mounted below it is seen elsewhere.
    pub is_shared: bool,
    /// Kind of file system.
    pub kind: String,
    /// Options of the file system; control groups name their controllers there.
    pub options: String,
}

/// All mounts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MountTable {
    /// In the order in which they were mounted.
    pub entries: Vec<MountEntry>,
}

impl MountTable {
    /// Reads the mounts as this process sees them.
    ///
    /// # Errors
    ///
    /// Fails without `/proc`.
    pub fn read() -> io::Result<Self> {
        Ok(Self::parse(&fs::read("/proc/self/mountinfo")?))
    }

    fn parse(text: &[u8]) -> Self {
        let entries = text
            .split(|byte| *byte == b'\n')
            .filter_map(entry)
            .collect();
        Self { entries }
    }

    /// Whether something is mounted there.
    #[must_use]
    pub fn is_mount_point(&self, path: &Path) -> bool {
        self.entries.iter().any(|entry| entry.point == path)
    }

    /// Returns mount points at and below a folder, inner ones before those around them.
    #[must_use]
    pub fn below(&self, folder: &Path) -> Vec<PathBuf> {
        let below = self.entries.iter().rev().map(|entry| &entry.point);
        below
            .filter(|point| point.starts_with(folder))
            .cloned()
            .collect()
    }
}

fn entry(line: &[u8]) -> Option<MountEntry> {
    let mut fields = line.split(|byte| *byte == b' ');
    let root = path(fields.nth(3)?);
    let point = path(fields.next()?);
    fields.next()?;
    let optional: Vec<_> = fields.by_ref().take_while(|field| *field != b"-").collect();
    let is_shared = optional.iter().any(|field| field.starts_with(b"shared:"));
    let kind = String::from_utf8_lossy(fields.next()?).into_owned();
    let options = String::from_utf8_lossy(fields.nth(1)?).into_owned();
    Some(MountEntry {
        point,
        root,
        is_shared,
        kind,
        options,
    })
}

/// Spaces and such are written as `\040`.
fn path(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [byte, tail @ ..] = rest {
        let digits = tail.get(..3).filter(|_| *byte == b'\\');
        let octal = digits
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        bytes.push(octal.unwrap_or(*byte));
        rest = octal.map_or(tail, |_| &tail[3..]);
    }
    OsString::from_vec(bytes).into()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::MountTable;

    #[test]
    fn mounts_are_read_with_odd_names() {
        let text = b"22 1 253:0 / / rw,relatime - ext4 /dev/vda rw\n\
            40 22 0:31 / /sys/fs/cgroup/cpu rw shared:9 master:1 - cgroup cgroup rw,cpu,cpuacct\n\
            50 22 253:0 /a\\040b /with\\040space/\\134x rw - ext4 /dev/vda rw\n";
        let table = MountTable::parse(text);
        assert_eq!(table.entries.len(), 3);
        assert!(table.entries[1].is_shared);
        assert_eq!(table.entries[1].options, "rw,cpu,cpuacct");
        assert_eq!(table.entries[2].root, Path::new("/a b"));
        assert!(table.is_mount_point(Path::new("/with space/\\x")));
        assert_eq!(
            table.below(Path::new("/sys")),
            [Path::new("/sys/fs/cgroup/cpu")]
        );
    }
}
