//! Syntax of names, labels and keys (Kubernetes, "Object Names and IDs", "Labels and Selectors").

/// What is said of a name that is no DNS label.
pub(super) const LABEL: &str = "must be at most 63 lower-case letters, digits and '-', beginning and ending with a letter \
                                or digit (a lowercase RFC 1123 label)";

/// What is said of a name that is no DNS subdomain.
pub(super) const SUBDOMAIN: &str = "must be at most 253 lower-case letters, digits, '-' and '.', each part beginning and \
                                    ending with a letter or digit (a lowercase RFC 1123 subdomain)";

/// What is said of a key that is no qualified name.
pub(super) const QUALIFIED: &str = "must be a name of at most 63 letters, digits, '-', '_' and '.', beginning and ending \
                                    with a letter or digit, with an optional DNS subdomain and '/' before it (example.com/name)";

/// What is said of the value of a label that is none.
pub(super) const VALUE: &str = "must be empty, or at most 63 letters, digits, '-', '_' and '.', beginning and ending with a \
                                letter or digit (a valid label value)";

/// Whether a text is a DNS label (RFC 1123).
pub(in crate::catalog) fn is_dns_label(text: &str) -> bool {
    let is_inner = |it: u8| is_lower(it) || it == b'-';
    text.len() <= 63 && is_framed(text, is_lower) && text.bytes().all(is_inner)
}

/// Whether a text is a DNS subdomain (RFC 1123).
pub(in crate::catalog) fn is_dns_subdomain(text: &str) -> bool {
    let is_part = |part: &str| {
        let is_inner = |it: u8| is_lower(it) || it == b'-';
        is_framed(part, is_lower) && part.bytes().all(is_inner)
    };
    text.len() <= 253 && text.split('.').all(is_part)
}

/// Whether a text is a DNS label that begins with a letter (RFC 1035).
pub(in crate::catalog) fn is_dns_1035(text: &str) -> bool {
    is_dns_label(text) && text.starts_with(|it: char| it.is_ascii_lowercase())
}

/// Whether a text may be part of a path, as names of roles may.
pub(super) fn is_path_segment(text: &str) -> bool {
    !matches!(text, "" | "." | "..") && !text.contains(['/', '%']) && text.len() <= 253
}

/// Whether a text may be a key of labels, annotations and the like.
pub(super) fn is_qualified(text: &str) -> bool {
    match text.split_once('/') {
        Some((prefix, name)) => is_dns_subdomain(prefix) && is_name(name),
        None => is_name(text),
    }
}

/// Whether a text may be the value of a label.
pub(super) fn is_label_value(text: &str) -> bool {
    text.is_empty() || is_name(text)
}

/// Whether a text may be a key of a config map or secret, thus a file's name.
pub(super) fn is_data_key(text: &str) -> bool {
    let is_inner = |it: u8| it.is_ascii_alphanumeric() || b"-_.".contains(&it);
    let is_path = text == "." || text.starts_with("..");
    !text.is_empty() && text.len() <= 253 && !is_path && text.bytes().all(is_inner)
}

/// Whether a text may name a port.
pub(super) fn is_port_name(text: &str) -> bool {
    text.len() <= 15
        && is_dns_label(text)
        && text.bytes().any(|it| it.is_ascii_lowercase())
        && !text.contains("--")
}

fn is_name(text: &str) -> bool {
    let is_inner = |it: u8| it.is_ascii_alphanumeric() || b"-_.".contains(&it);
    text.len() <= 63
        && is_framed(text, |it| it.is_ascii_alphanumeric())
        && text.bytes().all(is_inner)
}

fn is_framed(text: &str, is_outer: impl Fn(u8) -> bool) -> bool {
    let bytes = text.as_bytes();
    match (bytes.first(), bytes.last()) {
        (Some(first), Some(last)) => is_outer(*first) && is_outer(*last),
        _ => false,
    }
}

fn is_lower(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit()
}
