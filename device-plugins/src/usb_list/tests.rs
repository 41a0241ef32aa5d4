//! Lists as people write them, and as they do not.

use proptest::prelude::*;

use super::{ITEMS_MAX, LIST_LEN_MAX, PROBLEMS_MAX, item, parse};
use crate::usb::{UsbMatch, UsbSelector};

/// The items that count, as a list would have them.
fn items(list: &str) -> Vec<String> {
    let (selectors, problems) = parse(list);
    assert_eq!(problems, [], "{list:?}");
    written(&selectors)
}

fn written(selectors: &[UsbSelector]) -> Vec<String> {
    let write = |selector: &UsbSelector| item(&selector.resource, &selector.matches[0]);
    selectors.iter().map(write).collect()
}

#[test]
fn the_vendor_comes_before_the_product() {
    let (selectors, problems) =
        parse("kubevirt.io/wifi-dongle;0bda;0811,kubevirt.io/gsm-dongle;0bda;2838");
    assert_eq!(problems, []);
    let found: Vec<(&str, u16, u16)> = selectors
        .iter()
        .map(|selector| {
            let asked = &selector.matches[0];
            (selector.resource.as_str(), asked.vendor, asked.product)
        })
        .collect();
    assert_eq!(
        found,
        [
            ("kubevirt.io/wifi-dongle", 0x0bda, 0x0811),
            ("kubevirt.io/gsm-dongle", 0x0bda, 0x2838)
        ]
    );
}

#[test]
fn lists_are_taken_as_people_write_them() {
    let expected = ["a.io/x;0bda;0811"];
    for list in [
        "a.io/x;0bda;0811",
        " a.io/x ; 0bda ;\t0811 \n",
        "a.io/x;0BDA;811,",
        ",,a.io/x;0xbda;0X0811, ,",
        "\na.io/x;bda;0x811\n",
    ] {
        assert_eq!(items(list), expected, "{list:?}");
    }
    for list in ["", " ", ",", " , ,\n"] {
        assert_eq!(items(list), [""; 0], "{list:?}");
    }
    assert_eq!(
        items("a.io/x;0;ffff,a.io/y;1d6b;2"),
        ["a.io/x;0000;ffff", "a.io/y;1d6b;0002"]
    );
}

#[test]
fn serial_bus_and_port_may_follow() {
    assert_eq!(
        items("a.io/x;0bda;0811;port=01.4;serial= A 1=b ; bus = 003"),
        ["a.io/x;0bda;0811;serial=A 1=b;bus=3;port=1.4"]
    );
}

#[test]
fn a_wrong_item_is_named_and_the_others_count() {
    let expected = "expected resource;vendor;product";
    for (wrong, told) in [
        ("a.io/w", "it has 1 of 3 parts"),
        ("a.io/w;0bda", "it has 2 of 3 parts"),
        (";0bda;0811", "\"\" is no resource name"),
        ("wifi;0bda;0811", "\"wifi\" is no resource name"),
        ("a.io/w;0bdg;0811", "vendor \"0bdg\" is no ID"),
        ("a.io/w;0bda;", "product \"\" is no ID"),
        ("a.io/w;0x;0811", "vendor \"0x\" is no ID"),
        ("a.io/w;00bda;0811", "vendor \"00bda\" is no ID"),
        ("a.io/w;+bda;0811", "vendor \"+bda\" is no ID"),
        ("a.io/w;0bda;-811", "product \"-811\" is no ID"),
        ("a.io/w;0bda;0811;", "part 4 is none of"),
        ("a.io/w;0bda;0811;bus=1;1.4", "part 5 is none of"),
        ("a.io/w;0bda;0811;speed=3", "part 4 is none of"),
        (
            "a.io/w;0bda;0811;serial=",
            "serial \"\" is no serial number",
        ),
        ("a.io/w;0bda;0811;bus=0", "bus \"0\" is no number"),
        ("a.io/w;0bda;0811;bus=99999", "bus \"99999\" is no number"),
        (
            "a.io/w;0bda;0811;port=1-1.4",
            "port \"1-1.4\" is no port path",
        ),
        ("a.io/w;0bda;0811;port=1.2.3.4.5.6.7", "is no port path"),
        (
            "a.io/w;0bda;0811;port=1..4",
            "port \"1..4\" is no port path",
        ),
        ("a.io/w;0bda;0811;bus=1;bus=2", "bus is there twice"),
    ] {
        let (selectors, problems) = parse(&format!("a.io/x;1;1,{wrong},a.io/y;2;2"));
        assert_eq!(
            written(&selectors),
            ["a.io/x;0001;0001", "a.io/y;0002;0002"]
        );
        assert_eq!(problems.len(), 1, "{wrong}");
        assert_eq!(problems[0].field, "--usb-list item 2");
        let text = &problems[0].text;
        assert!(text.starts_with(&format!("{wrong:?}: ")), "{text}");
        assert!(text.contains(told) && text.contains(expected), "{text}");
    }
}

