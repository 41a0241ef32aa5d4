//! Trees of sysfs and `/dev` for tests, planted from texts.
//!
//! A line makes one entry; paths are below the tree's folder and missing folders above them are made:
//!
//! ```text
//! # comment
//! d dev/vfio
//! f sys/devices/pci0000:00/0000:00:02.0/vendor 0x8086
//! l sys/bus/pci/devices/0000:00:02.0 -> ../../../devices/pci0000:00/0000:00:02.0
//! ```
//!
//! `\n` in a file's text is a new line. A later line for the same file overwrites it. Device nodes are plain files, since not
//! every user can make them.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::source::Host;

/// Plants a tree.
pub(crate) fn plant(text: &str) -> TempDir {
    let dir = TempDir::new().unwrap();
    add(&dir, text);
    dir
}

/// Plants the tree of a file below `device-plugins/fixtures`, which is named without its `.tree`.
pub(crate) fn fixture(name: &str) -> TempDir {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures");
    let file = folder.join(name).with_extension("tree");
    let text = fs::read_to_string(&file).unwrap_or_else(|error| panic!("{file:?}: {error}"));
    plant(&text)
}

/// Adds entries to a tree; a link that is there is made anew.
pub(crate) fn add(dir: &TempDir, text: &str) {
    for (index, line) in text.lines().enumerate() {
        let line = line.trim_start();
        if !line.is_empty() && !line.starts_with('#') {
            let made = add_entry(dir.path(), line);
            assert!(made.is_some(), "line {}: {line:?}", index + 1);
        }
    }
}

fn add_entry(root: &Path, line: &str) -> Option<()> {
    let (kind, rest) = line.split_once(' ')?;
    match kind {
        "d" => fs::create_dir_all(root.join(rest.trim_end())).ok(),
        "f" => {
            let (path, text) = rest.split_once(' ').unwrap_or((rest, ""));
            fs::write(below(root, path)?, text.replace("\\n", "\n")).ok()
        }
        "l" => {
            let (path, target) = rest.split_once(" -> ")?;
            let path = below(root, path.trim_end())?;
            let _was_there = fs::remove_file(&path);
            symlink(target.trim_end(), path).ok()
        }
        _ => None,
    }
}

/// A path in the tree whose parent is made.
fn below(root: &Path, path: &str) -> Option<PathBuf> {
    let path = root.join(path);
    fs::create_dir_all(path.parent()?).ok()?;
    Some(path)
}

/// The host whose folders are those of a tree: `sys`, `dev`, `kubelet/device-plugins`, `kubelet/pods` and `private`, each
/// there or not.
pub(crate) fn host(dir: &TempDir) -> Host {
    Host {
        sys_dir: dir.path().join("sys"),
        dev_dir: dir.path().join("dev"),
        plugin_dir: dir.path().join("kubelet/device-plugins"),
        pods_dir: dir.path().join("kubelet/pods"),
        private_dir: dir.path().join("private"),
    }
}

#[cfg(test)]
mod tests {
    use super::{add, host, plant};
    use crate::sysfs;

    #[test]
    fn entries_are_planted_as_written() {
        let dir = plant(
            "# a card\n\nf sys/a/name GRID T4\\n\n f sys/a/vendor 0x10DE\nl sys/b/driver -> ../a\nd dev/x\n",
        );
        let sys = host(&dir).sys_dir;
        assert_eq!(sysfs::attribute(&sys.join("a"), "name").unwrap(), "GRID T4");
        assert_eq!(sysfs::hex(&sys.join("b/driver"), "vendor"), Some(0x10de));
        assert_eq!(sysfs::link_name(&sys.join("b"), "driver").unwrap(), "a");
        assert!(host(&dir).dev_dir.join("x").is_dir());
        add(&dir, "l sys/b/driver -> ../c");
        assert_eq!(sysfs::link_name(&sys.join("b"), "driver").unwrap(), "c");
    }
}
