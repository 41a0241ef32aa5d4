//! A machine's memory and registers as an ELF core file (System V ABI ch. 5), as debuggers and `crash` read it.
//!
//! ```text
//! ELF header | program headers: PT_NOTE, a PT_LOAD for each range | notes | RAM, each range from a page on
//! ```
//!
//! Each vCPU has two notes: `CORE`/`NT_PRSTATUS` with the registers of a Linux x86-64 process, which every debugger
//! knows, and `QEMU` with the system registers, from which `crash` finds a kernel that was moved at its start.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use x86::{CpuState, Segment, TableRegister};

use crate::memory::{MemoryError, Ram, RamRange};

/// RAM is looked at and written in pieces of this size.
const PIECE_BYTES: usize = 1 << 20;
/// What is all zeroes and as long as this becomes a hole in the file.
const PAGE_BYTES: usize = 4096;
const HEADER_BYTES: u64 = 64;
const PROGRAM_HEADER_BYTES: u64 = 56;
const ET_CORE: u16 = 4;
const EM_X86_64: u16 = 62;
const PT_LOAD: u32 = 1;
const PT_NOTE: u32 = 4;
const NT_PRSTATUS: u32 = 1;
/// `struct elf_prstatus`: where the process number and the registers lie, and its length.
const PRSTATUS_PID: usize = 32;
const PRSTATUS_REGS: usize = 112;
const PRSTATUS_BYTES: usize = 336;
const KERNEL_GS_BASE: u32 = 0xc000_0102;

/// A machine that stands still.
pub(super) struct Frozen {
    pub(super) ram: Ram,
    /// vCPUs, by number.
    pub(super) vcpus: Vec<CpuState>,
}

/// Removes what was written of a file unless it is kept.
struct Partial(Option<PathBuf>);

impl Partial {
    fn keep_as(mut self, path: &Path) -> io::Result<()> {
        if let Some(partial) = &self.0 {
            fs::rename(partial, path)?;
        }
        self.0 = None;
        Ok(())
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        if let Some(path) = self.0.take()
            && let Err(error) = fs::remove_file(&path)
        {
            tracing::warn!(path = %path.display(), %error, "a part of a memory dump stays");
        }
    }
}

/// Writes the file under another name beside `path` and gives it its name when it is whole; returns its length.
pub(super) fn write(path: &Path, frozen: &Frozen) -> io::Result<u64> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".partial");
    let partial = path.with_file_name(name);
    let file = File::create(&partial)?;
    let kept = Partial(Some(partial));
    let len_bytes = write_to(&file, frozen)?;
    file.sync_data()?;
    kept.keep_as(path)?;
    Ok(len_bytes)
}

fn write_to(file: &File, frozen: &Frozen) -> io::Result<u64> {
    let notes = notes(&frozen.vcpus);
    let ranges: Vec<RamRange> = frozen.ram.ranges().to_vec();
    let ranges: Vec<RamRange> = ranges.into_iter().filter(|r| !r.read_only).collect();
    let headers = 1 + to_u64(ranges.len());
    let notes_at = HEADER_BYTES + headers * PROGRAM_HEADER_BYTES;
    let ram_at = (notes_at + to_u64(notes.len())).next_multiple_of(to_u64(PAGE_BYTES));

    let mut head = elf_header(u16::try_from(headers).unwrap_or(u16::MAX));
    head.extend(program_header(PT_NOTE, notes_at, 0, to_u64(notes.len())));
    let mut at = ram_at;
    for range in &ranges {
        head.extend(program_header(PT_LOAD, at, range.gpa, range.len_bytes));
        at += range.len_bytes;
    }
    head.extend(notes);
    file.write_all_at(&head, 0)?;
    // What is not written below is a hole.
    file.set_len(at)?;
    let mut at = ram_at;
    for range in &ranges {
        write_range(file, at, range, &frozen.ram)?;
        at += range.len_bytes;
    }
    Ok(at)
}

fn write_range(file: &File, at: u64, range: &RamRange, ram: &Ram) -> io::Result<()> {
    let mut buffer = vec![0; PIECE_BYTES];
    let refused = |error: MemoryError| io::Error::other(error);
    let mut gpa = range.gpa;
    let end_gpa = range.gpa + range.len_bytes;
    while let Some((first, last)) = ram.next_data(gpa, end_gpa) {
        gpa = first;
        while gpa < last {
            let left = usize::try_from(last - gpa).unwrap_or(usize::MAX);
            let piece = &mut buffer[..left.min(PIECE_BYTES)];
            ram.read(gpa, piece).map_err(refused)?;
            write_piece(file, at + (gpa - range.gpa), piece)?;
            gpa += to_u64(piece.len());
        }
    }
    Ok(())
}

/// Writes the pages that are not all zeroes, neighbours at once.
fn write_piece(file: &File, at: u64, piece: &[u8]) -> io::Result<()> {
    let is_full = |page: &[u8]| page.iter().any(|byte| *byte != 0);
    let mut done = 0;
    while done < piece.len() {
        let pages = piece[done..].chunks(PAGE_BYTES);
        let run = pages.clone().take_while(|page| is_full(page));
        let len = run.map(<[u8]>::len).sum::<usize>();
        if len > 0 {
            file.write_all_at(&piece[done..done + len], at + to_u64(done))?;
            done += len;
        } else {
            done += pages
                .take_while(|page| !is_full(page))
                .map(<[u8]>::len)
                .sum::<usize>();
        }
    }
    Ok(())
}

