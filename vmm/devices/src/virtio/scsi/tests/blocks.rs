//! Commands on blocks.

use std::sync::atomic::Ordering;

use super::*;

#[test]
fn transfers_of_every_length_of_cdb_reach_the_same_blocks() {
    let mut rig = Rig::new();
    let data = pattern(1024, 1);
    let writes: [Vec<u8>; 4] = [
        vec![0x0a, 0, 0, 9, 2, 0],
        write_10(9, 2).to_vec(),
        vec![0xaa, 0, 0, 0, 0, 9, 0, 0, 0, 2, 0, 0],
        transfer_16(0x8a, 0, 9, 2),
    ];
    let reads: [Vec<u8>; 4] = [
        vec![0x08, 0, 0, 9, 2, 0],
        read_10(9, 2).to_vec(),
        vec![0xa8, 0, 0, 0, 0, 9, 0, 0, 0, 2, 0, 0],
        transfer_16(0x88, 0, 9, 2),
    ];
    for (write, read) in writes.iter().zip(&reads) {
        rig.disk.bytes.lock().unwrap().fill(0);
        let reply = rig.ask_out(DISK, write, &data);
        assert_eq!((reply.residual, reply.written), (0, 108));
        reply.good();
        assert!(rig.disk.bytes.lock().unwrap()[9 * 512..11 * 512] == data);
        let reply = rig.ask_in(DISK, read, 1024);
        assert_eq!((reply.residual, reply.written), (0, 108 + 1024));
        assert!(reply.good() == data);
    }
    // A length of zero is 256 blocks in READ 6, and nothing elsewhere.
    assert_eq!(
        rig.ask_in(DISK, &[0x08, 0, 0, 0, 0, 0], 256 * 512)
            .good()
            .len(),
        256 * 512
    );
    assert_eq!(rig.ask_in(DISK, &read_10(0, 0), 512).residual, 512);
}

#[test]
fn buffers_longer_than_the_transfer_leave_a_residual_and_shorter_ones_overrun() {
    let mut rig = Rig::new();
    let reply = rig.ask_in(DISK, &read_10(0, 1), 700);
    assert_eq!((reply.residual, reply.data.len()), (188, 512));
    let reply = rig.ask_out(DISK, &write_10(0, 1), &[7; 600]);
    assert_eq!((reply.response, reply.residual), (0, 88));
    assert_eq!(rig.ask_in(DISK, &read_10(0, 2), 1023).response, 1);
    assert_eq!(rig.ask_out(DISK, &write_10(1, 2), &[7; 512]).response, 1);
    assert_eq!(rig.ask(DISK, &read_10(0, 1)).response, 1);
    assert_eq!(
        rig.disk.bytes.lock().unwrap()[512],
        0,
        "nothing was written"
    );
}

#[test]
fn addresses_past_the_end_are_out_of_range() {
    let mut rig = Rig::new();
    rig.ask_in(DISK, &read_10(2047, 1), 512).good();
    rig.ask_in(DISK, &read_10(2047, 2), 1024).check(5, 0x21, 0);
    rig.ask_in(DISK, &transfer_16(0x88, 0, u64::MAX, 1), 512)
        .check(5, 0x21, 0);
    rig.ask_out(DISK, &write_10(2048, 1), &[0; 512])
        .check(5, 0x21, 0);
    rig.ask(DISK, &transfer_10(0x35, 0, 2049, 0))
        .check(5, 0x21, 0);
    // Longer than the limits page allows, and protection information.
    rig.ask_in(DISK, &transfer_16(0x88, 0, 0, 65537), 512)
        .check(5, 0x24, 0);
    rig.ask_in(DISK, &transfer_10(0x28, 0x20, 0, 1), 512)
        .check(5, 0x24, 0);
}

#[test]
fn forced_writes_are_durable_and_others_wait_for_synchronize_cache() {
    let mut rig = Rig::new();
    let flushes = |rig: &Rig| rig.disk.flushes.load(Ordering::SeqCst);
    rig.ask_out(DISK, &write_10(0, 1), &[1; 512]).good();
    assert_eq!(flushes(&rig), 0);
    rig.ask_out(DISK, &transfer_10(0x2a, 0x08, 0, 1), &[1; 512])
        .good();
    assert_eq!(flushes(&rig), 1);
    rig.ask_out(DISK, &transfer_10(0x2e, 0, 0, 1), &[1; 512])
        .good();
    assert_eq!(flushes(&rig), 2, "WRITE AND VERIFY");
    rig.ask(DISK, &transfer_10(0x35, 0, 0, 0)).good();
    rig.ask(DISK, &transfer_16(0x91, 0, 0, 0)).good();
    assert_eq!(flushes(&rig), 4);
}

