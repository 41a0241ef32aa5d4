//! Random operations compared with a vector of bytes.

use proptest::prelude::{Just, ProptestConfig, Strategy, any, prop_oneof, proptest};

use super::{dir, image, new_qcow2, pattern, peer, read};
use crate::{Disk, Format, OpenOptions, create_empty, open, overlay};

const LEN: u64 = 1 << 20;

#[derive(Debug, Clone)]
enum Op {
    Write {
        offset: u64,
        len: u64,
        seed: u64,
    },
    Zero {
        offset: u64,
        len: u64,
        may_unmap: bool,
    },
    Discard {
        offset: u64,
        len: u64,
    },
    Read {
        offset: u64,
        len: u64,
    },
    Flush,
    Reopen,
}

/// Ranges of all sizes, half of them aligned to sectors.
fn range() -> impl Strategy<Value = (u64, u64)> {
    let len = prop_oneof![0..2000u64, 0..70_000u64, 0..600_000u64];
    (0..LEN, len, any::<bool>()).prop_map(|(offset, len, aligned)| {
        let len = len.min(LEN - offset);
        if aligned {
            (offset / 512 * 512, len / 512 * 512)
        } else {
            (offset, len)
        }
    })
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        5 => (range(), any::<u64>()).prop_map(|((offset, len), seed)| Op::Write { offset, len, seed }),
        2 => (range(), any::<bool>())
            .prop_map(|((offset, len), may_unmap)| Op::Zero { offset, len, may_unmap }),
        2 => range().prop_map(|(offset, len)| Op::Discard { offset, len }),
        2 => range().prop_map(|(offset, len)| Op::Read { offset, len }),
        1 => Just(Op::Flush),
        1 => Just(Op::Reopen),
    ]
}

fn apply(disk: &dyn Disk, model: &mut [u8], op: &Op) {
    let at = |offset: u64, len: u64| offset as usize..(offset + len) as usize;
    match *op {
        Op::Write { offset, len, seed } => {
            let bytes = pattern(seed, len as usize);
            disk.write_at(offset, &bytes).unwrap();
            model[at(offset, len)].copy_from_slice(&bytes);
        }
        Op::Zero {
            offset,
            len,
            may_unmap,
        } => {
            disk.write_zeroes(offset, len, may_unmap).unwrap();
            model[at(offset, len)].fill(0);
        }
        Op::Discard { offset, len } => {
            disk.discard(offset, len).unwrap();
            let now = read(disk, offset, len as usize);
            let old = &mut model[at(offset, len)];
            assert!(
                now.iter()
                    .zip(&*old)
                    .all(|(new, old)| *new == 0 || new == old)
            );
            old.copy_from_slice(&now);
        }
        Op::Read { offset, len } => {
            assert!(
                read(disk, offset, len as usize) == model[at(offset, len)],
                "{op:?}"
            );
        }
        Op::Flush | Op::Reopen => disk.flush().unwrap(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn qcow2_behaves_like_memory(
        ops in proptest::collection::vec(op(), 1..40),
        layout in prop_oneof![Just((9, 4)), Just((9, 6)), Just((10, 0)), Just((16, 4)), Just((21, 1))],
    ) {
        let dir = dir();
        let path = image(&dir, "disk.qcow2");
        let mut disk = new_qcow2(&path, LEN, layout.0, layout.1);
        let mut model = vec![0; LEN as usize];
        for op in &ops {
            if matches!(op, Op::Reopen) {
                drop(disk);
                peer::check_if_present(&path);
                disk = open(&path, &OpenOptions::default()).unwrap();
            }
            apply(&*disk, &mut model, op);
        }
        assert!(read(&*disk, 0, LEN as usize) == model);
        drop(disk);
        peer::check_if_present(&path);
    }

    #[test]
    fn raw_and_overlay_behave_like_memory(ops in proptest::collection::vec(op(), 1..30)) {
        let dir = dir();
        let (raw, base) = (image(&dir, "disk.raw"), image(&dir, "base.raw"));
        create_empty(&raw, LEN, Format::Raw).unwrap();
        let below = pattern(77, 700_000);
        std::fs::write(&base, &below).unwrap();
        let lower = open(&base, &OpenOptions { read_only: true, ..OpenOptions::default() }).unwrap();
        let top = image(&dir, "top.qcow2");
        let mut model = below.clone();
        model.resize(LEN as usize, 0);
        let disks = [
            (open(&raw, &OpenOptions::default()).unwrap(), vec![0; LEN as usize]),
            (overlay(lower, &top, Some(LEN)).unwrap(), model),
        ];
        for (disk, mut model) in disks {
            ops.iter().for_each(|op| apply(&*disk, &mut model, op));
            assert!(read(&*disk, 0, LEN as usize) == model);
        }
        assert!(std::fs::read(&base).unwrap() == below);
        peer::check_if_present(&top);
    }
}
