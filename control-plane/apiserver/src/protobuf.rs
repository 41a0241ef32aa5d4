//! Kubernetes' protobuf encoding of requests, as kubectl and typed clients send some: `k8s\0`, then `runtime.Unknown`
//! with the object, which becomes the JSON that everything else works with.
//!
//! What messages look like is data (`messages.txt`), read when the first such request comes.

mod messages;
mod wire;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use self::messages::{Field, Message, Shape, find, of_kind};
use self::wire::{Reader, Wire};
use crate::failure::Failure;

/// What each such body begins with.
const MAGIC: &[u8] = b"k8s\0";
/// Depth of messages, below that of the JSON that is read.
const DEPTH_MAX: usize = 64;

/// What is wrong with a body.
#[derive(Debug, thiserror::Error)]
enum Wrong {
    #[error("it does not begin with \"k8s\" and a zero byte")]
    Magic,
    #[error("it ends in the middle of a field")]
    Short,
    #[error("{0} is not encoded as its type is")]
    Type(String),
    #[error("{0} is not UTF-8")]
    Text(String),
    #[error("{0} is not JSON")]
    Json(String),
    #[error("it is nested deeper than {DEPTH_MAX} messages")]
    Deep,
    #[error("field {number} of {message} is not known here")]
    Field { message: String, number: u32 },
    #[error("{0} is not known here")]
    Kind(String),
}

/// Decodes a body to the JSON of its object.
///
/// # Errors
///
/// 400 when it is malformed, 415 when the kind or one of its fields is not known here in this encoding.
pub fn decode(body: &[u8]) -> Result<Value, Failure> {
    object(body).map_err(|wrong| match wrong {
        Wrong::Field { .. } | Wrong::Kind(_) => Failure::new(
            415,
            "UnsupportedMediaType",
            format!("the protobuf body cannot be read: {wrong}; send the object as application/json (kubectl: with -f)"),
        ),
        wrong => Failure::bad_request(format!("the protobuf body cannot be read: {wrong}")),
    })
}

fn object(body: &[u8]) -> Result<Value, Wrong> {
    let body = body.strip_prefix(MAGIC).ok_or(Wrong::Magic)?;
    let (mut api_version, mut kind, mut raw) = (String::new(), String::new(), [].as_slice());
    for field in Reader::new(body) {
        match field? {
            (1, Wire::Bytes(bytes)) => (api_version, kind) = type_meta(bytes)?,
            (2, Wire::Bytes(bytes)) => raw = bytes,
            _ => {}
        }
    }
    let message = of_kind(&api_version, &kind)
        .ok_or_else(|| Wrong::Kind(format!("{kind} of {api_version}")))?;
    let mut fields = Map::new();
    read(message, raw, &mut fields, 0)?;
    fields.insert("apiVersion".to_owned(), api_version.into());
    fields.insert("kind".to_owned(), kind.into());
    Ok(Value::Object(fields))
}

fn type_meta(bytes: &[u8]) -> Result<(String, String), Wrong> {
    let (mut api_version, mut kind) = (String::new(), String::new());
    for field in Reader::new(bytes) {
        match field? {
            (1, Wire::Bytes(text)) => api_version = utf_8(text, "apiVersion")?,
            (2, Wire::Bytes(text)) => kind = utf_8(text, "kind")?,
            _ => {}
        }
    }
    Ok((api_version, kind))
}

/// Reads the fields of a message into an object.
fn read(
    message: &Message,
    bytes: &[u8],
    fields: &mut Map<String, Value>,
    depth: usize,
) -> Result<(), Wrong> {
    if depth > DEPTH_MAX {
        return Err(Wrong::Deep);
    }
    for found in Reader::new(bytes) {
        let (number, wire) = found?;
        match message.fields.iter().find(|it| it.number == number) {
            Some(field) => put(field, wire, fields, depth)?,
            // A message that is empty says nothing that could be lost.
            None if matches!(wire, Wire::Bytes([])) => {}
            None => {
                return Err(Wrong::Field {
                    message: message.name.to_owned(),
                    number,
                });
            }
        }
    }
    Ok(())
}

fn put(
    field: &Field,
    wire: Wire<'_>,
    fields: &mut Map<String, Value>,
    depth: usize,
) -> Result<(), Wrong> {
    if field.name.is_empty() {
        let (Shape::Message(inner), Wire::Bytes(bytes)) = (&field.shape, wire) else {
            return Err(wrong_type(field));
        };
        return read(message(inner)?, bytes, fields, depth + 1);
    }
    let name = field.name.to_owned();
    match &field.shape {
        Shape::List(shape) => {
            let list = fields.entry(name).or_insert_with(|| json!([]));
            let items = list.as_array_mut().ok_or_else(|| wrong_type(field))?;
            items.extend(items_of(field, shape, wire, depth)?);
        }
        Shape::Map(shape) => {
            let (key, value) = entry(field, shape, wire, depth)?;
            fields.entry(name).or_insert_with(|| json!({}))[key] = value;
        }
        shape => {
            let value = value(field, shape, wire, depth)?;
            if field.keeps_zero && !value.is_null() || !is_zero(&value) {
                fields.insert(name, value);
            }
        }
    }
    Ok(())
}