#[test]
fn a_read_only_disk_is_write_protected() {
    let mut rig = Rig::new();
    rig.ask_out(READ_ONLY, &write_10(0, 1), &[1; 512])
        .check(7, 0x27, 0);
    rig.ask_out(READ_ONLY, &transfer_10(0x41, 0, 0, 1), &[0; 512])
        .check(7, 0x27, 0);
    rig.ask_out(READ_ONLY, &[0x42, 0, 0, 0, 0, 0, 0, 0, 24, 0], &[0; 24])
        .check(5, 0x20, 0);
    rig.ask_in(READ_ONLY, &read_10(0, 1), 512).good();
    rig.ask(READ_ONLY, &transfer_10(0x35, 0, 0, 0)).good();
    rig.ask_out(CD, &write_10(0, 1), &[1; 2048])
        .check(7, 0x27, 0);
}

#[test]
fn capacity_is_told_in_blocks() {
    let mut rig = Rig::with(|options| {
        options.logical_block_bytes = Some(4096);
        options.physical_block_bytes = Some(16384);
    });
    let capacity = rig
        .ask_in(DISK, &[0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0], 8)
        .good();
    assert_eq!(capacity, [0, 0, 0, 255, 0, 0, 16, 0]);
    let mut long = [0; 16];
    (long[0], long[1], long[13]) = (0x9e, 0x10, 32);
    let capacity = rig.ask_in(DISK, &long, 32).good();
    assert_eq!(capacity[..12], [0, 0, 0, 0, 0, 0, 0, 255, 0, 0, 16, 0]);
    assert_eq!(capacity[13..15], [2, 0x80], "physical exponent, LBPME");
    long[1] = 0x12;
    rig.ask_in(DISK, &long, 32).check(5, 0x24, 0);
    let block = rig.ask_in(DISK, &read_10(255, 1), 4096).good();
    assert_eq!(block.len(), 4096);
    rig.ask_in(DISK, &read_10(256, 1), 4096).check(5, 0x21, 0);
}

fn unmap_list(ranges: &[(u64, u32)]) -> Vec<u8> {
    let bytes = u16::try_from(ranges.len() * 16).unwrap();
    let mut list = (bytes + 6).to_be_bytes().to_vec();
    list.extend(bytes.to_be_bytes());
    list.extend([0; 4]);
    for (lba, blocks) in ranges {
        list.extend(lba.to_be_bytes());
        list.extend(blocks.to_be_bytes());
        list.extend([0; 4]);
    }
    list
}

fn unmap(list: &[u8]) -> [u8; 10] {
    let [high, low] = u16::try_from(list.len()).unwrap().to_be_bytes();
    [0x42, 0, 0, 0, 0, 0, 0, high, low, 0]
}

#[test]
fn unmap_forgets_every_range_of_its_list() {
    let mut rig = Rig::new();
    rig.disk.bytes.lock().unwrap().fill(9);
    let list = unmap_list(&[(1, 2), (10, 0), (100, 8)]);
    rig.ask_out(DISK, &unmap(&list), &list).good();
    assert_eq!(rig.disk.unmaps.load(Ordering::SeqCst), 2);
    {
        let bytes = rig.disk.bytes.lock().unwrap();
        assert!(bytes[512..1536].iter().all(|byte| *byte == 0));
        assert!(bytes[51200..55296].iter().all(|byte| *byte == 0));
        assert_eq!((bytes[511], bytes[1536], bytes[5120]), (9, 9, 9));
    }
    let outside = unmap_list(&[(1, 1), (2048, 1)]);
    rig.ask_out(DISK, &unmap(&outside), &outside)
        .check(5, 0x21, 0);
    assert_eq!(
        rig.disk.unmaps.load(Ordering::SeqCst),
        2,
        "all ranges are checked first"
    );
    let far = unmap_list(&[(0, u32::MAX)]);
    rig.ask_out(DISK, &unmap(&far), &far).check(5, 0x26, 0);
    rig.ask_out(DISK, &unmap(&[0; 7]), &[0; 7])
        .check(5, 0x1a, 0);
    rig.ask(DISK, &unmap(&[])).good();
    assert_eq!(rig.ask_out(DISK, &unmap(&list), &list[..20]).response, 1);
    let mut anchor = unmap(&list);
    anchor[1] = 1;
    rig.ask_out(DISK, &anchor, &list).check(5, 0x24, 0);
    let mut rig = Rig::with(|options| options.discard = false);
    rig.ask_out(DISK, &unmap(&list), &list).check(5, 0x20, 0);
}

