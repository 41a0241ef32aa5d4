//! Replays cases that are made from fixed seeds.

use crate::qcow2::Layout;

/// A fixed sequence of numbers (splitmix64).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() >> 40).unwrap() % end
    }
}

/// An image with a few clusters of data.
fn good_image(cluster_bits: u32, len_bytes: u64) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("image");
    let layout = Layout {
        cluster_bits,
        ..Layout::default()
    };
    crate::qcow2::create(&path, len_bytes, &layout).unwrap();
    let disk = crate::open(&path, &crate::OpenOptions::default()).unwrap();
    disk.write_at(0, &[1; 4_096]).unwrap();
    disk.write_at(len_bytes / 2, &[2; 512]).unwrap();
    disk.flush().unwrap();
    drop(disk);
    std::fs::read(path).unwrap()
}

/// Damages some bytes, mostly in the header and in tables, and sometimes cuts the end off.
fn damage(image: &mut Vec<u8>, numbers: &mut Numbers) {
    for _ in 0..=numbers.below(6) {
        let end = [112, 0x3000, image.len()][numbers.below(3)].min(image.len());
        let at = numbers.below(end);
        image[at] = match numbers.below(4) {
            0 => 0,
            1 => 0xff,
            2 => image[at] ^ 1 << numbers.below(8),
            _ => numbers.next().to_le_bytes()[0],
        };
    }
    if numbers.below(8) == 0 {
        image.truncate(numbers.below(image.len()));
    }
}

#[test]
fn damaged_images_are_errors_at_worst() {
    let images = [good_image(9, 1 << 20), good_image(16, 1 << 30)];
    let mut numbers = Numbers(1);
    let cases = std::env::var("FERROVIRT_FUZZ_CASES").ok();
    for _ in 0..cases.and_then(|n| n.parse().ok()).unwrap_or(200) {
        let mut image = images[numbers.below(2)].clone();
        damage(&mut image, &mut numbers);
        super::open(&image);
    }
}

#[test]
fn images_of_few_bytes_are_errors_at_worst() {
    for data in [&b""[..], b"Q", b"QFI\xfb", &[0xff; 512], &[0; 1_000]] {
        super::open(data);
    }
}
