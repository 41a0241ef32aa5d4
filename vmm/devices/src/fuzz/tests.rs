use super::{Bench, drive};
use crate::conformance::Random;

#[test]
fn arbitrary_traffic_ends() {
    for seed in 1..40 {
        let bench = Bench::new().unwrap();
        bench.drive(&Random::new(seed).bytes(8_000));
        bench.chipset.reset();
    }
}

#[test]
fn empty_and_cut_off_input_is_no_problem() {
    let bench = Bench::new().unwrap();
    for operation in 0..=u8::MAX {
        bench.drive(&[operation]);
    }
    bench.drive(&[]);
}

#[test]
fn arbitrary_traffic_with_a_virtio_device_ends() {
    for seed in 100..120 {
        drive(&Random::new(seed).bytes(8_000));
    }
}
