//! The numbers, names and types on every wire, against tables written from the peers' side of it: a
//! number that changed here would be misread there, and nothing else would fail.

#![expect(
    clippy::tests_outside_test_module,
    reason = "an integration test is a test module as a whole"
)]

use std::collections::BTreeMap;
use std::fmt::Write as _;

use protox::prost_reflect::{
    DescriptorPool, FieldDescriptor, Kind, MessageDescriptor, MethodDescriptor,
};

/// Each message, and in the lines below it number, name and type of each field.
const MESSAGES: &str = include_str!("field_numbers/messages.txt");

/// Each service, and in the lines below it name, request and response of each method.
const SERVICES: &str = include_str!("field_numbers/services.txt");

fn pool() -> DescriptorPool {
    DescriptorPool::decode(proto::FILE_DESCRIPTOR_SET).expect("the build wrote the descriptors")
}

/// `<number> <name> <type>`, the type as in a .proto file.
fn field(field: &FieldDescriptor) -> String {
    format!("{} {} {}", field.number(), field.name(), field_type(field))
}

fn field_type(field: &FieldDescriptor) -> String {
    if let (true, Kind::Message(entry)) = (field.is_map(), field.kind()) {
        let value = kind(&entry.map_entry_value_field().kind());
        return format!("map<{},{value}>", kind(&entry.map_entry_key_field().kind()));
    }
    let repeated = if field.is_list() { "repeated:" } else { "" };
    format!("{repeated}{}", kind(&field.kind()))
}

fn kind(kind: &Kind) -> String {
    match kind {
        Kind::Message(message) => message.name().to_owned(),
        scalar => format!("{scalar:?}").to_lowercase(),
    }
}

fn message(message: &MessageDescriptor) -> String {
    let mut fields: Vec<_> = message.fields().collect();
    fields.sort_by_key(FieldDescriptor::number);
    fields.iter().map(field).collect::<Vec<_>>().join(", ")
}

fn method(method: &MethodDescriptor) -> String {
    let stream = |on: bool| if on { "stream " } else { "" };
    format!(
        "{}({}{}) {}{}",
        method.name(),
        stream(method.is_client_streaming()),
        method.input().name(),
        stream(method.is_server_streaming()),
        method.output().name()
    )
}

/// Takes a table apart: a line without indent opens an entry, indented lines are its parts.
fn entries(table: &str) -> BTreeMap<String, Vec<String>> {
    let mut entries: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut open = String::new();
    for line in table.lines().filter(|line| !line.trim().is_empty()) {
        if line.starts_with(' ') {
            let parts = line
                .trim()
                .trim_end_matches(',')
                .split(", ")
                .map(str::to_owned);
            entries.entry(open.clone()).or_default().extend(parts);
        } else {
            line.trim().clone_into(&mut open);
            assert!(
                entries.insert(open.clone(), Vec::new()).is_none(),
                "{open} is there twice"
            );
        }
    }
    entries
}

/// Lists what differs, so that a failure reads as a change of the wire.
fn differences(
    expected: &BTreeMap<String, Vec<String>>,
    actual: &BTreeMap<String, Vec<String>>,
) -> String {
    let mut text = String::new();
    for name in expected
        .keys()
        .chain(actual.keys().filter(|name| !expected.contains_key(*name)))
    {
        if expected.get(name) != actual.get(name) {
            let (expected, actual) = (expected.get(name), actual.get(name));
            writeln!(text, "{name}\n  table {expected:?}\n  wire  {actual:?}")
                .expect("a string takes everything");
        }
    }
    text
}

#[test]
fn every_field_has_the_number_and_type_its_peers_expect() {
    let actual: BTreeMap<_, _> = pool()
        .all_messages()
        .filter(|found| !found.is_map_entry())
        .map(|found| {
            let fields = message(&found);
            let fields = fields.split(", ").filter(|field| !field.is_empty());
            (
                found.full_name().to_owned(),
                fields.map(str::to_owned).collect(),
            )
        })
        .collect();
    let differences = differences(&entries(MESSAGES), &actual);
    assert!(differences.is_empty(), "{differences}");
}

#[test]
fn every_service_has_the_methods_its_peers_call() {
    let actual: BTreeMap<_, _> = pool()
        .services()
        .map(|service| {
            (
                service.full_name().to_owned(),
                service.methods().map(|found| method(&found)).collect(),
            )
        })
        .collect();
    let differences = differences(&entries(SERVICES), &actual);
    assert!(differences.is_empty(), "{differences}");
}

#[test]
fn the_command_service_has_36_unary_methods() {
    let pool = pool();
    let service = pool.get_service_by_name("kubevirt.cmd.v1.Cmd").unwrap();
    assert_eq!(service.methods().len(), 36);
    assert!(
        service
            .methods()
            .all(|found| !found.is_client_streaming() && !found.is_server_streaming())
    );
}
