//! The kinds of Kubernetes itself.

use super::Catalog;

/// Returns the kinds that need no custom resource definition.
#[must_use]
pub fn built_in() -> Catalog {
    Catalog::default()
}
