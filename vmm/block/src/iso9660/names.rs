//! The three names of every file: ECMA-119 level 1, Joliet, and the true one in Rock Ridge.

use std::collections::BTreeSet;

/// The longest Joliet name, in UCS-2 units (Joliet specification, "Relaxed restrictions").
const JOLIET_UNITS: usize = 64;
/// Level 1 names have eight characters before the dot and three behind it.
const STEM: usize = 8;
const EXTENSION: usize = 3;

/// A name in big-endian UCS-2; a root directory has a single zero byte instead.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Joliet(Vec<u8>);

impl Joliet {
    /// Returns the name of a root directory.
    pub(super) fn root() -> Self {
        Self(vec![0])
    }

    /// Returns the name as it is stored.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Makes a level 1 name that is not taken yet, and takes it.
pub(super) fn iso_name(name: &str, is_file: bool, taken: &mut BTreeSet<Vec<u8>>) -> Vec<u8> {
    let (stem, extension) = match name.rsplit_once('.') {
        Some((stem, extension)) if is_file && !stem.is_empty() => (stem, extension),
        _ => (name, ""),
    };
    let (stem, extension) = (d_characters(stem, STEM), d_characters(extension, EXTENSION));
    for number in 0u64.. {
        let suffix = if number == 0 {
            String::new()
        } else {
            number.to_string()
        };
        let kept = &stem[..stem.len().min(STEM.saturating_sub(suffix.len()))];
        let whole = if is_file {
            format!("{kept}{suffix}.{extension};1")
        } else {
            format!("{kept}{suffix}")
        };
        if taken.insert(whole.clone().into_bytes()) {
            return whole.into_bytes();
        }
    }
    unreachable!("there are fewer files than numbers")
}

/// Maps a name to the characters that ECMA-119 §7.4.1 allows, and cuts it.
fn d_characters(name: &str, most: usize) -> String {
    let map = |c: char| {
        if c.is_ascii_alphanumeric() {
            c.to_ascii_uppercase()
        } else {
            '_'
        }
    };
    name.chars().map(map).take(most).collect()
}

/// Makes a Joliet name that is not taken yet, and takes it.
pub(super) fn joliet_name(name: &str, taken: &mut BTreeSet<Joliet>) -> Joliet {
    let map = |c: char| match c {
        '*' | '/' | ':' | ';' | '?' | '\\' => '_',
        c if c.is_control() || u32::from(c) > 0xffff => '_',
        c => c,
    };
    let units: Vec<u16> = name
        .chars()
        .map(map)
        .collect::<String>()
        .encode_utf16()
        .collect();
    for number in 0u64.. {
        let suffix = if number == 0 {
            String::new()
        } else {
            format!("~{number}")
        };
        let suffix: Vec<u16> = suffix.encode_utf16().collect();
        let kept = &units[..units.len().min(JOLIET_UNITS - suffix.len())];
        let bytes = kept
            .iter()
            .chain(&suffix)
            .flat_map(|unit| unit.to_be_bytes())
            .collect();
        let joliet = Joliet(bytes);
        if taken.insert(joliet.clone()) {
            return joliet;
        }
    }
    unreachable!("there are fewer files than numbers")
}
