//! Names of extended resources, and what is derived from them.

use std::fmt;

/// Start of the name under which a quota counts a resource, which must fit the same rules.
const QUOTA_PREFIX: &str = "requests.";
/// Longest part before the slash (a DNS subdomain, with the quota's start).
const PREFIX_LEN_MAX: usize = 253 - QUOTA_PREFIX.len();
/// Longest part after the slash (a qualified name).
const NAME_LEN_MAX: usize = 63;

/// Name of an extended resource, such as `kubevirt.io/wifi-dongle`.
#[derive(
    Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(try_from = "String", into = "String")]
pub struct ResourceName(String);

/// Why a text is no name of an extended resource.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{name:?} is no resource name: expected a domain other than kubernetes.io, a slash and a name, such as \
     kubevirt.io/wifi-dongle"
)]
pub struct ResourceNameError {
    /// The text.
    pub name: String,
}

impl ResourceName {
    /// Takes a name as the kubelet takes it (`IsExtendedResourceName`): a DNS subdomain, a slash, a qualified name; no domain
    /// that ends in `kubernetes.io` or begins as quotas do.
    ///
    /// # Errors
    ///
    /// Fails on anything else.
    pub fn new(name: &str) -> Result<Self, ResourceNameError> {
        let wrong = || ResourceNameError {
            name: name.chars().take(PREFIX_LEN_MAX).collect(),
        };
        let (prefix, rest) = name.split_once('/').ok_or_else(wrong)?;
        let is_reserved = prefix.ends_with("kubernetes.io") || prefix.starts_with(QUOTA_PREFIX);
        if is_reserved || !is_subdomain(prefix) || !is_qualified(rest) {
            return Err(wrong());
        }
        Ok(Self(name.to_owned()))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Name of the environment variable with the devices' addresses: the prefix, an underscore and the name in upper
    /// case with `/` and `.` as underscores. Other characters stay, as upstream leaves them.
    #[must_use]
    pub fn variable(&self, prefix: &str) -> String {
        let name = self.0.to_uppercase().replace(['/', '.'], "_");
        format!("{prefix}_{name}")
    }
}

fn is_subdomain(text: &str) -> bool {
    let is_label = |label: &str| {
        is_framed(label)
            && label
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
    };
    text.len() <= PREFIX_LEN_MAX && text.split('.').all(is_label)
}

fn is_qualified(text: &str) -> bool {
    let is_fit = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    text.len() <= NAME_LEN_MAX && is_framed(text) && text.bytes().all(is_fit)
}

/// Whether letters or digits are at both ends.
fn is_framed(text: &str) -> bool {
    let at_end = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    at_end(text.as_bytes().first()) && at_end(text.as_bytes().last())
}

impl fmt::Display for ResourceName {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str(&self.0)
    }
}

impl TryFrom<String> for ResourceName {
    type Error = ResourceNameError;

    fn try_from(name: String) -> Result<Self, Self::Error> {
        Self::new(&name)
    }
}

impl From<ResourceName> for String {
    fn from(name: ResourceName) -> Self {
        name.0
    }
}

#[cfg(test)]
mod tests {
    use super::ResourceName;

    #[test]
    fn names_are_taken_as_the_kubelet_takes_them() {
        for name in [
            "kubevirt.io/wifi-dongle",
            "devices.kubevirt.io/vhost-net",
            "intel.com/sriov_gpu.1",
        ] {
            assert_eq!(ResourceName::new(name).unwrap().as_str(), name);
        }
        for name in [
            "",
            "kvm",
            "/kvm",
            "a/",
            "a/b/c",
            "A.io/x",
            "kubernetes.io/x",
            "x.kubernetes.io/y",
            "xkubernetes.io/y",
            "requests.io/x",
            "a b/c",
            "a/-b",
        ] {
            let error = ResourceName::new(name).unwrap_err().to_string();
            assert!(error.contains(&format!("{name:?}")), "{error}");
        }
        let long = |prefix: usize, name: usize| {
            ResourceName::new(&format!("{}/{}", "p".repeat(prefix), "n".repeat(name)))
        };
        assert!(long(244, 63).is_ok());
        assert!(long(245, 63).is_err() && long(244, 64).is_err());
    }

    #[test]
    fn variables_are_named_as_upstream_names_them() {
        let name = ResourceName::new("kubevirt.io/wifi-dongle").unwrap();
        assert_eq!(
            name.variable("USB_RESOURCE"),
            "USB_RESOURCE_KUBEVIRT_IO_WIFI-DONGLE"
        );
    }
}