/// Returns the items of one occurrence of a list: one, or several packed numbers.
fn items_of(
    field: &Field,
    shape: &Shape,
    wire: Wire<'_>,
    depth: usize,
) -> Result<Vec<Value>, Wrong> {
    match (shape, wire) {
        (Shape::Number, Wire::Bytes(packed)) => {
            let numbers = wire::packed(packed).map(|it| Ok(number(it?)));
            numbers.collect()
        }
        (shape, wire) => Ok(vec![value(field, shape, wire, depth)?]),
    }
}

fn entry(
    field: &Field,
    shape: &Shape,
    wire: Wire<'_>,
    depth: usize,
) -> Result<(String, Value), Wrong> {
    let Wire::Bytes(bytes) = wire else {
        return Err(wrong_type(field));
    };
    let (mut key, mut found) = (String::new(), value(field, shape, shape.nothing(), depth)?);
    for part in Reader::new(bytes) {
        match part? {
            (1, Wire::Bytes(text)) => key = utf_8(text, field.name)?,
            (2, wire) => found = value(field, shape, wire, depth)?,
            _ => {}
        }
    }
    Ok((key, found))
}

fn value(field: &Field, shape: &Shape, wire: Wire<'_>, depth: usize) -> Result<Value, Wrong> {
    let wrong = || wrong_type(field);
    Ok(match (shape, wire) {
        (Shape::Number, Wire::Number(it)) => number(it),
        (Shape::Truth, Wire::Number(it)) => (it != 0).into(),
        (Shape::Text, Wire::Bytes(it)) => utf_8(it, field.name)?.into(),
        (Shape::Bytes, Wire::Bytes(it)) => STANDARD.encode(it).into(),
        (Shape::Time, Wire::Bytes(it)) => time(it, "%Y-%m-%dT%H:%M:%SZ").ok_or_else(wrong)?,
        (Shape::FineTime, Wire::Bytes(it)) => {
            time(it, "%Y-%m-%dT%H:%M:%S%.6fZ").ok_or_else(wrong)?
        }
        (Shape::Quantity, Wire::Bytes(it)) => {
            texts(it, field.name)?.pop().unwrap_or_default().into()
        }
        (Shape::Texts, Wire::Bytes(it)) => texts(it, field.name)?.into(),
        (Shape::NumberOrText, Wire::Bytes(it)) => number_or_text(it, field.name)?,
        (Shape::Json, Wire::Bytes(it)) => raw_json(it, field.name)?,
        (Shape::Message(inner), Wire::Bytes(it)) => {
            let mut fields = Map::new();
            read(message(inner)?, it, &mut fields, depth + 1)?;
            Value::Object(fields)
        }
        _ => return Err(wrong()),
    })
}

fn message(name: &str) -> Result<&'static Message, Wrong> {
    find(name).ok_or_else(|| Wrong::Kind(name.to_owned()))
}

fn wrong_type(field: &Field) -> Wrong {
    Wrong::Type(field.name.to_owned())
}

fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Bool(true) | Value::Array(_) => false,
        Value::Number(number) => number.as_i64() == Some(0),
        Value::String(text) => text.is_empty(),
        Value::Object(fields) => fields.is_empty(),
    }
}

/// Numbers are signed, in two's complement.
fn number(raw: u64) -> Value {
    raw.cast_signed().into()
}

fn utf_8(bytes: &[u8], name: &str) -> Result<String, Wrong> {
    let text = std::str::from_utf8(bytes).map_err(|_| Wrong::Text(name.to_owned()))?;
    Ok(text.to_owned())
}

/// Reads seconds and nanoseconds; an empty message is no time.
fn time(bytes: &[u8], form: &str) -> Option<Value> {
    let (mut seconds, mut nanos) = (0_i64, 0_i32);
    for field in Reader::new(bytes) {
        match field.ok()? {
            (1, Wire::Number(it)) => seconds = it.cast_signed(),
            (2, Wire::Number(it)) => nanos = i32::try_from(it.cast_signed()).ok()?,
            _ => {}
        }
    }
    if (seconds, nanos) == (0, 0) {
        return Some(Value::Null);
    }
    let time = Timestamp::new(seconds, nanos).ok()?;
    Some(time.strftime(form).to_string().into())
}

/// Reads a message whose only field is text, once or several times.
fn texts(bytes: &[u8], name: &str) -> Result<Vec<String>, Wrong> {
    let mut all = Vec::new();
    for field in Reader::new(bytes) {
        if let (1, Wire::Bytes(text)) = field? {
            all.push(utf_8(text, name)?);
        }
    }
    Ok(all)
}

fn number_or_text(bytes: &[u8], name: &str) -> Result<Value, Wrong> {
    let (mut is_text, mut as_number, mut as_text) = (false, 0, String::new());
    for field in Reader::new(bytes) {
        match field? {
            (1, Wire::Number(it)) => is_text = it == 1,
            (2, Wire::Number(it)) => as_number = it,
            (3, Wire::Bytes(it)) => as_text = utf_8(it, name)?,
            _ => {}
        }
    }
    Ok(if is_text {
        as_text.into()
    } else {
        number(as_number)
    })
}

fn raw_json(bytes: &[u8], name: &str) -> Result<Value, Wrong> {
    let mut raw = [].as_slice();
    for field in Reader::new(bytes) {
        if let (1, Wire::Bytes(it)) = field? {
            raw = it;
        }
    }
    if raw.is_empty() {
        return Ok(Value::Null);
    }
    serde_json::from_slice(raw).map_err(|_| Wrong::Json(name.to_owned()))
}

#[cfg(test)]
mod tests;
