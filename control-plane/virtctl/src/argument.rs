//! The forms in which objects, ports and parameters are named on the command line.

use std::time::Duration;

use clap::Args;

use crate::cluster::Kind;
use crate::failure::Failure;

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

/// Reads a label, `KEY=VALUE`.
///
/// # Errors
///
/// Fails without a key or a `=`.
pub(crate) fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(format!("{text:?} is no label: write KEY=VALUE")),
    }
}

/// An object with actions, as two words or one: `vm NAME`, `vmi NAME`, `vm/NAME`.
#[derive(Clone, Debug, Args)]
pub(crate) struct Subject {
    /// vm or vmi
    #[arg(value_name = "vm|vmi")]
    kind: String,
    /// Name of the object
    #[arg(value_name = "NAME")]
    name: Option<String>,
}

impl Subject {
    /// Puts two words together, or takes the one that there is.
    pub(crate) fn new(kind: &str, name: Option<&str>) -> Self {
        Self {
            kind: kind.to_owned(),
            name: name.map(ToOwned::to_owned),
        }
    }

    /// Returns the kind and the name.
    ///
    /// # Errors
    ///
    /// Fails for other kinds, and without a valid name.
    pub(crate) fn object(&self) -> Result<(Kind, String), Failure> {
        let words = match (&self.name, self.kind.split_once('/')) {
            (Some(name), None) => (self.kind.as_str(), name.as_str()),
            (None, Some(words)) => words,
            (None, None) => {
                return Err(Failure::Argument(format!(
                    "{:?} alone says too little: name the kind and the object, vm NAME or vmi NAME",
                    self.kind
                )));
            }
            (Some(name), Some(_)) => {
                return Err(Failure::Argument(format!(
                    "{:?} is a word too many after {:?}",
                    name, self.kind
                )));
            }
        };
        let object = kind(words.0).and_then(|kind| Ok((kind, name(words.1)?)));
        object.map_err(Failure::Argument)
    }
}

/// A machine that a connection is made to, `TYPE/NAME[/NAMESPACE]` or `NAME`; `NAME.NAMESPACE` where no namespace is
/// given otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    kind: Kind,
    name: String,
    namespace: Option<String>,
}

/// A target with everything that is said about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) kind: Kind,
    pub(crate) name: String,
    pub(crate) namespace: String,
}

impl Target {
    /// Reads a target.
    ///
    /// # Errors
    ///
    /// Fails for other kinds and for what are no names.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let parts: Vec<&str> = text.split('/').collect();
        let (of, object, place) = match parts[..] {
            [object] => ("vmi", object, None),
            [of, object] => (of, object, None),
            [of, object, place] => (of, object, Some(place)),
            _ => {
                return Err(format!(
                    "{text:?} has too many slashes: write TYPE/NAME/NAMESPACE"
                ));
            }
        };
        Ok(Self {
            kind: kind(of)?,
            name: name(object)?,
            namespace: place.map(namespace).transpose()?,
        })
    }

    /// Returns the place of the target. A dot parts name and namespace only where nothing else says the namespace.
    pub(crate) fn place(&self, flag: Option<&str>, of_context: &str) -> Place {
        let dotted = self.name.rsplit_once('.');
        let (name, namespace) = match (&self.namespace, flag, dotted) {
            (Some(namespace), _, _) => (self.name.as_str(), namespace.as_str()),
            (None, Some(flag), _) => (self.name.as_str(), flag),
            (None, None, Some((name, namespace))) => (name, namespace),
            (None, None, None) => (self.name.as_str(), of_context),
        };
        Place {
            kind: self.kind,
            name: name.to_owned(),
            namespace: namespace.to_owned(),
        }
    }
}

/// Protocols of ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Tcp,
    Udp,
}

impl Protocol {
    /// Returns the name in paths.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

/// A port of this host that leads to a port of a guest, `[PROTOCOL/]LOCAL[:REMOTE]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ForwardedPort {
    pub(crate) protocol: Protocol,
    /// Port of this host, 0 for any that is free.
    pub(crate) local: u16,
    /// Port of the guest.
    pub(crate) remote: u16,
}

impl ForwardedPort {
    /// Reads a port.
    ///
    /// # Errors
    ///
    /// Fails for other protocols and for what are no ports.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let (protocol, ports) = text.split_once('/').unwrap_or(("tcp", text));
        let protocol = match protocol.to_ascii_lowercase().as_str() {
            "tcp" => Protocol::Tcp,
            "udp" => Protocol::Udp,
            _ => return Err(format!("unknown protocol {protocol:?}: use tcp or udp")),
        };
        let port = |port: &str| {
            port.parse::<u16>()
                .map_err(|_| format!("{port:?} is no port: write a number below 65536"))
        };
        let (local, remote) = match ports.split_once(':') {
            Some(("", remote)) => (0, port(remote)?),
            Some((local, remote)) => (port(local)?, port(remote)?),
            None => (port(ports)?, port(ports)?),
        };
        if remote == 0 {
            return Err(format!("{text:?}: guests have no port 0"));
        }
        Ok(Self {
            protocol,
            local,
            remote,
        })
    }
}

#[cfg(test)]
mod tests;
