//! What messages look like.

use std::collections::HashMap;
use std::sync::LazyLock;

use super::wire::Wire;

/// The table of messages, in the form that its first lines say.
const TABLE: &str = include_str!("messages.txt");

static MESSAGES: LazyLock<HashMap<&'static str, Message>> = LazyLock::new(|| {
    let lines = TABLE.lines().filter(|it| !it.starts_with('#'));
    lines.map(line).map(|it| (it.name, it)).collect()
});

/// A message.
#[derive(Debug)]
pub(super) struct Message {
    /// Group version and kind.
    pub(super) name: &'static str,
    pub(super) fields: Vec<Field>,
}

/// A field of a message.
#[derive(Debug)]
pub(super) struct Field {
    /// Name in JSON; empty when its fields are the message's.
    pub(super) name: &'static str,
    pub(super) number: u32,
    /// Whether a zero is a value; otherwise it says that there is none.
    pub(super) keeps_zero: bool,
    pub(super) shape: Shape,
}

/// Type of a value.
#[derive(Debug)]
pub(super) enum Shape {
    Text,
    Number,
    Truth,
    Bytes,
    Time,
    FineTime,
    Quantity,
    NumberOrText,
    Texts,
    Json,
    Message(&'static str),
    List(Box<Shape>),
    Map(Box<Shape>),
}

impl Shape {
    /// What stands for a value that is left out.
    pub(super) fn nothing(&self) -> Wire<'static> {
        match self {
            Self::Number | Self::Truth => Wire::Number(0),
            _ => Wire::Bytes(&[]),
        }
    }
}

/// Returns a message by its name.
pub(super) fn find(name: &str) -> Option<&'static Message> {
    MESSAGES.get(name)
}

/// Returns the message of a kind. Some kinds go with objects of every group.
pub(super) fn of_kind(api_version: &str, kind: &str) -> Option<&'static Message> {
    let own = find(&format!("{api_version}.{kind}"));
    let shared = || find(&format!("meta/v1.{kind}")).filter(|_| kind == "DeleteOptions");
    own.or_else(shared)
}

fn line(text: &'static str) -> Message {
    let mut words = text.split(' ');
    let name = words.next().unwrap_or_default();
    Message {
        name,
        fields: words.filter_map(field).collect(),
    }
}

fn field(word: &'static str) -> Option<Field> {
    let (name, rest) = word.split_once('=')?;
    let digits = rest.find(|it: char| !it.is_ascii_digit())?;
    let (number, rest) = rest.split_at(digits);
    let shape = rest.trim_start_matches('?');
    Some(Field {
        name,
        number: number.parse().ok()?,
        keeps_zero: shape.len() < rest.len(),
        shape: self::shape(shape),
    })
}

fn shape(text: &'static str) -> Shape {
    if let Some(item) = text.strip_prefix('*') {
        return Shape::List(Box::new(shape(item)));
    }
    if let Some(value) = text.strip_prefix('%') {
        return Shape::Map(Box::new(shape(value)));
    }
    match text {
        "s" => Shape::Text,
        "i" => Shape::Number,
        "b" => Shape::Truth,
        "y" => Shape::Bytes,
        "T" => Shape::Time,
        "U" => Shape::FineTime,
        "Q" => Shape::Quantity,
        "O" => Shape::NumberOrText,
        "L" => Shape::Texts,
        "F" | "R" => Shape::Json,
        message => Shape::Message(message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checks that a type is known, and returns how many types that was.
    fn check(shape: &Shape, inside: &str) {
        match shape {
            Shape::List(inner) | Shape::Map(inner) => check(inner, inside),
            Shape::Message(name) => assert!(find(name).is_some(), "{name} in {inside}"),
            _ => {}
        }
    }

    #[test]
    fn the_table_is_complete() {
        assert!(MESSAGES.len() > 300);
        for message in MESSAGES.values() {
            message
                .fields
                .iter()
                .for_each(|it| check(&it.shape, message.name));
        }
        let words = TABLE
            .lines()
            .filter(|it| !it.starts_with('#'))
            .map(|it| it.split(' ').count() - 1);
        let fields = MESSAGES.values().map(|it| it.fields.len());
        assert_eq!(words.sum::<usize>(), fields.sum::<usize>());
    }

    #[test]
    fn kinds_are_found_by_version_and_name() {
        assert!(of_kind("v1", "Pod").is_some());
        assert!(of_kind("apps/v1", "Deployment").is_some());
        assert!(of_kind("policy/v1", "DeleteOptions").is_some());
        assert!(of_kind("kubevirt.io/v1", "VirtualMachine").is_none());
    }
}
