//! Lines and their JSON.

use proptest::prelude::*;
use proptest::string::string_regex;
use serde_json::json;

use crate::agent::answers::{Freeze, Nothing, Text};
use crate::agent::wire::{
    Line, Lines, MAX_LINE_BYTES, answer, fuzz_line, is_synced, request, sync,
};

fn lines_of(pieces: &[&[u8]]) -> Vec<Line> {
    let mut lines = Lines::default();
    let mut found = Vec::new();
    for piece in pieces {
        lines.push(piece);
        while let Some(line) = lines.next() {
            found.push(line);
        }
    }
    found
}

fn whole(text: &str) -> Line {
    Line::Whole(text.as_bytes().to_vec())
}

#[test]
fn requests_are_lines_of_json() {
    assert_eq!(
        request("guest-ping", None),
        b"{\"execute\":\"guest-ping\"}\n"
    );
    let arguments = json!({"pid": 1});
    let expected = b"{\"arguments\":{\"pid\":1},\"execute\":\"guest-exec-status\"}\n";
    assert_eq!(request("guest-exec-status", Some(&arguments)), expected);
    assert_eq!(sync(7)[0], 0xff);
}

#[test]
fn lines_are_put_together_from_pieces() {
    let found = lines_of(&[b"on", b"e\ntw", b"o\n\nthr", b"ee"]);
    assert_eq!(found, [whole("one"), whole("two"), whole("")]);
}

#[test]
fn a_long_line_is_told_once_and_passed_over() {
    let long = vec![b'x'; MAX_LINE_BYTES + 1];
    let found = lines_of(&[b"a\n", &long, &long, b"end\nb\n"]);
    assert_eq!(found, [whole("a"), Line::TooLong, whole("b")]);
    let at_once = [&long[..], b"\nb\n"].concat();
    assert_eq!(lines_of(&[&at_once]), [Line::TooLong, whole("b")]);
}

#[test]
fn only_our_own_number_after_the_last_delimiter_counts() {
    for (line, expected) in [
        (&b"\xff{\"return\": 7}"[..], true),
        (b"{\"return\": 7}", false),
        (b"old{\xff\xff{\"return\": 7}", true),
        (b"\xff{\"return\": 8}", false),
        (b"{\"return\": 7}\xff", false),
        (b"\xff{\"return\": \"7\"}", false),
        (b"\xff{\"error\": {\"class\": \"x\"}, \"return\": 7}", false),
    ] {
        assert_eq!(is_synced(line, 7), expected, "{}", line.escape_ascii());
    }
}

#[test]
fn answers_are_results_or_errors() {
    assert!(answer::<Nothing>(b"{\"return\": {}}").is_ok());
    assert!(answer::<Freeze>(b"{\"return\": \"frozen\", \"id\": 1}").is_ok());
    for (line, expected) in [
        (&b"{}"[..], "decode the answer"),
        (b"", "decode the answer"),
        (b"{\"error\": {\"class\": \"A\", \"desc\": \"b\"}}", "A: b"),
        (b"{\"error\": {}}", ": "),
        (b"{\"error\": 1}", "decode the answer"),
    ] {
        assert_eq!(answer::<Text>(line).unwrap_err().to_string(), expected);
    }
}

/// Bytes that look like an agent's answers, more or less.
fn lines() -> impl Strategy<Value = Vec<u8>> {
    let names =
        "(return|error|exited|version|name|user|ip-addresses|prefix|pid|offset|online|out-data)";
    let json = format!(
        r#"\{{"return": [\[{{]?("{names}": (-?[0-9]{{1,22}}(e[0-9]{{1,3}})?|"[a-z=]{{0,8}}"|\[\]|null|true),?)*[\]}}]?\}}"#
    );
    prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..200),
        string_regex(&json).unwrap().prop_map(String::into_bytes),
    ]
}

proptest! {
    #[test]
    fn no_line_does_harm(pieces in proptest::collection::vec(lines(), 0..4)) {
        fuzz_line(&pieces.join(&b'\n'));
    }

    #[test]
    fn lines_do_not_depend_on_how_they_were_cut(bytes in "[ab\n]{0,64}", at in 0..64usize) {
        let at = at.min(bytes.len());
        let (head, tail) = bytes.as_bytes().split_at(at);
        prop_assert_eq!(lines_of(&[head, tail]), lines_of(&[bytes.as_bytes()]));
    }
}
