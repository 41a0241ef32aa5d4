use super::{Bench, drive};
use crate::conformance::Random;

#[test]
fn arbitrary_traffic_ends() {
    for seed in 1..40 {
        let bench = Bench::new().unwrap();
        drive(
            &bench.chipset,
            &bench.clock,
            &Random::new(seed).bytes(8_000),
        );
        bench.chipset.reset();
    }
}

#[test]
fn empty_and_cut_off_input_is_no_problem() {
    let bench = Bench::new().unwrap();
    for operation in 0..=u8::MAX {
        drive(&bench.chipset, &bench.clock, &[operation]);
    }
    drive(&bench.chipset, &bench.clock, &[]);
}
