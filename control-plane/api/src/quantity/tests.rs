use proptest::prelude::{prop_assert_eq, proptest};

use super::{Quantity, QuantityError};

fn units(text: &str) -> Option<u64> {
    text.parse::<Quantity>().unwrap().units()
}

#[test]
fn suffixes_scale_by_powers_of_ten_and_of_1024() {
    for (text, expected) in [
        ("256Mi", 256 << 20),
        ("2Gi", 2 << 30),
        ("1.5G", 1_500_000_000),
        ("1.5Gi", 3 << 29),
        ("2056M", 2_056_000_000),
        ("64k", 64_000),
        ("1e3", 1000),
        ("1E3", 1000),
        ("12e-1", 2),
        ("1E", 1_000_000_000_000_000_000),
        (".5Ki", 512),
        ("5.", 5),
        ("+7", 7),
        ("0", 0),
        ("7Ei", 7 << 60),
    ] {
        assert_eq!(units(text), Some(expected), "{text}");
    }
}

#[test]
fn fractions_of_a_unit_round_up() {
    assert_eq!(units("100m"), Some(1));
    assert_eq!(units("2500m"), Some(3));
    assert_eq!(units("1n"), Some(1));
    assert_eq!(units("0.0000000000000000000000000001"), Some(1));
}

#[test]
fn negative_amounts_have_no_units() {
    assert_eq!(units("-1"), None);
    assert_eq!(units("-0"), Some(0));
}

#[test]
fn other_text_is_refused_with_an_example() {
    for text in [
        "", "Mi", "12Q", "1 Gi", "0x10", "1.2.3", "1ee3", "½", "--1", "1e", "1MiB",
    ] {
        let error = text.parse::<Quantity>().unwrap_err();
        assert_eq!(error, QuantityError::Malformed(text.to_owned()));
        assert!(error.to_string().contains("512Mi"), "{error}");
    }
}

#[test]
fn amounts_beyond_63_bits_are_refused() {
    for text in [
        "8Ei",
        "10E",
        "1e30",
        "1e2000000000",
        "99999999999999999999999999999999999999",
    ] {
        assert_eq!(
            text.parse::<Quantity>(),
            Err(QuantityError::OutOfRange(text.to_owned())),
            "{text}"
        );
    }
}

#[test]
fn json_numbers_are_quantities() {
    let read = |json| serde_json::from_str::<Quantity>(json).unwrap().units();
    assert_eq!(read("1024"), Some(1024));
    assert_eq!(read("1.5"), Some(2));
    assert_eq!(read("1e3"), Some(1000));
    assert_eq!(read("\"1Ki\""), Some(1024));
}

#[test]
fn equal_amounts_are_equal_however_written() {
    assert_eq!("1Ki".parse::<Quantity>(), "1024".parse());
    assert_eq!("1000m".parse::<Quantity>(), "1".parse());
    assert_eq!(
        serde_json::to_string(&"1Ki".parse::<Quantity>().unwrap()).unwrap(),
        "\"1Ki\""
    );
}

proptest! {
    #[test]
    fn arbitrary_text_never_panics(text in ".{0,60}") {
        if let Ok(quantity) = text.parse::<Quantity>() {
            prop_assert_eq!(quantity.to_string(), text);
        }
    }

    #[test]
    fn arbitrary_numbers_never_panic(number in "[-+]?[0-9.]{0,45}([eE][-+]?[0-9]{0,12}|[A-Za-z]{0,2})") {
        let _parsed = number.parse::<Quantity>();
    }
}