fn elf_header(program_headers: u16) -> Vec<u8> {
    let mut header = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    let mut half = |value: u16| header.extend(value.to_le_bytes());
    half(ET_CORE);
    half(EM_X86_64);
    header.extend(1_u32.to_le_bytes());
    // No entry point; program headers follow this header; no section headers.
    for word in [0, HEADER_BYTES, 0] {
        header.extend(word.to_le_bytes());
    }
    header.extend(0_u32.to_le_bytes());
    for value in [64, 56, program_headers, 0, 0, 0] {
        header.extend(u16::to_le_bytes(value));
    }
    header
}

fn program_header(kind: u32, offset: u64, gpa: u64, len_bytes: u64) -> Vec<u8> {
    let mut header = kind.to_le_bytes().to_vec();
    header.extend(0_u32.to_le_bytes());
    for word in [offset, 0, gpa, len_bytes, len_bytes, 0] {
        header.extend(word.to_le_bytes());
    }
    header
}

fn notes(vcpus: &[CpuState]) -> Vec<u8> {
    let mut notes = Vec::new();
    for (number, state) in (1_u32..).zip(vcpus) {
        notes.extend(note(b"CORE\0", NT_PRSTATUS, &prstatus(number, state)));
    }
    for state in vcpus {
        notes.extend(note(b"QEMU\0", 0, &system_registers(state)));
    }
    notes
}

fn note(name: &[u8], kind: u32, description: &[u8]) -> Vec<u8> {
    let mut note = Vec::new();
    for len in [name.len(), description.len()] {
        note.extend(u32::try_from(len).unwrap_or(0).to_le_bytes());
    }
    note.extend(kind.to_le_bytes());
    for part in [name, description] {
        note.extend(part);
        note.resize(note.len().next_multiple_of(4), 0);
    }
    note
}

/// Lays out `struct elf_prstatus` with the vCPU's number as the process's.
fn prstatus(number: u32, state: &CpuState) -> Vec<u8> {
    let [rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi, high @ ..] = state.gpr;
    let [r8, r9, r10, r11, r12, r13, r14, r15] = high;
    let [es, cs, ss, ds, fs, gs] = &state.segments;
    let selector = |segment: &Segment| u64::from(segment.selector);
    let registers = [
        r15,
        r14,
        r13,
        r12,
        rbp,
        rbx,
        r11,
        r10,
        r9,
        r8,
        rax,
        rcx,
        rdx,
        rsi,
        rdi,
        u64::MAX,
        state.rip,
        selector(cs),
        state.rflags,
        rsp,
        selector(ss),
        fs.base,
        gs.base,
        selector(ds),
        selector(es),
        selector(fs),
        selector(gs),
    ];
    let mut status = vec![0; PRSTATUS_BYTES];
    status[PRSTATUS_PID..PRSTATUS_PID + 4].copy_from_slice(&number.to_le_bytes());
    let registers = registers.into_iter().flat_map(u64::to_le_bytes);
    for (slot, byte) in status[PRSTATUS_REGS..].iter_mut().zip(registers) {
        *slot = byte;
    }
    status
}

/// Lays out the note that QEMU writes: version, length, RAX RBX RCX RDX RSI RDI RSP RBP, R8 to R15, RIP, RFLAGS,
/// CS DS ES FS GS SS, LDTR TR GDTR IDTR, CR0 to CR4, the kernel's GS base.
fn system_registers(state: &CpuState) -> Vec<u8> {
    let [rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi, high @ ..] = state.gpr;
    let [es, cs, ss, ds, fs, gs] = &state.segments;
    let mut words: Vec<u64> = vec![rax, rbx, rcx, rdx, rsi, rdi, rsp, rbp];
    words.extend(high);
    words.extend([state.rip, state.rflags]);
    for segment in [cs, ds, es, fs, gs, ss, &state.ldtr, &state.tr] {
        words.extend(segment_words(segment));
    }
    words.extend(table_words(state.gdtr));
    words.extend(table_words(state.idtr));
    words.extend([state.cr0, 0, state.cr2, state.cr3, state.cr4]);
    let mut msrs = state.msrs.iter();
    words.push(msrs.find(|msr| msr.0 == KERNEL_GS_BASE).map_or(0, |m| m.1));
    let len_bytes = u32::try_from(8 * (words.len() + 1)).unwrap_or(0);
    let mut note = 1_u32.to_le_bytes().to_vec();
    note.extend(len_bytes.to_le_bytes());
    note.extend(words.into_iter().flat_map(u64::to_le_bytes));
    note
}

/// Selector and limit, flags as in the descriptor's second half, base.
fn segment_words(segment: &Segment) -> [u64; 3] {
    let limit = u64::from(segment.limit) << 32;
    let flags = u64::from(segment.attributes) << 8;
    [u64::from(segment.selector) | limit, flags, segment.base]
}

fn table_words(table: TableRegister) -> [u64; 3] {
    [u64::from(table.limit) << 32, 0, table.base]
}

fn to_u64(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
