//! What every device owes its machine: a saved state that a fresh device takes over completely, and
//! a reset that leaves nothing behind.

use std::sync::Arc;

use serde_json::Value;

use crate::clock::ManualClock;
use crate::lifecycle::{Device, SavedDevice};

const ACCESSES: usize = 400;
const SEEDS: u64 = 8;

/// Pseudo-random numbers (xorshift, 64 bits).
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub(crate) fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.next().to_be_bytes()[0]).collect()
    }
}

/// Checks one kind of device. `make` builds a fresh one on a clock, `touch` makes one access that
/// the random number chooses, and `kept` names the fields of the state that survive a reset.
pub(crate) fn check<D: Device + ?Sized>(
    make: impl Fn(&Arc<ManualClock>) -> Arc<D>,
    touch: impl Fn(&D, &mut Random),
    kept: &[&str],
) {
    for seed in 1..=SEEDS {
        let clock = Arc::new(ManualClock::new(1_700_000_000_123_456_789));
        let mut random = Random::new(seed);
        let used = make(&clock);
        for _ in 0..ACCESSES {
            clock.advance_ns(random.next() % 1_000_000);
            touch(&used, &mut random);
        }
        let saved = used.save().unwrap();
        let twin = make(&clock);
        refuses_foreign_states(&*twin, &saved);
        twin.restore(&saved).unwrap();
        assert_eq!(
            twin.save().unwrap(),
            saved,
            "{}: seed {seed}: restored",
            used.name()
        );
        lives_on_alike(&*used, &*twin, &touch, seed);
        survives_damaged_states(&*make(&clock), &saved, &touch, seed);
        used.reset();
        let reset = without(used.save().unwrap(), kept);
        let fresh = without(make(&clock).save().unwrap(), kept);
        assert_eq!(reset, fresh, "{}: seed {seed}: reset", used.name());
    }
}

fn lives_on_alike<D: Device + ?Sized>(
    one: &D,
    other: &D,
    touch: &impl Fn(&D, &mut Random),
    seed: u64,
) {
    let (mut random, mut same) = (Random::new(seed + 100), Random::new(seed + 100));
    for _ in 0..ACCESSES {
        touch(one, &mut random);
        touch(other, &mut same);
    }
    let (one_state, other_state) = (one.save().unwrap(), other.save().unwrap());
    assert_eq!(
        one_state,
        other_state,
        "{}: seed {seed}: lives on",
        one.name()
    );
}

fn refuses_foreign_states<D: Device + ?Sized>(device: &D, saved: &SavedDevice) {
    let before = device.save().unwrap();
    let foreign = [
        SavedDevice {
            kind: "another".to_owned(),
            ..saved.clone()
        },
        SavedDevice {
            version: saved.version + 1,
            ..saved.clone()
        },
        SavedDevice {
            data: Value::from("no state"),
            ..saved.clone()
        },
        SavedDevice {
            data: serde_json::json!({ "no_such_field": 1 }),
            ..saved.clone()
        },
    ];
    for state in foreign {
        assert!(
            device.restore(&state).is_err(),
            "{}: takes {state:?}",
            device.name()
        );
    }
    assert_eq!(
        device.save().unwrap(),
        before,
        "{}: changed by a refusal",
        device.name()
    );
}

/// Numbers at the edges of every type that a state may hold.
const EDGES: [u64; 8] = [
    0,
    1,
    0x7f,
    0xff,
    0xffff,
    0xffff_ffff,
    u64::MAX / 2,
    u64::MAX,
];

/// Puts edge numbers in the place of each number of a state: the device refuses it or works on.
fn survives_damaged_states<D: Device + ?Sized>(
    device: &D,
    saved: &SavedDevice,
    touch: &impl Fn(&D, &mut Random),
    seed: u64,
) {
    let mut random = Random::new(seed + 200);
    for at in 0..count_numbers(&saved.data) {
        for edge in EDGES {
            let mut damaged = saved.clone();
            replace_number(&mut damaged.data, at, edge);
            // Either answer is right: what counts is that neither it nor what follows panics.
            if device.restore(&damaged).is_ok() {
                (0..20).for_each(|_| touch(device, &mut random));
            }
            device.reset();
        }
    }
}

fn count_numbers(value: &Value) -> usize {
    match value {
        Value::Number(_) => 1,
        Value::Array(values) => values.iter().take(MAX_DAMAGED).map(count_numbers).sum(),
        Value::Object(fields) => fields.values().map(count_numbers).sum(),
        Value::Null | Value::Bool(_) | Value::String(_) => 0,
    }
}

/// Elements of an array that are damaged: the others are like them.
const MAX_DAMAGED: usize = 12;

/// Replaces the number that [`count_numbers`] counts as `at`; returns how many it passed.
fn replace_number(value: &mut Value, at: usize, new: u64) -> usize {
    let pass = |passed: usize, value: &mut Value| {
        passed + replace_number(value, at.wrapping_sub(passed), new)
    };
    match value {
        Value::Number(_) => {
            if at == 0 {
                *value = Value::from(new);
            }
            1
        }
        Value::Array(values) => values.iter_mut().take(MAX_DAMAGED).fold(0, pass),
        Value::Object(fields) => fields.values_mut().fold(0, pass),
        Value::Null | Value::Bool(_) | Value::String(_) => 0,
    }
}

fn without(mut saved: SavedDevice, kept: &[&str]) -> SavedDevice {
    if let Value::Object(fields) = &mut saved.data {
        fields.retain(|name, _| !kept.contains(&name.as_str()));
    }
    saved
}

mod tests;
