use std::io::Write;

use super::*;
use crate::config::MemoryConfig;

const PREFERRED_GPA: u64 = 0x100_0000;

fn ram(mib: u64) -> Ram {
    Ram::new(&MemoryConfig {
        len_bytes: mib << 20,
        hugepage_bytes: None,
        prefault: false,
        shared: false,
    })
    .unwrap()
}

fn file(bytes: &[u8]) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    file
}

/// A bzImage of one setup sector whose payload is `payload`.
fn bzimage(payload: &[u8]) -> Vec<u8> {
    let mut image = vec![0; 1024];
    let mut put = |at: usize, bytes: &[u8]| image[at..at + bytes.len()].copy_from_slice(bytes);
    let len = u32::try_from(payload.len()).unwrap();
    put(0x1f1, &[1]);
    put(0x1f4, &(len / 16).to_le_bytes());
    put(0x1fe, &0xaa55_u16.to_le_bytes());
    put(0x201, &[0x6a]);
    put(0x202, b"HdrS");
    put(0x206, &0x20f_u16.to_le_bytes());
    put(0x22c, &0x7fff_ffff_u32.to_le_bytes());
    put(0x236, &1_u16.to_le_bytes());
    put(0x238, &2047_u32.to_le_bytes());
    put(0x248, &0_u32.to_le_bytes());
    put(0x24c, &len.to_le_bytes());
    put(0x258, &PREFERRED_GPA.to_le_bytes());
    put(0x260, &0x10_0000_u32.to_le_bytes());
    image.extend(payload);
    image
}

fn u32_in(ram: &Ram, gpa: u64) -> u32 {
    let mut bytes = [0; 4];
    ram.read(gpa, &mut bytes).unwrap();
    u32::from_le_bytes(bytes)
}

#[test]
fn a_kernel_of_unknown_packing_enters_its_decompressor() {
    let ram = ram(64);
    let kernel = file(&bzimage(b"BZh9 some payload"));
    let state = load(kernel.path(), None, "console=ttyS0", &ram, 0xe_0000).unwrap();
    assert_eq!(state.rip, PREFERRED_GPA + ENTRY_64);
    assert_eq!(state.gpr[6], linux::ZERO_PAGE_GPA);
    assert!(state.msrs.contains(&(0x2ff, 0xc06)));
    assert_eq!(u32_in(&ram, linux::ZERO_PAGE_GPA + 0x228), CMDLINE_GPA);
    let mut cmdline = [0; 14];
    ram.read(u64::from(CMDLINE_GPA), &mut cmdline).unwrap();
    assert_eq!(&cmdline, b"console=ttyS0\0");
}

#[test]
fn an_initrd_lies_at_the_end_of_ram() {
    let ram = ram(64);
    let kernel = file(&bzimage(b"BZh9 some payload"));
    let initrd = file(&[7; 5000]);
    load(kernel.path(), Some(initrd.path()), "", &ram, 0).unwrap();
    let gpa = u32_in(&ram, linux::ZERO_PAGE_GPA + 0x218);
    assert_eq!(u32_in(&ram, linux::ZERO_PAGE_GPA + 0x21c), 5000);
    assert_eq!(u64::from(gpa), (64 << 20) - 8192);
    assert_eq!(u32_in(&ram, u64::from(gpa)), 0x0707_0707);
}

#[test]
fn what_is_no_kernel_is_refused_by_name() {
    let ram = ram(64);
    let junk = file(b"#!/bin/sh\necho no kernel\n");
    let error = load(junk.path(), None, "", &ram, 0).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("no kernel"), "{text}");
    assert!(text.contains(junk.path().to_str().unwrap()), "{text}");
    let missing = load(Path::new("/nonexistent/kernel"), None, "", &ram, 0);
    assert!(
        missing
            .unwrap_err()
            .to_string()
            .contains("/nonexistent/kernel")
    );
}

#[test]
fn every_truncation_of_a_bzimage_is_harmless() {
    let ram = ram(64);
    let image = bzimage(&[0x55; 64]);
    for len in (0..image.len()).step_by(13) {
        let kernel = file(&image[..len]);
        assert!(load(kernel.path(), None, "", &ram, 0).is_err(), "{len}");
    }
}

#[test]
fn a_kernel_or_initrd_that_does_not_fit_says_so() {
    let small = ram(16);
    let kernel = file(&bzimage(b"BZh9 some payload"));
    let error = load(kernel.path(), None, "", &small, 0).unwrap_err();
    assert!(matches!(error, BootError::KernelFit { .. }), "{error}");
    let initrd = file(&vec![1; 50 << 20]);
    let error = load(kernel.path(), Some(initrd.path()), "", &ram(64), 0).unwrap_err();
    assert!(matches!(error, BootError::InitrdFit { .. }), "{error}");
}

#[test]
fn a_long_command_line_names_the_field() {
    let kernel = file(&bzimage(b"BZh9 some payload"));
    let error = load(kernel.path(), None, &"x".repeat(2048), &ram(64), 0).unwrap_err();
    assert!(error.to_string().contains("boot.cmdline"), "{error}");
}
