//! A fixed set of sequences; more by `FERROVIRT_DIFF_CASES`, others by `FERROVIRT_DIFF_SEED`.

use super::{BIT_MANIPULATION, INTEGER, Settings, compare};

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(otherwise)
}

fn settings() -> Settings<'static> {
    Settings {
        seed: number("FERROVIRT_DIFF_SEED", 1),
        cases: number("FERROVIRT_DIFF_CASES", 20_000),
        families: INTEGER,
        length_max: 20,
        floating_point: false,
    }
}

#[test]
fn integer_instructions_do_what_the_host_does() {
    if let Err(mismatch) = compare(&settings()) {
        panic!("{mismatch}");
    }
}

#[test]
fn bit_manipulation_does_what_the_host_does() {
    let has = std::arch::is_x86_feature_detected!("bmi2")
        && std::arch::is_x86_feature_detected!("bmi1")
        && std::arch::is_x86_feature_detected!("lzcnt")
        && std::arch::is_x86_feature_detected!("adx");
    if !has {
        println!("skipped: the host lacks BMI1, BMI2, LZCNT or ADX");
        return;
    }
    let with_integer = [INTEGER[0], BIT_MANIPULATION];
    let settings = Settings {
        families: &with_integer,
        ..settings()
    };
    if let Err(mismatch) = compare(&settings) {
        panic!("{mismatch}");
    }
}
