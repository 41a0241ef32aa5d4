//! INQUIRY, REQUEST SENSE, REPORT LUNS and MODE SENSE.

use super::*;

fn inquiry(rig: &mut Rig, target: u8, page: Option<u8>) -> Reply {
    let (evpd, page) = page.map_or((0, 0), |page| (1, page));
    rig.ask_in(target, &[0x12, evpd, page, 0, 255, 0], 255)
}

#[test]
fn standard_inquiry_data_name_the_unit() {
    let mut rig = Rig::new();
    let data = inquiry(&mut rig, DISK, None).good();
    assert_eq!(data.len(), 36);
    assert_eq!((data[0], data[1], data[4]), (0, 0, 31));
    assert_eq!(data[3] & 0xf, 2, "response data format");
    assert_eq!(&data[8..24], b"FERROVRTDISK    ");
    let data = inquiry(&mut rig, CD, None).good();
    assert_eq!((data[0], data[1]), (5, 0x80), "a removable CD-ROM");
    let reply = rig.ask_in(DISK, &[0x12, 0, 0, 0, 5, 0], 255);
    assert_eq!((reply.data.len(), reply.residual), (5, 250));
    let page = rig.ask_in(DISK, &[0x12, 0, 0x80, 0, 255, 0], 255);
    page.check(5, 0x24, 0);
}

#[test]
fn vital_product_data_are_those_that_are_listed() {
    let mut rig = Rig::new();
    for (target, pages) in [
        (DISK, &[0x00, 0x80, 0x83, 0xb0, 0xb1, 0xb2][..]),
        (CD, &[0x00, 0x80, 0x83]),
    ] {
        let list = inquiry(&mut rig, target, Some(0)).good();
        assert_eq!(&list[4..], pages);
        for page in 0..=255 {
            let reply = inquiry(&mut rig, target, Some(page));
            if !pages.contains(&page) {
                reply.check(5, 0x24, 0);
                continue;
            }
            let data = reply.good();
            assert_eq!(data[1], page);
            let len = usize::from(u16::from_be_bytes([data[2], data[3]]));
            assert_eq!(data.len(), 4 + len, "page {page:#x}");
        }
    }
    assert_eq!(
        &inquiry(&mut rig, DISK, Some(0x80)).good()[4..],
        b"serial-1"
    );
    let identification = inquiry(&mut rig, DISK, Some(0x83)).good();
    assert_eq!(identification[4..8], [2, 1, 0, 32]);
    assert_eq!(&identification[8..], b"FERROVRTDISK            serial-1");
}

#[test]
fn limits_and_provisioning_follow_the_options() {
    let mut rig = Rig::with(|options| {
        options.logical_block_bytes = Some(4096);
        options.physical_block_bytes = Some(8192);
    });
    let word = |data: &[u8], at: usize| u32::from_be_bytes(*data[at..].first_chunk().unwrap());
    let limits = inquiry(&mut rig, DISK, Some(0xb0)).good();
    assert_eq!(limits[4], 1, "WSNZ");
    assert_eq!(limits[6..8], [0, 2], "optimal transfer length granularity");
    assert_eq!(
        word(&limits, 8),
        (32 << 20) / 4096,
        "maximum transfer length"
    );
    assert_eq!(
        word(&limits, 20),
        (1 << 30) / 4096,
        "maximum unmap LBA count"
    );
    assert_eq!(word(&limits, 24), 255, "maximum unmap descriptors");
    assert_eq!(
        word(&limits, 40),
        (32 << 20) / 4096,
        "maximum write same length"
    );
    assert_eq!(inquiry(&mut rig, DISK, Some(0xb2)).good()[5..7], [0xe0, 2]);
    assert_eq!(inquiry(&mut rig, DISK, Some(0xb1)).good()[4..6], [0, 1]);
    let mut rig = Rig::with(|options| options.discard = false);
    let limits = inquiry(&mut rig, DISK, Some(0xb0)).good();
    assert_eq!((word(&limits, 20), word(&limits, 24)), (0, 0));
    assert_eq!(inquiry(&mut rig, DISK, Some(0xb2)).good()[5..7], [0, 0]);
}

