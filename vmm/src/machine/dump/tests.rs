use super::*;
use crate::config::MemoryConfig;

const MEMORY_BYTES: u64 = 32 << 20;

fn machine(shared: bool) -> Frozen {
    let memory = MemoryConfig {
        len_bytes: MEMORY_BYTES,
        hugepage_bytes: None,
        prefault: false,
        shared,
    };
    let ram = Ram::new(&memory).unwrap();
    ram.write(0x1234, b"first").unwrap();
    ram.write((3 << 20) - 2, b"across pieces").unwrap();
    ram.write(MEMORY_BYTES - 4, b"last").unwrap();
    let mut first = CpuState::power_on();
    (first.rip, first.gpr[4], first.cr3) = (0xffff_ffff_8100_0000, 0x5678, 0x9000);
    Frozen {
        ram,
        vcpus: vec![first, CpuState::power_on()],
    }
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

/// The notes of a core as name, kind and description.
fn notes_of(mut bytes: &[u8]) -> Vec<(&[u8], u32, &[u8])> {
    let mut notes = Vec::new();
    while !bytes.is_empty() {
        let (name, description) = (u32_at(bytes, 0) as usize, u32_at(bytes, 4) as usize);
        let name_end = (12 + name).next_multiple_of(4);
        let end = (name_end + description).next_multiple_of(4);
        notes.push((
            &bytes[12..12 + name],
            u32_at(bytes, 8),
            &bytes[name_end..name_end + description],
        ));
        bytes = &bytes[end..];
    }
    notes
}

#[test]
fn a_core_has_registers_and_memory_where_its_headers_say() {
    for shared in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("core");
        let len_bytes = write(&path, &machine(shared)).unwrap();
        let core = fs::read(&path).unwrap();
        assert_eq!(to_u64(core.len()), len_bytes);
        assert_eq!(&core[..6], b"\x7fELF\x02\x01");
        assert_eq!(core[16..20], [4, 0, 62, 0]);
        assert_eq!(u64_at(&core, 32), 64);
        assert_eq!(core[56..58], [2, 0]);

        let (notes, load) = (&core[64..120], &core[120..176]);
        assert_eq!((u32_at(notes, 0), u32_at(load, 0)), (PT_NOTE, PT_LOAD));
        assert_eq!((u64_at(load, 24), u64_at(load, 32)), (0, MEMORY_BYTES));
        let ram = &core[usize::try_from(u64_at(load, 8)).unwrap()..];
        assert_eq!(&ram[0x1234..0x1239], b"first");
        assert_eq!(&ram[(3 << 20) - 2..(3 << 20) + 11], b"across pieces");
        assert!(ram.ends_with(b"last"));
        assert_eq!(ram.iter().filter(|byte| **byte != 0).count(), 22);

        let at = usize::try_from(u64_at(notes, 8)).unwrap();
        let len = usize::try_from(u64_at(notes, 32)).unwrap();
        let notes = notes_of(&core[at..at + len]);
        assert_eq!(notes.len(), 4);
        let (name, kind, status) = notes[0];
        assert_eq!((name, kind, status.len()), (&b"CORE\0"[..], 1, 336));
        assert_eq!(u64_at(status, 112 + 16 * 8), 0xffff_ffff_8100_0000);
        assert_eq!(u64_at(status, 112 + 19 * 8), 0x5678);
        let (name, _, system) = notes[2];
        assert_eq!((name, system.len()), (&b"QEMU\0"[..], 440));
        assert_eq!(u32_at(system, 4), 440);
        assert_eq!(u64_at(system, 8 + 16 * 8), 0xffff_ffff_8100_0000);
        assert_eq!(u64_at(system, 440 - 8 - 16), 0x9000);
    }
}

#[test]
fn zeroes_take_no_room() {
    use std::os::unix::fs::MetadataExt;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("core");
    let frozen = machine(true);
    let before = frozen.ram.resident_bytes();
    write(&path, &frozen).unwrap();
    assert!(fs::metadata(&path).unwrap().blocks() * 512 < 1 << 20);
    assert_eq!(frozen.ram.resident_bytes(), before);
}

#[test]
fn a_dump_that_fails_leaves_nothing_and_an_older_one_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("core");
    // A folder cannot be replaced by a file.
    fs::create_dir(&path).unwrap();
    fs::write(path.join("older"), "x").unwrap();
    assert!(write(&path, &machine(false)).is_err());
    let names: Vec<_> = fs::read_dir(folder.path()).unwrap().collect();
    assert_eq!(names.len(), 1);
    assert!(path.join("older").exists());
}
