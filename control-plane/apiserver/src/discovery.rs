//! What there is: `/api`, `/apis` and below, plain and aggregated (`apidiscovery.k8s.io`).

use serde_json::Value;

use crate::catalog::Catalog;

/// A group version that another server answers for (`apiregistration.k8s.io` APIService with a service).
#[derive(Clone, Debug, PartialEq)]
pub struct ApiService {
    /// `subresources.kubevirt.io`.
    pub group: String,
    /// `v1`.
    pub version: String,
    /// Its `APIResourceList`, if the other server gave one.
    pub resources: Option<Value>,
}

/// Returns the content type and the answer to a discovery request.
#[must_use]
pub fn answer(
    catalog: &Catalog,
    extra: &[ApiService],
    path: &str,
    accept: &str,
) -> Option<(&'static str, Value)> {
    let _ = (catalog, extra, path, accept);
    None
}