#[test]
fn write_same_repeats_a_block_or_makes_a_hole() {
    let mut rig = Rig::new();
    let block = pattern(512, 3);
    rig.ask_out(DISK, &transfer_10(0x41, 0, 4, 700), &block)
        .good();
    {
        let bytes = rig.disk.bytes.lock().unwrap();
        let written = &bytes[4 * 512..704 * 512];
        assert!(written.chunks(512).all(|chunk| chunk == block));
        assert_eq!(bytes[704 * 512], 0);
    }
    let unmaps = |rig: &Rig| rig.disk.unmaps.load(Ordering::SeqCst);
    rig.ask_out(DISK, &transfer_16(0x93, 0, 4, 1), &[0; 512])
        .good();
    assert_eq!(unmaps(&rig), 0, "zeroes that stay");
    rig.ask_out(DISK, &transfer_16(0x93, 0x08, 5, 1), &[0; 512])
        .good();
    rig.ask(DISK, &transfer_16(0x93, 0x09, 6, 1)).good();
    assert_eq!(unmaps(&rig), 2, "zeroes by UNMAP, and without data");
    assert!(
        rig.disk.bytes.lock().unwrap()[4 * 512..7 * 512]
            .iter()
            .all(|byte| *byte == 0)
    );
    rig.ask_out(DISK, &transfer_10(0x41, 0, 0, 0), &block)
        .check(5, 0x24, 0);
    rig.ask_out(DISK, &transfer_10(0x41, 0x10, 0, 1), &block)
        .check(5, 0x24, 0);
    rig.ask_out(DISK, &transfer_10(0x41, 0x01, 0, 1), &block)
        .check(5, 0x24, 0);
    rig.ask_out(DISK, &transfer_10(0x41, 0, 2048, 1), &block)
        .check(5, 0x21, 0);
    rig.ask_out(DISK, &transfer_16(0x93, 0, 0, 1 << 20), &block)
        .check(5, 0x24, 0);
    assert_eq!(
        rig.ask_out(DISK, &transfer_10(0x41, 0, 0, 1), &block[..100])
            .response,
        1
    );
    let mut rig = Rig::with(|options| options.discard = false);
    rig.ask_out(DISK, &transfer_16(0x93, 0x08, 5, 1), &[0; 512])
        .check(5, 0x24, 0);
}

#[test]
fn verify_compares_when_it_is_told_to() {
    let mut rig = Rig::new();
    let data = pattern(1024, 8);
    rig.disk.write_at(512, &data).unwrap();
    rig.ask(DISK, &transfer_10(0x2f, 0, 1, 2)).good();
    rig.ask_out(DISK, &transfer_10(0x2f, 0x02, 1, 2), &data)
        .good();
    rig.ask_out(DISK, &transfer_16(0x8f, 0x02, 1, 2), &data)
        .good();
    rig.ask_out(DISK, &transfer_10(0x2f, 0x02, 2, 2), &data)
        .check(0x0e, 0x1d, 0);
    rig.ask_out(DISK, &transfer_10(0x2f, 0x06, 1, 2), &data)
        .check(5, 0x24, 0);
    rig.ask(DISK, &transfer_16(0x8f, 0, 0, u32::MAX))
        .check(5, 0x24, 0);
}

#[test]
fn start_stop_and_prevention_leave_a_disk_alone() {
    let mut rig = Rig::new();
    rig.ask(DISK, &[0x1b, 0, 0, 0, 0, 0]).good();
    rig.ask(DISK, &[0x1b, 0, 0, 0, 0x30, 0]).good();
    rig.ask(DISK, &[0x1b, 0, 0, 0, 2, 0]).check(5, 0x24, 0);
    rig.ask(DISK, &[0x1e, 0, 0, 0, 1, 0]).good();
    rig.ask(DISK, &[0x00; 6]).good();
    assert!(rig.disk_handle.change_medium(None).is_err());
}

#[test]
fn requests_of_every_kind_are_counted() {
    let mut rig = Rig::new();
    rig.ask_in(DISK, &read_10(0, 4), 2048).good();
    rig.ask_out(DISK, &write_10(0, 2), &[1; 1024]).good();
    rig.ask_out(DISK, &transfer_10(0x41, 0, 0, 3), &[1; 512])
        .good();
    rig.ask(DISK, &transfer_10(0x35, 0, 0, 0)).good();
    let counts = rig.disk_handle.counters().read();
    assert_eq!((counts.read_requests, counts.read_bytes), (1, 2048));
    assert_eq!((counts.write_requests, counts.write_bytes), (2, 2560));
    assert_eq!((counts.flush_requests, counts.errors), (1, 0));
}
