//! Names, architecture, start strategy.

use super::Findings;
use crate::field::FieldPath;
use crate::vmi::Vmi;

/// What a DNS label is (RFC 1123).
pub(crate) const LABEL_RULE: &str =
    "use at most 63 lower-case letters, digits and '-', with a letter or digit at each end";

pub(crate) const SUBDOMAIN_RULE: &str =
    "use lower-case letters, digits, '-' and '.', with a letter or digit at each end of a part";

pub(super) fn check(vmi: &Vmi, findings: &mut Findings) {
    let name = &vmi.metadata.name;
    let path = FieldPath::new("metadata.name");
    if name.is_empty() {
        findings.required(path, "required: give the machine a name");
    } else if !is_dns_subdomain(name) {
        findings.add(path, format!("{name:?} is no valid name: {SUBDOMAIN_RULE}"));
    }
    optional_label(findings, "metadata.namespace", &vmi.metadata.namespace);
    optional_label(findings, "spec.hostname", &vmi.spec.hostname);
    let subdomain = &vmi.spec.subdomain;
    if !subdomain.is_empty() && !is_dns_subdomain(subdomain) {
        let text = format!("{subdomain:?} is no valid name: {SUBDOMAIN_RULE}");
        findings.add(FieldPath::new("spec.subdomain"), text);
    }
    findings.one_of(
        FieldPath::new("spec.architecture"),
        &vmi.spec.architecture,
        &["amd64"],
    );
    let strategy = vmi.spec.start_strategy.as_deref().unwrap_or_default();
    findings.one_of(
        FieldPath::new("spec.startStrategy"),
        strategy,
        &["Paused", "LiveMigrate"],
    );
}

fn optional_label(findings: &mut Findings, path: &str, name: &str) {
    if !name.is_empty() && !is_dns_label(name) {
        findings.add(
            FieldPath::new(path),
            format!("{name:?} is no valid name: {LABEL_RULE}"),
        );
    }
}

/// Whether a name is a DNS label (RFC 1123).
pub(crate) fn is_dns_label(name: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    !name.is_empty()
        && name.len() <= 63
        && name.bytes().all(inner)
        && !name.starts_with('-')
        && !name.ends_with('-')
}

/// Whether a name is a DNS subdomain, labels with dots between them (RFC 1123).
pub(crate) fn is_dns_subdomain(name: &str) -> bool {
    name.len() <= 253 && name.split('.').all(is_dns_label)
}
