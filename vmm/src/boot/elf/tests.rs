use super::*;

/// An executable with one segment at 16 MiB and, if asked, a note with a PVH entry.
fn executable(note: Option<u32>) -> Vec<u8> {
    let mut file = vec![0; HEADER_BYTES];
    file[0..4].copy_from_slice(MAGIC);
    file[4] = CLASS_64;
    file[5] = LITTLE_ENDIAN;
    file[18..20].copy_from_slice(&MACHINE_X86_64.to_le_bytes());
    file[24..32].copy_from_slice(&0x100_0000_u64.to_le_bytes());
    file[32..40].copy_from_slice(&64_u64.to_le_bytes());
    file[54..56].copy_from_slice(&56_u16.to_le_bytes());
    let count: u16 = if note.is_some() { 2 } else { 1 };
    file[56..58].copy_from_slice(&count.to_le_bytes());
    let data_at = 64 + 56 * u64::from(count);
    header(&mut file, PT_LOAD, data_at, 0x100_0000, 4, 8);
    if note.is_some() {
        header(&mut file, PT_NOTE, data_at + 4, 0, 20, 20);
    }
    file.extend([1, 2, 3, 4]);
    if let Some(entry) = note {
        for word in [4, 4, NOTE_PHYS32_ENTRY] {
            file.extend(word.to_le_bytes());
        }
        file.extend(b"Xen\0");
        file.extend(entry.to_le_bytes());
    }
    file
}

fn header(file: &mut Vec<u8>, kind: u32, offset: u64, gpa: u64, len: u64, memory: u64) {
    file.extend(kind.to_le_bytes());
    file.extend(0_u32.to_le_bytes());
    for word in [offset, gpa, gpa, len, memory, 4096] {
        file.extend(word.to_le_bytes());
    }
}

#[test]
fn segments_and_entry_are_found() {
    let file = executable(None);
    let elf = parse(&file).unwrap();
    assert_eq!(elf.entry_gpa, 0x100_0000);
    assert_eq!(elf.pvh_entry, None);
    assert_eq!(elf.segments[0].bytes, [1, 2, 3, 4]);
    assert_eq!(elf.segments[0].memory_len_bytes, 8);
}

#[test]
fn a_note_names_the_pvh_entry() {
    let file = executable(Some(0x123_4567));
    assert_eq!(parse(&file).unwrap().pvh_entry, Some(0x123_4567));
}

#[test]
fn every_truncation_is_refused_or_harmless() {
    let file = executable(Some(1));
    for len in 0..file.len() {
        // Nothing to assert but that no length panics; only the note's last byte may be missing.
        drop(parse(&file[..len]));
    }
    assert!(parse(&file[..file.len() - 1]).is_err());
}

#[test]
fn other_machines_are_refused() {
    let mut file = executable(None);
    file[18] = 183;
    assert_eq!(parse(&file).unwrap_err(), "the ELF file is not for x86-64");
}
