//! Volume descriptors and path tables (ECMA-119 §8 and §9.4), and the whole volume.

use super::layout::{Directory, Extent, Layout, Target};
use super::records::{self, both_u16, both_u32};
use super::time::Time;
use super::{BLOCK_BYTES, IsoError};
use crate::width::to_usize;

/// Block of the primary volume descriptor.
const PRIMARY_BLOCK: u32 = 16;
/// What says that a supplementary descriptor's names are UCS-2 level 3.
const JOLIET_ESCAPE: &[u8] = b"%/E";
/// Path tables number directories with 16 bits.
const MAX_DIRECTORIES: usize = 65_535;

/// Writes the whole volume.
pub(super) fn write(label: &str, layout: &Layout<'_>, time: Time) -> Result<Vec<u8>, IsoError> {
    if layout.directories.len() > MAX_DIRECTORIES {
        return Err(IsoError::VolumeTooLarge);
    }
    let mut volume = Volume {
        bytes: vec![0; to_usize(u64::from(layout.blocks) * BLOCK_BYTES)],
    };
    volume.put(
        PRIMARY_BLOCK,
        &descriptor(label, layout, time, Tree::Primary),
    );
    volume.put(
        PRIMARY_BLOCK + 1,
        &descriptor(label, layout, time, Tree::Joliet),
    );
    volume.put(PRIMARY_BLOCK + 2, &terminator());
    for (tree, tables) in [
        (Tree::Primary, layout.primary_tables),
        (Tree::Joliet, layout.joliet_tables),
    ] {
        volume.put(
            tables[0].block,
            &path_table(layout, tree, u32::to_le_bytes, u16::to_le_bytes),
        );
        volume.put(
            tables[1].block,
            &path_table(layout, tree, u32::to_be_bytes, u16::to_be_bytes),
        );
    }
    for (index, directory) in layout.directories.iter().enumerate() {
        let (records, continuation) = records::primary(layout, index, time);
        volume.put(directory.primary.block, &records);
        volume.put(directory.continuation.block, &continuation);
        volume.put(
            directory.joliet.block,
            &records::joliet(layout, index, time),
        );
    }
    for file in &layout.files {
        volume.put(file.extent.block, file.bytes);
    }
    Ok(volume.bytes)
}

struct Volume {
    bytes: Vec<u8>,
}

impl Volume {
    fn put(&mut self, block: u32, bytes: &[u8]) {
        let at = to_usize(u64::from(block) * BLOCK_BYTES);
        self.bytes[at..][..bytes.len()].copy_from_slice(bytes);
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tree {
    Primary,
    Joliet,
}

impl Tree {
    fn extent(self, directory: &Directory) -> Extent {
        match self {
            Self::Primary => directory.primary,
            Self::Joliet => directory.joliet,
        }
    }

    fn name(self, directory: &Directory) -> &[u8] {
        match self {
            Self::Primary => &directory.iso_name,
            Self::Joliet => directory.joliet_name.bytes(),
        }
    }

    /// Fills a field of text with spaces behind it, in the character set of the tree.
    fn text(self, text: &str, len: usize) -> Vec<u8> {
        let mut bytes: Vec<u8> = match self {
            Self::Primary => text.bytes().collect(),
            Self::Joliet => text.encode_utf16().flat_map(u16::to_be_bytes).collect(),
        };
        while bytes.len() < len {
            bytes.extend(if self == Self::Joliet {
                &b"\0 "[..]
            } else {
                b" "
            });
        }
        bytes.truncate(len);
        // A field of odd length ends in half a UCS-2 space.
        if self == Self::Joliet && len % 2 == 1 {
            bytes[len - 1] = 0;
        }
        bytes
    }
}

/// Writes a primary or supplementary descriptor (ECMA-119 §8.4, §8.5).
fn descriptor(label: &str, layout: &Layout<'_>, time: Time, tree: Tree) -> Vec<u8> {
    let joliet = tree == Tree::Joliet;
    let tables = if joliet {
        layout.joliet_tables
    } else {
        layout.primary_tables
    };
    let mut d = vec![if joliet { 2 } else { 1 }];
    d.extend(b"CD001\x01\0");
    d.extend(tree.text("LINUX", 32));
    d.extend(tree.text(label, 32));
    d.extend([0; 8]);
    d.extend(both_u32(layout.blocks));
    d.extend(if joliet { JOLIET_ESCAPE } else { &[] });
    d.resize(120, 0);
    d.extend(both_u16(1)); // volumes in the set
    d.extend(both_u16(1)); // number of this one
    d.extend(both_u16(2048));
    d.extend(both_u32(tables[0].len_bytes));
    d.extend(tables[0].block.to_le_bytes());
    d.extend([0; 4]);
    d.extend(tables[1].block.to_be_bytes());
    d.extend([0; 4]);
    d.extend(records::root(tree.extent(&layout.directories[0]), time));
    d.extend(tree.text("", 128)); // volume set
    d.extend(tree.text("", 128)); // publisher
    d.extend(tree.text("", 128)); // preparer
    d.extend(tree.text("FERROVIRT", 128)); // application
    (0..3).for_each(|_| d.extend(tree.text("", 37))); // copyright, abstract and bibliography
    d.extend(time.descriptor()); // created
    d.extend(time.descriptor()); // modified
    d.extend(b"0000000000000000\0"); // never expires
    d.extend(time.descriptor()); // effective
    d.push(1);
    d
}

fn terminator() -> Vec<u8> {
    b"\xffCD001\x01".to_vec()
}

/// Writes a path table in one byte order (ECMA-119 §9.4).
fn path_table(
    layout: &Layout<'_>,
    tree: Tree,
    long: fn(u32) -> [u8; 4],
    word: fn(u16) -> [u8; 2],
) -> Vec<u8> {
    let order = level_order(layout, tree);
    let mut numbers = vec![0u16; layout.directories.len()];
    for (number, index) in (1..).zip(&order) {
        numbers[*index] = number;
    }
    let mut table = Vec::new();
    for index in order {
        let directory = &layout.directories[index];
        let name = tree.name(directory);
        table.push(u8::try_from(name.len()).expect("names are cut to fit a byte"));
        table.push(0);
        table.extend(long(tree.extent(directory).block));
        table.extend(word(numbers[directory.parent]));
        table.extend(name);
        table.resize(table.len().next_multiple_of(2), 0);
    }
    table
}

/// Returns the directories level by level, those of one parent in the order of their names.
fn level_order(layout: &Layout<'_>, tree: Tree) -> Vec<usize> {
    let mut order = vec![0];
    let mut next = 0;
    while next < order.len() {
        let entries = layout.directories[order[next]].entries.iter();
        let mut children: Vec<usize> = entries
            .filter_map(|entry| match entry.target {
                Target::Directory(index) => Some(index),
                Target::File(_) => None,
            })
            .collect();
        children.sort_by_key(|index| tree.name(&layout.directories[*index]));
        order.extend(children);
        next += 1;
    }
    order
}
