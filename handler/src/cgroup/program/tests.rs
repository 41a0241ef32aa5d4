//! Tests of programs with the machine that decides without running them.

use proptest::collection::vec;
use proptest::prelude::{Strategy, any, prop_assert_eq, proptest};
use proptest::sample::select;

use super::super::rules::DeviceNode;
use super::*;

const ACCESSES: [&str; 8] = ["r", "w", "m", "rw", "rm", "wm", "rwm", ""];

fn kinds() -> impl Strategy<Value = DeviceKind> {
    select(vec![DeviceKind::Character, DeviceKind::Block])
}

/// Few numbers, so that rules are often about the same devices.
fn any_rules() -> impl Strategy<Value = Vec<DeviceRule>> {
    let number = || proptest::option::of(0..4_u32);
    let fields = (
        kinds(),
        number(),
        number(),
        select(&ACCESSES),
        any::<bool>(),
    );
    let rule = fields.prop_map(|(kind, major, minor, access, is_allowed)| DeviceRule {
        kind,
        major,
        minor,
        access,
        is_allowed,
    });
    vec(rule, 0..12)
}

fn any_request() -> impl Strategy<Value = (DeviceNode, &'static str)> {
    let node = (kinds(), 0..5_u32, 0..5_u32);
    let node = node.prop_map(|(kind, major, minor)| DeviceNode { kind, major, minor });
    (node, select(&ACCESSES[..7]))
}

/// What the rules say: each access is decided by the last rule that is about it.
fn expected(rules: &[DeviceRule], node: DeviceNode, access: &str) -> Option<bool> {
    let is_about = |rule: &&DeviceRule, letter| {
        rule.kind == node.kind
            && rule.major.is_none_or(|major| major == node.major)
            && rule.minor.is_none_or(|minor| minor == node.minor)
            && rule.access.contains(letter)
    };
    let fate = |letter| rules.iter().rfind(|rule| is_about(rule, letter));
    let fates: Vec<_> = access.chars().map(fate).collect();
    if fates.iter().flatten().any(|rule| !rule.is_allowed) {
        return Some(false);
    }
    fates.iter().all(Option::is_some).then_some(true)
}

proptest! {
    #[test]
    fn programs_decide_what_their_rules_say(rules in any_rules(), (node, access) in any_request()) {
        let request = Request::new(node, access);
        let said = expected(&rules, node, access);
        prop_assert_eq!(decide(&whole(&rules), &request), Some(said.unwrap_or(false)));
        for rest in [false, true] {
            let program = extended(&rules, &verdict(rest));
            prop_assert_eq!(decide(&program, &request), Some(said.unwrap_or(rest)));
        }
    }

    #[test]
    fn other_rules_replace_those_of_before(old in any_rules(), new in any_rules(), rest in any_rules()) {
        let original = whole(&rest);
        prop_assert_eq!(extended(&new, &extended(&old, &original)), extended(&new, &original));
    }

    #[test]
    fn no_program_stops_the_machine_that_decides(
        program in vec(any::<[u8; 8]>().prop_map(Instruction), 0..20),
        (node, access) in any_request(),
    ) {
        let _decision = decide(&program, &Request::new(node, access));
    }
}

const ZERO: DeviceNode = DeviceNode {
    kind: DeviceKind::Character,
    major: 1,
    minor: 5,
};

#[test]
fn a_number_that_no_device_has_is_no_other_device() {
    let rule = DeviceRule {
        major: Some(u32::MAX),
        ..DeviceRule::allow(ZERO)
    };
    assert_eq!(whole(&[rule]), whole(&[]));
}

#[test]
fn only_programs_that_compare_numbers_are_plain() {
    let rules = super::super::rules(&[ZERO]);
    assert!(is_plain(&whole(&rules)));
    assert!(is_plain(&extended(&rules, &verdict(true))));
    let with = |instruction| [vec![instruction], verdict(true).to_vec()].concat();
    let call = Instruction::new(0x85, 0, 0, 0, 15);
    let of_map = Instruction::new(0x18, 1, 1, 0, 7);
    let blinded = Instruction::set(11, 3);
    let widened = Instruction::new(0xbc, 1, 1, 0, 1);
    let stack = Instruction::new(0x63, 10, 1, -4, 0);
    for odd in [call, of_map, blinded, widened, stack] {
        assert!(!is_plain(&with(odd)), "{odd:?}");
    }
    assert!(!is_plain(&[]));
}

#[test]
fn a_loop_decides_nothing() {
    let again = Instruction::new(0x05, 0, 0, -1, 0);
    assert_eq!(decide(&[again], &Request::new(ZERO, "r")), None);
}
