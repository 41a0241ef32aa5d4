//! Whose certificate it is: the common name in the subject (RFC 5280 §4.1, in DER of X.690 §8).
//!
//! Only certificates whose chain was checked get here; what cannot be read has no name.

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const OBJECT_IDENTIFIER: u8 = 0x06;
/// The optional version in front of a certificate's fields.
const VERSION: u8 = 0xa0;
/// `id-at-commonName`, 2.5.4.3.
const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];
/// Serial number, signature algorithm, issuer, validity: what comes before the subject.
const BEFORE_SUBJECT: usize = 4;
/// `UTF8String`, `PrintableString`, `IA5String`.
const STRINGS: [u8; 3] = [0x0c, 0x13, 0x16];

/// Values one after another.
#[derive(Clone, Copy)]
struct Values<'a>(&'a [u8]);

impl<'a> Iterator for Values<'a> {
    type Item = (u8, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (&tag, rest) = self.0.split_first()?;
        let (&first, rest) = rest.split_first()?;
        let (len, rest) = match first {
            0..=0x7f => (usize::from(first), rest),
            0x81..=0x83 => {
                let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
                let join = |len, &byte| len << 8 | usize::from(byte);
                (bytes.iter().fold(0, join), rest)
            }
            _ => return None,
        };
        let (value, rest) = rest.split_at_checked(len)?;
        self.0 = rest;
        Some((tag, value))
    }
}

impl<'a> Values<'a> {
    fn inside(self, tag: u8) -> Option<Self> {
        self.clone_first()
            .and_then(|(found, value)| (found == tag).then_some(Self(value)))
    }

    fn clone_first(mut self) -> Option<(u8, &'a [u8])> {
        self.next()
    }
}

/// Returns the common name in the subject of a certificate in DER; the last one, when there are several.
pub(super) fn common_name(certificate: &[u8]) -> Option<&str> {
    let mut fields = Values(certificate).inside(SEQUENCE)?.inside(SEQUENCE)?;
    if fields.clone_first()?.0 == VERSION {
        fields.next();
    }
    let (tag, subject) = fields.nth(BEFORE_SUBJECT)?;
    if tag != SEQUENCE {
        return None;
    }
    let sets = Values(subject).filter(|(tag, _)| *tag == SET);
    let attributes = sets.flat_map(|(_, set)| Values(set));
    attributes
        .filter_map(|(tag, value)| name(tag, value))
        .last()
}

fn name(tag: u8, attribute: &[u8]) -> Option<&str> {
    let mut parts = Values(attribute);
    if tag != SEQUENCE || parts.next()? != (OBJECT_IDENTIFIER, COMMON_NAME) {
        return None;
    }
    let (tag, value) = parts.next()?;
    STRINGS
        .contains(&tag)
        .then(|| std::str::from_utf8(value).ok())?
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, proptest};
    use rcgen::{CertificateParams, DnType, KeyPair};

    use super::common_name;

    fn certificate(names: &[(DnType, &str)]) -> Vec<u8> {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        for (kind, name) in names {
            params.distinguished_name.push(kind.clone(), *name);
        }
        let key = KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().der().to_vec()
    }

    #[test]
    fn the_common_name_is_found_among_others() {
        let long = "x".repeat(300);
        for name in ["kubevirt.io:system:client:virt-handler", "ä", "", &long] {
            let names = [
                (DnType::OrganizationName, "kubevirt.io"),
                (DnType::CommonName, name),
                (DnType::LocalityName, "here"),
            ];
            assert_eq!(common_name(&certificate(&names)), Some(name));
        }
    }

    #[test]
    fn a_certificate_without_a_name_has_none() {
        let nameless = certificate(&[(DnType::OrganizationName, "kubevirt.io")]);
        assert_eq!(common_name(&nameless), None);
        assert_eq!(common_name(&certificate(&[])), None);
    }

    #[test]
    fn a_certificate_that_is_cut_off_has_no_name() {
        let whole = certificate(&[(DnType::CommonName, "a")]);
        for len in 0..whole.len() {
            assert_eq!(common_name(&whole[..len]), None);
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in any::<Vec<u8>>(), at in 0_usize..400, byte in any::<u8>()) {
            let _name = common_name(&bytes);
            let mut framed = vec![0x30, 0x82, 0x01, 0x00, 0x30, 0x81, 0xf0];
            framed.extend_from_slice(&bytes);
            framed.resize(400, 0);
            framed[at] = byte;
            let _name = common_name(&framed);
        }
    }
}
