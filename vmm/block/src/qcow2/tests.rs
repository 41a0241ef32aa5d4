use super::geometry::Geometry;
use super::header::Compression;
use super::mapping::{Cluster, Compressed, parse};
use super::refcount::{Counts, count_at};

fn geometry(version: u32, cluster_bits: u32) -> Geometry {
    Geometry {
        version,
        cluster_bits,
        refcount_order: 4,
        compression: Compression::Zlib,
    }
}

#[test]
fn refcounts_of_every_width_keep_their_neighbours() {
    for order in 0..=6 {
        let highest = u64::MAX >> (64 - (1u32 << order));
        let mut counts = Counts::new(40, order);
        for index in [0, 3, 8, 17, 39] {
            counts.set(index, highest);
        }
        counts.set(8, 0);
        let bytes = counts.into_bytes();
        for index in 0..40 {
            let expected = if [0, 3, 17, 39].contains(&index) {
                highest
            } else {
                0
            };
            assert_eq!(
                count_at(&bytes, order, index),
                expected,
                "order {order}, index {index}"
            );
        }
    }
}

#[test]
fn narrow_refcounts_fill_bytes_from_the_low_bits_and_wide_ones_are_big_endian() {
    let mut bits = Counts::new(8, 0);
    bits.set(1, 1);
    assert_eq!(bits.into_bytes(), [2]);
    let mut words = Counts::new(2, 4);
    words.set(1, 0x0102);
    assert_eq!(words.into_bytes(), [0, 0, 1, 2]);
}

#[test]
fn l2_entries_are_taken_apart() {
    let g = geometry(3, 16);
    assert_eq!(parse(&g, 0), Ok(Cluster::Unallocated));
    assert_eq!(
        parse(&g, 1),
        Ok(Cluster::Zero {
            host: None,
            copied: false
        })
    );
    assert_eq!(parse(&geometry(2, 16), 1), Ok(Cluster::Unallocated));
    let data = |copied| {
        Ok(Cluster::Data {
            host: 0x50_0000,
            copied,
        })
    };
    assert_eq!(parse(&g, 0x50_0000), data(false));
    assert_eq!(parse(&g, 1 << 63 | 0x50_0000), data(true));
    let kept = Cluster::Zero {
        host: Some(0x50_0000),
        copied: true,
    };
    assert_eq!(parse(&g, 1 << 63 | 0x50_0001), Ok(kept));
    assert!(parse(&g, 0x50_0200).is_err());
    // 64 KiB clusters: 54 bits of offset, then 8 bits of additional sectors.
    let entry = 1 << 62 | 3 << 54 | 0x1234;
    let compressed = Compressed {
        host: 0x1234,
        len_bytes: 4 * 512 - 0x34,
    };
    assert_eq!(parse(&g, entry), Ok(Cluster::Compressed(compressed)));
}
