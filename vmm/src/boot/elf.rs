//! ELF executables for x86-64: program headers and the note that names a PVH entry point
//! (System V ABI ch. 5; Xen `public/elfnote.h`).

use super::file::{u16_at, u32_at, u64_at};

const MAGIC: &[u8] = b"\x7fELF";
const CLASS_64: u8 = 2;
const LITTLE_ENDIAN: u8 = 1;
const MACHINE_X86_64: u16 = 62;
const HEADER_BYTES: usize = 64;
const PROGRAM_HEADER_BYTES: usize = 56;
/// More than any kernel has.
const PROGRAM_HEADERS_MAX: u16 = 128;
const PT_LOAD: u32 = 1;
const PT_NOTE: u32 = 4;
const NOTE_PHYS32_ENTRY: u32 = 18;

/// A piece of the file that belongs at a physical address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Segment<'a> {
    /// Physical address.
    pub(super) gpa: u64,
    /// What the file holds.
    pub(super) bytes: &'a [u8],
    /// Length in memory; what the file does not hold is zero.
    pub(super) memory_len_bytes: u64,
}

/// Where a piece of a file belongs, for a file that comes bit by bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Extent {
    /// First byte in the file.
    pub(super) file_at: u64,
    /// Length in the file.
    pub(super) file_len_bytes: u64,
    /// Physical address.
    pub(super) gpa: u64,
    /// Length in memory; what the file does not hold is zero.
    pub(super) memory_len_bytes: u64,
}

/// An executable.
#[derive(Debug)]
pub(super) struct Elf<'a> {
    pub(super) entry_gpa: u64,
    pub(super) segments: Vec<Segment<'a>>,
    /// Entry point of the PVH boot protocol.
    pub(super) pvh_entry: Option<u32>,
}

/// Tells whether a file claims to be ELF.
pub(super) fn is_elf(file: &[u8]) -> bool {
    file.starts_with(MAGIC)
}

/// Reads an executable; the error says what is wrong with it.
pub(super) fn parse(file: &[u8]) -> Result<Elf<'_>, &'static str> {
    let mut elf = Elf {
        entry_gpa: entry(file)?,
        segments: Vec::new(),
        pvh_entry: None,
    };
    for header in program_headers(file)? {
        let kind = u32_at(header, 0).unwrap_or(0);
        if kind == PT_LOAD {
            elf.segments.extend(segment(file, header)?);
        } else if kind == PT_NOTE {
            elf.pvh_entry = elf.pvh_entry.or(pvh_entry(contents(file, header)?));
        }
    }
    if elf.segments.is_empty() {
        return Err("the ELF file has nothing to load");
    }
    Ok(elf)
}

/// Reads entry point and segments from the start of an executable; the error says what is wrong with it.
pub(super) fn extents(head: &[u8]) -> Result<(u64, Vec<Extent>), &'static str> {
    let entry_gpa = entry(head)?;
    let mut extents = Vec::new();
    for header in program_headers(head)? {
        if u32_at(header, 0) == Some(PT_LOAD) {
            extents.extend(extent(header)?);
        }
    }
    if extents.is_empty() {
        return Err("the ELF file has nothing to load");
    }
    Ok((entry_gpa, extents))
}

fn entry(file: &[u8]) -> Result<u64, &'static str> {
    if !is_elf(file) {
        return Err("it does not start like ELF");
    }
    if file.len() < HEADER_BYTES {
        return Err("the ELF header is cut off");
    }
    if file[4] != CLASS_64 || file[5] != LITTLE_ENDIAN || u16_at(file, 18) != Some(MACHINE_X86_64) {
        return Err("the ELF file is not for x86-64");
    }
    u64_at(file, 24).ok_or("the ELF header is cut off")
}

fn program_headers(file: &[u8]) -> Result<impl Iterator<Item = &[u8]>, &'static str> {
    let cut_off = "the ELF program headers are cut off";
    let start = u64_at(file, 32).and_then(|at| usize::try_from(at).ok());
    let size = u16_at(file, 54).unwrap_or(0);
    let count = u16_at(file, 56).unwrap_or(0);
    if usize::from(size) != PROGRAM_HEADER_BYTES || count > PROGRAM_HEADERS_MAX {
        return Err("the ELF program headers are malformed");
    }
    let start = start.ok_or(cut_off)?;
    let end = start.checked_add(usize::from(count) * PROGRAM_HEADER_BYTES);
    let headers = end.and_then(|end| file.get(start..end)).ok_or(cut_off)?;
    Ok(headers.chunks_exact(PROGRAM_HEADER_BYTES))
}

fn contents<'a>(file: &'a [u8], header: &[u8]) -> Result<&'a [u8], &'static str> {
    let offset = u64_at(header, 8).and_then(|value| usize::try_from(value).ok());
    let len = u64_at(header, 32).and_then(|value| usize::try_from(value).ok());
    offset
        .zip(len)
        .and_then(|(offset, len)| file.get(offset..offset.checked_add(len)?))
        .ok_or("an ELF segment is cut off")
}

fn extent(header: &[u8]) -> Result<Option<Extent>, &'static str> {
    let field = |at| u64_at(header, at).unwrap_or(0);
    let extent = Extent {
        file_at: field(8),
        file_len_bytes: field(32),
        gpa: field(24),
        memory_len_bytes: field(40),
    };
    let ends = [
        extent.file_at.checked_add(extent.file_len_bytes),
        extent.gpa.checked_add(extent.memory_len_bytes),
    ];
    if extent.memory_len_bytes < extent.file_len_bytes || ends.contains(&None) {
        return Err("an ELF segment has an impossible length");
    }
    Ok((extent.memory_len_bytes > 0).then_some(extent))
}

fn segment<'a>(file: &'a [u8], header: &[u8]) -> Result<Option<Segment<'a>>, &'static str> {
    let bytes = contents(file, header)?;
    Ok(extent(header)?.map(|extent| Segment {
        gpa: extent.gpa,
        bytes,
        memory_len_bytes: extent.memory_len_bytes,
    }))
}

/// Looks through notes: name length, contents length, type, then both padded to 4 bytes.
fn pvh_entry(mut notes: &[u8]) -> Option<u32> {
    loop {
        let name_len = usize::try_from(u32_at(notes, 0)?).ok()?;
        let contents_len = usize::try_from(u32_at(notes, 4)?).ok()?;
        let kind = u32_at(notes, 8)?;
        let contents_at = 12_usize.checked_add(name_len.checked_next_multiple_of(4)?)?;
        let name = notes.get(12..12_usize.checked_add(name_len)?)?;
        if kind == NOTE_PHYS32_ENTRY && name.starts_with(b"Xen") {
            return u32_at(notes, contents_at);
        }
        let next = contents_at.checked_add(contents_len.checked_next_multiple_of(4)?)?;
        notes = notes.get(next..)?;
    }
}

#[cfg(test)]
mod tests;
