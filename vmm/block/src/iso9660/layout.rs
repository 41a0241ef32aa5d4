//! Where everything lies on the volume: directories first, then the files, each on whole blocks.

use std::collections::BTreeSet;

use super::names::{self, Joliet};
use super::records;
use super::tree::{Node, Tree};
use super::{BLOCK_BYTES, IsoError};

/// Blocks before the volume descriptors, which belong to the boot loader.
const SYSTEM_BLOCKS: u64 = 16;
/// Primary and Joliet descriptor and the terminator.
const DESCRIPTOR_BLOCKS: u64 = 3;

/// A stretch of the volume.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Extent {
    pub(super) block: u32,
    pub(super) len_bytes: u32,
}

/// One name in a directory.
#[derive(Debug)]
pub(super) struct Entry {
    /// The name as it was given, which Rock Ridge keeps.
    pub(super) name: String,
    /// The name by ECMA-119 level 1.
    pub(super) iso_name: Vec<u8>,
    /// The name in UCS-2.
    pub(super) joliet_name: Joliet,
    pub(super) target: Target,
}

/// What a name stands for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Target {
    /// A directory, by its number.
    Directory(usize),
    /// A file, by its number.
    File(usize),
}

/// A directory with a place in both trees.
#[derive(Debug)]
pub(super) struct Directory {
    pub(super) parent: usize,
    pub(super) iso_name: Vec<u8>,
    pub(super) joliet_name: Joliet,
    pub(super) entries: Vec<Entry>,
    pub(super) primary: Extent,
    pub(super) joliet: Extent,
    /// Rock Ridge fields that did not fit into the records.
    pub(super) continuation: Extent,
}

impl Directory {
    fn new(parent: usize, iso_name: Vec<u8>, joliet_name: Joliet) -> Self {
        Self {
            parent,
            iso_name,
            joliet_name,
            entries: Vec::new(),
            primary: Extent::default(),
            joliet: Extent::default(),
            continuation: Extent::default(),
        }
    }

    /// Counts the directories inside.
    pub(super) fn subdirectories(&self) -> usize {
        self.entries
            .iter()
            .filter(|e| matches!(e.target, Target::Directory(_)))
            .count()
    }
}

/// A file with a place.
#[derive(Debug)]
pub(super) struct File<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) extent: Extent,
}

/// The whole volume. Directory 0 is the root; a parent comes before its children, level by level.
#[derive(Debug)]
pub(super) struct Layout<'a> {
    pub(super) directories: Vec<Directory>,
    pub(super) files: Vec<File<'a>>,
    /// The path tables, little-endian then big-endian.
    pub(super) primary_tables: [Extent; 2],
    pub(super) joliet_tables: [Extent; 2],
    pub(super) blocks: u32,
}

impl<'a> Layout<'a> {
    pub(super) fn new(tree: &'a Tree) -> Result<Self, IsoError> {
        let mut layout = Self {
            directories: Vec::new(),
            files: Vec::new(),
            primary_tables: Default::default(),
            joliet_tables: Default::default(),
            blocks: 0,
        };
        layout.collect(tree);
        layout.place()?;
        Ok(layout)
    }

    /// Numbers directories level by level, as path tables want them, and files as they come.
    fn collect(&mut self, tree: &'a Tree) {
        self.directories
            .push(Directory::new(0, vec![0], Joliet::root()));
        let mut nodes = vec![tree.root()];
        let mut next = 0;
        while next < nodes.len() {
            let mut taken = (BTreeSet::new(), BTreeSet::new());
            let mut entries = Vec::new();
            for (name, node) in nodes[next] {
                let is_file = matches!(node, Node::File(_));
                let iso_name = names::iso_name(name, is_file, &mut taken.0);
                let joliet_name = names::joliet_name(name, &mut taken.1);
                entries.push((name.clone(), iso_name, joliet_name, node));
            }
            entries.sort_by(|a, b| a.1.cmp(&b.1));
            for (name, iso_name, joliet_name, node) in entries {
                let target = match node {
                    Node::File(bytes) => {
                        self.files.push(File {
                            bytes,
                            extent: Extent::default(),
                        });
                        Target::File(self.files.len() - 1)
                    }
                    Node::Directory(children) => {
                        nodes.push(children);
                        let (iso, joliet) = (iso_name.clone(), joliet_name.clone());
                        self.directories.push(Directory::new(next, iso, joliet));
                        Target::Directory(self.directories.len() - 1)
                    }
                };
                let entry = Entry {
                    name,
                    iso_name,
                    joliet_name,
                    target,
                };
                self.directories[next].entries.push(entry);
            }
            next += 1;
        }
    }

    /// Gives everything its place. Sizes do not depend on places, so one pass is enough.
    fn place(&mut self) -> Result<(), IsoError> {
        let mut at = Cursor {
            block: SYSTEM_BLOCKS + DESCRIPTOR_BLOCKS,
        };
        let primary: usize = self
            .directories
            .iter()
            .map(|d| path_record(d.iso_name.len()))
            .sum();
        let joliet: usize = self
            .directories
            .iter()
            .map(|d| path_record(d.joliet_name.bytes().len()))
            .sum();
        self.primary_tables = [at.take(primary)?, at.take(primary)?];
        self.joliet_tables = [at.take(joliet)?, at.take(joliet)?];
        for (index, directory) in self.directories.iter_mut().enumerate() {
            let size = records::primary_size(directory, index == 0);
            directory.primary = at.take(size.records)?;
            directory.continuation = at.take(size.continuation)?;
        }
        for directory in &mut self.directories {
            directory.joliet = at.take(records::joliet_size(directory))?;
        }
        for file in &mut self.files {
            file.extent = at.take(file.bytes.len())?;
        }
        self.blocks = at.end()?;
        Ok(())
    }
}

/// Length of a path table record (ECMA-119 §9.4), which is even.
fn path_record(name_bytes: usize) -> usize {
    (8 + name_bytes).next_multiple_of(2)
}

struct Cursor {
    block: u64,
}

impl Cursor {
    fn take(&mut self, len: usize) -> Result<Extent, IsoError> {
        let too_large = |_| IsoError::VolumeTooLarge;
        let len_bytes = u32::try_from(len).map_err(too_large)?;
        let extent = Extent {
            block: self.end()?,
            len_bytes,
        };
        self.block += u64::from(len_bytes).div_ceil(BLOCK_BYTES);
        self.end().map(|_| extent)
    }

    fn end(&self) -> Result<u32, IsoError> {
        u32::try_from(self.block).map_err(|_| IsoError::VolumeTooLarge)
    }
}
