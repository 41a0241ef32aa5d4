use super::*;

fn config(len_bytes: u64) -> MemoryConfig {
    MemoryConfig {
        len_bytes,
        hugepage_bytes: None,
        prefault: false,
        shared: false,
    }
}

#[test]
fn small_ram_is_one_piece_below_the_hole() {
    let ranges = layout(256 << 20);
    assert_eq!(ranges.len(), 1);
    assert_eq!(ranges[0].len_bytes, 256 << 20);
}

#[test]
fn a_tebibyte_fits_around_the_hole() {
    let ranges = layout(1 << 40);
    assert_eq!(ranges.len(), 2);
    assert!(ranges[0].len_bytes <= HOLE_GPA);
    assert_eq!(ranges[1].gpa, HIGH_GPA);
    assert_eq!(ranges.iter().map(|r| r.len_bytes).sum::<u64>(), 1 << 40);
}

#[test]
fn what_is_written_is_read_back_and_outside_is_refused() {
    for shared in [false, true] {
        let mut config = config(16 << 20);
        config.shared = shared;
        let ram = Ram::new(&config).unwrap();
        ram.write(0x1000, b"hello").unwrap();
        let mut back = [0; 5];
        ram.read(0x1000, &mut back).unwrap();
        assert_eq!(&back, b"hello");
        assert!(ram.write((16 << 20) - 2, b"hello").is_err());
    }
}

#[test]
fn rom_ends_at_4_gib() {
    let ram = Ram::with_rom(&config(16 << 20), 0x4_0000).unwrap();
    let rom = ram.ranges().last().copied().unwrap();
    assert!(rom.read_only);
    assert_eq!(rom.gpa + rom.len_bytes, HIGH_GPA);
    ram.write(0xffff_fff0, &[0xea; 16]).unwrap();
}

#[test]
fn more_ram_than_the_host_has_names_the_field() {
    let error = Ram::new(&config(1 << 40));
    if host_ram_bytes().is_none_or(|have| have >= 1 << 40) {
        println!("skipped: the host has a tebibyte of RAM");
        return;
    }
    assert!(error.unwrap_err().to_string().contains("memory.len_bytes"));
}

#[test]
fn pages_that_were_written_are_resident() {
    for len_mib in [64_u64, 1024] {
        for shared in [false, true] {
            let mut config = config(len_mib << 20);
            config.shared = shared;
            let ram = Ram::new(&config).unwrap();
            assert_eq!((ram.len_bytes(), ram.resident_bytes()), (len_mib << 20, 0));
            let touched = 32_u64 << 20;
            for gpa in (0..touched).step_by(4096) {
                ram.write(gpa, &[1]).unwrap();
            }
            let resident = ram.resident_bytes();
            assert!(
                (touched..touched + (4 << 20)).contains(&resident),
                "{resident}"
            );
        }
    }
}
