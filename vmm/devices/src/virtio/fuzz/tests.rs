use super::fuzz_drive;
use crate::conformance::Random;

#[test]
fn arbitrary_drivers_neither_stop_nor_break_a_device() {
    for seed in 0..60u8 {
        let mut data = vec![seed];
        data.extend(Random::new(u64::from(seed) + 7).bytes(6_000));
        fuzz_drive(&data);
    }
}

#[test]
fn short_input_is_no_problem() {
    fuzz_drive(&[]);
    for operation in 0..=u8::MAX {
        fuzz_drive(&[operation, 0xff, 0xff, 0xff, 0xff, operation]);
    }
}
