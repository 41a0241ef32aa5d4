//! How an instance is called on this node.

use std::fmt;

/// Namespace and name of an instance; every queue and cache of the handler goes by it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct VmiKey {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl VmiKey {
    /// Returns the key of the instance `name` in `namespace`.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }

    /// Returns the name of the instance's domain: `<namespace>_<name>`.
    #[must_use]
    pub fn domain_name(&self) -> String {
        format!("{}_{}", self.namespace, self.name)
    }
}

impl fmt::Display for VmiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::VmiKey;

    #[test]
    fn a_domain_is_called_by_namespace_and_name() {
        let key = VmiKey::new("default", "vm");
        assert_eq!(key.domain_name(), "default_vm");
        assert_eq!(key.to_string(), "default/vm");
    }
}
