//! Directory records with Rock Ridge fields (ECMA-119 §9.1, SUSP, IEEE P1282).

use super::BLOCK_BYTES;
use super::layout::{Directory, Entry, Extent, Layout, Target};
use super::time::Time;
use crate::width::{to_u64, to_usize};

/// The longest record: its length is a byte, and even.
const MAX_RECORD_BYTES: usize = 254;
/// The most of a name that one NM field holds.
const NAME_PART_BYTES: usize = 250;
const FLAG_DIRECTORY: u8 = 2;
const DIRECTORY_MODE: u32 = 0o040_755;
const FILE_MODE: u32 = 0o100_644;

/// How much room a directory takes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Size {
    pub(super) records: usize,
    pub(super) continuation: usize,
}

/// Measures a directory of the primary tree.
pub(super) fn primary_size(directory: &Directory, is_root: bool) -> Size {
    let nowhere = |_| (Extent::default(), 0);
    let places = Places {
        parent: Extent::default(),
        parent_links: 0,
        is_root,
        of: &nowhere,
    };
    let time = Time::new(std::time::UNIX_EPOCH);
    let (records, continuation) = encode_primary(directory, &places, time);
    Size {
        records: records.len(),
        continuation: continuation.len(),
    }
}

/// Measures a directory of the Joliet tree.
pub(super) fn joliet_size(directory: &Directory) -> usize {
    let nowhere = |_| Extent::default();
    encode_joliet(
        directory,
        Extent::default(),
        &nowhere,
        Time::new(std::time::UNIX_EPOCH),
    )
    .len()
}

/// Writes the records of a directory of the primary tree, and what continues them.
pub(super) fn primary(layout: &Layout<'_>, index: usize, time: Time) -> (Vec<u8>, Vec<u8>) {
    let directory = &layout.directories[index];
    let parent = &layout.directories[directory.parent];
    let of = |target| match target {
        Target::Directory(i) => (layout.directories[i].primary, links(&layout.directories[i])),
        Target::File(i) => (layout.files[i].extent, 1),
    };
    let (parent, parent_links) = (parent.primary, links(parent));
    let places = Places {
        parent,
        parent_links,
        is_root: index == 0,
        of: &of,
    };
    encode_primary(directory, &places, time)
}

/// Writes the records of a directory of the Joliet tree.
pub(super) fn joliet(layout: &Layout<'_>, index: usize, time: Time) -> Vec<u8> {
    let directory = &layout.directories[index];
    let of = |target| match target {
        Target::Directory(i) => layout.directories[i].joliet,
        Target::File(i) => layout.files[i].extent,
    };
    encode_joliet(
        directory,
        layout.directories[directory.parent].joliet,
        &of,
        time,
    )
}

/// Returns the record of a root directory as a volume descriptor holds it.
pub(super) fn root(extent: Extent, time: Time) -> Vec<u8> {
    record(&[0], extent, true, time, &[])
}

fn links(directory: &Directory) -> u32 {
    u32::try_from(2 + directory.subdirectories()).unwrap_or(u32::MAX)
}

/// Where the things are that records refer to.
#[derive(Clone, Copy)]
struct Places<'a> {
    parent: Extent,
    parent_links: u32,
    is_root: bool,
    of: &'a dyn Fn(Target) -> (Extent, u32),
}

fn encode_primary(directory: &Directory, places: &Places<'_>, time: Time) -> (Vec<u8>, Vec<u8>) {
    let mut records = Blocks::default();
    let mut continuation = Blocks::default();
    let mut own = if places.is_root {
        sharing_protocol()
    } else {
        Vec::new()
    };
    own.extend(attributes(true, links(directory), time));
    if places.is_root {
        own.extend(extension_reference());
    }
    records.push(&record(&[0], directory.primary, true, time, &own));
    let parent = attributes(true, places.parent_links, time);
    records.push(&record(&[1], places.parent, true, time, &parent));
    for entry in &directory.entries {
        let (extent, links) = (places.of)(entry.target);
        let is_directory = matches!(entry.target, Target::Directory(_));
        let mut fields = attributes(is_directory, links, time);
        let names = alternate_names(entry);
        let fixed = 33 + (entry.iso_name.len() | 1);
        if fixed + fields.len() + names.len() <= MAX_RECORD_BYTES {
            fields.extend(names);
        } else {
            let at = to_u64(continuation.push(&names));
            fields.extend(continued(directory.continuation.block, at, names.len()));
        }
        records.push(&record(
            &entry.iso_name,
            extent,
            is_directory,
            time,
            &fields,
        ));
    }
    (records.whole(), continuation.bytes)
}

