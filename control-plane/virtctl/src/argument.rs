//! The forms in which objects, ports and parameters are named on the command line.

use std::time::Duration;

use crate::cluster::Kind;

/// Length of names of objects (RFC 1123 subdomain).
const NAME_LEN_MAX: usize = 253;
/// Length of names of namespaces (RFC 1123 label).
const NAMESPACE_LEN_MAX: usize = 63;

/// Reads the name of an object; what is no name would change the path of a request.
///
/// # Errors
///
/// Fails when the cluster can have no object of this name.
pub(crate) fn name(text: &str) -> Result<String, String> {
    is_name(text, NAME_LEN_MAX, true)
        .then(|| text.to_owned())
        .ok_or_else(|| {
            format!("{text:?} is no name of an object: use lower-case letters, digits, '-' and '.'")
        })
}

/// Reads the name of a namespace.
///
/// # Errors
///
/// Fails when the cluster can have no namespace of this name.
pub(crate) fn namespace(text: &str) -> Result<String, String> {
    is_name(text, NAMESPACE_LEN_MAX, false)
        .then(|| text.to_owned())
        .ok_or_else(|| {
            format!("{text:?} is no name of a namespace: use lower-case letters, digits and '-'")
        })
}

fn is_name(text: &str, len_max: usize, allows_dots: bool) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let is_inner = |byte: u8| is_plain(byte) || byte == b'-' || (allows_dots && byte == b'.');
    let bytes = text.as_bytes();
    bytes.len() <= len_max
        && bytes.first().is_some_and(|byte| is_plain(*byte))
        && bytes.last().is_some_and(|byte| is_plain(*byte))
        && bytes.iter().all(|byte| is_inner(*byte))
}

/// Reads a kind of objects with actions, in any case, singular, plural or short.
///
/// # Errors
///
/// Fails for other kinds.
pub(crate) fn kind(text: &str) -> Result<Kind, String> {
    match text.to_ascii_lowercase().as_str() {
        "vm" | "vms" | "virtualmachine" | "virtualmachines" => Ok(Kind::Machine),
        "vmi" | "vmis" | "virtualmachineinstance" | "virtualmachineinstances" => Ok(Kind::Instance),
        _ => Err(format!("unsupported resource type {text:?}: use vm or vmi")),
    }
}

/// Reads a virtual machine: `NAME`, or `vm/NAME`.
///
/// # Errors
///
/// Fails for other kinds and for what is no name.
pub(crate) fn machine(text: &str) -> Result<String, String> {
    match text.split_once('/') {
        None => name(text),
        Some((of, rest)) if kind(of)? == Kind::Machine => name(rest),
        Some(_) => Err(format!(
            "{text:?} is an instance: name its virtual machine, vm/NAME"
        )),
    }
}

/// Reads an instance: `NAME`, `vmi/NAME`, or `vm/NAME`, as an instance has the name of its machine.
///
/// # Errors
///
/// Fails for other kinds and for what is no name.
pub(crate) fn instance(text: &str) -> Result<String, String> {
    match text.split_once('/') {
        None => name(text),
        Some((of, rest)) => kind(of).and_then(|_| name(rest)),
    }
}

/// Reads a time whose plain number means minutes, `5`, or that has a unit, `30s`.
///
/// # Errors
///
/// Fails for other texts.
pub(crate) fn minutes(text: &str) -> Result<Duration, String> {
    time(text, 60)
}

/// Reads a time whose plain number means seconds, `5`, or that has a unit, `1m`.
///
/// # Errors
///
/// Fails for other texts.
pub(crate) fn seconds(text: &str) -> Result<Duration, String> {
    time(text, 1)
}

fn time(text: &str, seconds_of_number: u64) -> Result<Duration, String> {
    match text.parse::<u32>() {
        Ok(number) => Ok(Duration::from_secs(u64::from(number) * seconds_of_number)),
        Err(_) => api::duration::parse(text).map_err(|error| error.to_string()),
    }
}