#[test]
fn an_item_that_is_there_twice_counts_once_and_is_told() {
    let (selectors, problems) = parse("a.io/x;0bda;811,a.io/y;0bda;811,a.io/x;0x0BDA;0811");
    assert_eq!(
        written(&selectors),
        ["a.io/x;0bda;0811", "a.io/y;0bda;0811"]
    );
    assert_eq!(problems.len(), 1);
    assert_eq!(problems[0].field, "--usb-list item 3");
    assert!(
        problems[0].text.contains("repeats item 1 and counts once"),
        "{}",
        problems[0].text
    );
}

#[test]
fn one_resource_may_have_several_makes() {
    assert_eq!(
        items("a.io/x;1;1,a.io/x;1;2"),
        ["a.io/x;0001;0001", "a.io/x;0001;0002"]
    );
}

#[test]
fn lists_are_bounded() {
    let many: String = (0..ITEMS_MAX + 9)
        .map(|id| format!("a.io/x;1;{id:x},"))
        .collect();
    let (selectors, problems) = parse(&many);
    assert_eq!(selectors.len(), ITEMS_MAX);
    assert_eq!(problems.len(), 1);
    assert_eq!(
        problems[0].field,
        format!("--usb-list from item {} on", ITEMS_MAX + 1)
    );

    let long = format!("a.io/x;1;1,{},a.io/y;1;1", "é".repeat(LIST_LEN_MAX));
    let (selectors, problems) = parse(&long);
    assert_eq!(selectors.len(), 1);
    assert_eq!(problems[0].field, "--usb-list from item 2 on");
    assert!(problems[0].text.len() < 200);

    let wrong = "x,".repeat(PROBLEMS_MAX + 7);
    let (_, problems) = parse(&wrong);
    assert_eq!(problems.len(), PROBLEMS_MAX + 1);
    assert!(problems[PROBLEMS_MAX].text.starts_with("7 more items"));
}

#[test]
fn a_problem_repeats_no_more_of_an_item_than_needed() {
    let (_, problems) = parse(&format!("a.io/x;\u{1b}[31m{};1", "z".repeat(9000)));
    assert!(problems[0].text.len() < 500, "{}", problems[0].text);
    assert!(!problems[0].text.contains('\u{1b}'));
}

#[test]
fn matches_are_read_as_numbers() {
    let expected = UsbMatch {
        vendor: 0x0bda,
        product: 0x0811,
        ..UsbMatch::default()
    };
    for (vendor, product) in [("0bda", "0811"), ("BdA", "811"), ("0x0BDA", " 811 ")] {
        assert_eq!(UsbMatch::parse(vendor, product).as_ref(), Ok(&expected));
    }
    let error = UsbMatch::parse("0bda", "realtek").unwrap_err().to_string();
    assert_eq!(
        error,
        "product \"realtek\" is no ID: expected up to four hexadecimal digits, such as 0bda"
    );
    assert!(UsbMatch::parse("", "1").is_err());
    assert!(UsbMatch::parse("0x0x1", "1").is_err());
}

/// Texts that look like lists.
fn lists() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        Just("a.io/x".to_owned()),
        Just("kubevirt.io/wifi-dongle".to_owned()),
        "0?[xX]?[0-9a-fA-F]{0,5}",
        "(serial|bus|port|x)=[0-9.]{0,5}",
        "\\PC{0,6}",
    ];
    let item = prop::collection::vec(part, 0..7).prop_map(|parts| parts.join(";"));
    prop::collection::vec(item, 0..7).prop_map(|items| items.join(","))
}

proptest! {
    #[test]
    fn whatever_is_accepted_reads_the_same_once_written(list in prop_oneof![lists(), any::<String>()]) {
        let (selectors, problems) = parse(&list);
        let again = written(&selectors).join(",");
        let (same, none) = parse(&again);
        prop_assert_eq!(&selectors, &same);
        prop_assert_eq!(none, []);
        let items = list.split(',').filter(|item| !item.trim().is_empty()).count();
        prop_assert_eq!(selectors.len() + problems.len(), items);
    }
}