fn encode_joliet(
    directory: &Directory,
    parent: Extent,
    of: &dyn Fn(Target) -> Extent,
    time: Time,
) -> Vec<u8> {
    let mut records = Blocks::default();
    records.push(&record(&[0], directory.joliet, true, time, &[]));
    records.push(&record(&[1], parent, true, time, &[]));
    let mut entries: Vec<&Entry> = directory.entries.iter().collect();
    entries.sort_by_key(|entry| &entry.joliet_name);
    for entry in entries {
        let is_directory = matches!(entry.target, Target::Directory(_));
        let name = entry.joliet_name.bytes();
        records.push(&record(name, of(entry.target), is_directory, time, &[]));
    }
    records.whole()
}

/// Collects items none of which crosses the end of a block.
#[derive(Default)]
struct Blocks {
    bytes: Vec<u8>,
}

impl Blocks {
    /// Adds an item and returns where it starts.
    fn push(&mut self, item: &[u8]) -> usize {
        let block = to_usize(BLOCK_BYTES);
        if self.bytes.len() % block + item.len() > block {
            self.bytes
                .resize(self.bytes.len().next_multiple_of(block), 0);
        }
        self.bytes.extend(item);
        self.bytes.len() - item.len()
    }

    /// Returns whole blocks.
    fn whole(mut self) -> Vec<u8> {
        self.bytes
            .resize(self.bytes.len().next_multiple_of(to_usize(BLOCK_BYTES)), 0);
        self.bytes
    }
}

fn record(name: &[u8], extent: Extent, is_directory: bool, time: Time, fields: &[u8]) -> Vec<u8> {
    let mut record = vec![0, 0];
    record.extend(both_u32(extent.block));
    record.extend(both_u32(extent.len_bytes));
    record.extend(time.record());
    record.push(if is_directory { FLAG_DIRECTORY } else { 0 });
    record.extend([0, 0]);
    record.extend(both_u16(1));
    record.push(short(name.len()));
    record.extend(name);
    record.resize(record.len().next_multiple_of(2), 0);
    record.extend(fields);
    record.resize(record.len().next_multiple_of(2), 0);
    record[0] = short(record.len());
    record
}

/// SP, which says that the fields that follow are meant (SUSP §5.3).
fn sharing_protocol() -> Vec<u8> {
    field(b"SP", &[0xbe, 0xef, 0])
}

/// ER, which names Rock Ridge (SUSP §5.5, IEEE P1282 §4.3).
fn extension_reference() -> Vec<u8> {
    let mut data = vec![10, 0, 0, 1];
    data.extend(b"RRIP_1991A");
    field(b"ER", &data)
}

/// PX and TF: mode, links, owner and times (IEEE P1282 §4.1.1, §4.1.6).
fn attributes(is_directory: bool, links: u32, time: Time) -> Vec<u8> {
    let mode = if is_directory {
        DIRECTORY_MODE
    } else {
        FILE_MODE
    };
    let owner = [mode, links, 0, 0].map(both_u32).concat();
    let mut fields = field(b"PX", &owner);
    // Times of modification, access and attribute change.
    let mut times = vec![0x0e];
    times.extend([time.record(); 3].concat());
    fields.extend(field(b"TF", &times));
    fields
}

/// NM, in as many parts as the name needs (IEEE P1282 §4.1.4).
fn alternate_names(entry: &Entry) -> Vec<u8> {
    let parts: Vec<&[u8]> = entry.name.as_bytes().chunks(NAME_PART_BYTES).collect();
    let named = |(index, part): (usize, &&[u8])| {
        let continues = u8::from(index + 1 < parts.len());
        field(b"NM", &[&[continues], *part].concat())
    };
    parts.iter().enumerate().flat_map(named).collect()
}

/// CE, which says where more fields are (SUSP §5.1).
fn continued(first_block: u32, at: u64, len: usize) -> Vec<u8> {
    let narrow = |n: u64| u32::try_from(n).expect("a directory has less than 4 GiB");
    let block = first_block.saturating_add(narrow(at / BLOCK_BYTES));
    let place = [block, narrow(at % BLOCK_BYTES), narrow(to_u64(len))];
    field(b"CE", &place.map(both_u32).concat())
}

fn field(signature: &[u8; 2], data: &[u8]) -> Vec<u8> {
    [&signature[..], &[short(4 + data.len()), 1], data].concat()
}

fn short(len: usize) -> u8 {
    u8::try_from(len).expect("names are cut so that lengths fit a byte")
}

/// Both-byte order (ECMA-119 §7.3.3).
pub(super) fn both_u32(value: u32) -> [u8; 8] {
    let mut both = [0; 8];
    both[..4].copy_from_slice(&value.to_le_bytes());
    both[4..].copy_from_slice(&value.to_be_bytes());
    both
}

/// Both-byte order (ECMA-119 §7.2.3).
pub(super) fn both_u16(value: u16) -> [u8; 4] {
    let mut both = [0; 4];
    both[..2].copy_from_slice(&value.to_le_bytes());
    both[2..].copy_from_slice(&value.to_be_bytes());
    both
}