#[test]
fn serial_numbers_are_cut_and_printable() {
    let mut rig = Rig::with(|options| options.serial = format!("a\u{e9}\n{}", "7".repeat(60)));
    let serial = inquiry(&mut rig, DISK, Some(0x80)).good();
    assert_eq!(serial[4..], *format!("a__{}", "7".repeat(33)).as_bytes());
}

#[test]
fn power_on_waits_for_the_first_command_that_takes_it() {
    let mut rig = Rig::fresh(|_| {});
    inquiry(&mut rig, DISK, None).good();
    rig.ask_in(DISK, &[0xa0, 0, 0, 0, 0, 0, 0, 0, 0, 16, 0, 0], 16)
        .good();
    rig.ask_in(DISK, &read_10(0, 1), 512).check(6, 0x29, 0);
    rig.ask_in(DISK, &read_10(0, 1), 512).good();
    // REQUEST SENSE gives the condition as data.
    let sense = rig.ask_in(CD, &[3, 0, 0, 0, 252, 0], 252).good();
    assert_eq!(sense.len(), 18);
    assert_eq!(
        (sense[0], sense[2], sense[12], sense[13]),
        (0x70, 6, 0x29, 0)
    );
    let sense = rig.ask_in(CD, &[3, 1, 0, 0, 252, 0], 252).good();
    assert_eq!(sense, [0x72, 0, 0, 0, 0, 0, 0, 0], "descriptor format");
}

#[test]
fn report_luns_lists_unit_0() {
    let mut rig = Rig::new();
    let mut cdb = [0xa0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0];
    let mut expected = vec![0, 0, 0, 8];
    expected.resize(16, 0);
    assert_eq!(rig.ask_in(DISK, &cdb, 256).good(), expected);
    cdb[2] = 1;
    assert_eq!(
        rig.ask_in(DISK, &cdb, 256).good(),
        [0; 8],
        "well-known units"
    );
    cdb[2] = 2;
    assert_eq!(rig.ask_in(DISK, &cdb, 256).good(), expected);
    cdb[2] = 3;
    rig.ask_in(DISK, &cdb, 256).check(5, 0x24, 0);
}

#[test]
fn mode_sense_tells_of_cache_and_write_protection() {
    let mut rig = Rig::new();
    let data = rig.ask_in(DISK, &[0x1a, 0, 0x08, 0, 255, 0], 255).good();
    assert_eq!(
        data[..4],
        [31, 0, 0x10, 8],
        "length, type, DPOFUA, descriptor"
    );
    assert_eq!(data[4..12], [0, 0, 8, 0, 0, 0, 2, 0], "2048 blocks of 512");
    assert_eq!(data[12..15], [0x08, 18, 0x04], "the write cache is on");
    assert_eq!(data.len(), 32);
    let data = rig
        .ask_in(READ_ONLY, &[0x1a, 8, 0x3f, 0, 255, 0], 255)
        .good();
    assert_eq!(data[2..4], [0x90, 0], "write protected, no descriptor");
    assert_eq!(usize::from(data[0]) + 1, data.len());
    let data = rig
        .ask_in(DISK, &[0x5a, 8, 0x3f, 0, 0, 0, 0, 1, 0, 0], 256)
        .good();
    let len = usize::from(u16::from_be_bytes([data[0], data[1]]));
    assert_eq!(len + 2, data.len());
    assert_eq!(data[3], 0x10);
    let changeable = rig.ask_in(DISK, &[0x1a, 8, 0x48, 0, 255, 0], 255).good();
    assert!(changeable[6..].iter().all(|byte| *byte == 0));
    let saved = rig.ask_in(DISK, &[0x1a, 8, 0xc8, 0, 255, 0], 255);
    saved.check(5, 0x39, 0);
    rig.ask_in(DISK, &[0x1a, 8, 0x2a, 0, 255, 0], 255)
        .check(5, 0x24, 0);
}

#[test]
fn nothing_can_be_selected() {
    let mut rig = Rig::new();
    rig.ask_out(DISK, &[0x15, 0x10, 0, 0, 24, 0], &[0; 24])
        .check(5, 0x20, 0);
    rig.ask_out(DISK, &[0x55, 0x10, 0, 0, 0, 0, 0, 0, 24, 0], &[0; 24])
        .check(5, 0x20, 0);
    rig.ask(DISK, &[0x5e, 0, 0, 0, 0, 0, 0, 0, 8, 0])
        .check(5, 0x20, 0);
}
