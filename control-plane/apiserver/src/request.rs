//! What a request is about, read from its path and query.

mod query;

pub use self::query::{Query, decode};

use crate::failure::Failure;

/// Longest path that is looked at; names are at most 253 bytes.
const PATH_MAX_BYTES: usize = 4096;

/// The resource, object or part of one that a path names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Target {
    /// API group, empty for the core group.
    pub group: String,
    /// Version.
    pub version: String,
    /// Namespace, empty for what is in none and for all.
    pub namespace: String,
    /// Resource in plural, empty where the path ends before it (discovery).
    pub resource: String,
    /// Name, empty for collections.
    pub name: String,
    /// Part of the object: `status`, `log`.
    pub subresource: String,
    /// What follows the subresource: `22/tcp` of `…/portforward/22/tcp`.
    pub rest: String,
}

/// What is done with a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// Reads one.
    Get,
    /// Reads all.
    List,
    /// Follows changes.
    Watch,
    /// Makes one.
    Create,
    /// Replaces one.
    Update,
    /// Changes one in part.
    Patch,
    /// Deletes one.
    Delete,
    /// Deletes all.
    DeleteCollection,
}

impl Verb {
    /// Returns its name in rules.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::List => "list",
            Self::Watch => "watch",
            Self::Create => "create",
            Self::Update => "update",
            Self::Patch => "patch",
            Self::Delete => "delete",
            Self::DeleteCollection => "deletecollection",
        }
    }
}

impl Target {
    /// Reads a path below `/api` or `/apis`; nothing where it is another one, or names no resource.
    ///
    /// # Errors
    ///
    /// 400 when a part is not UTF-8, too long, or would be another path when it was decoded.
    pub fn parse(path: &str) -> Result<Option<Self>, Failure> {
        if path.len() > PATH_MAX_BYTES {
            return Err(Failure::bad_request(format!(
                "the path is longer than {PATH_MAX_BYTES} bytes"
            )));
        }
        let parts = path.split('/').filter(|it| !it.is_empty()).map(segment);
        let parts = parts.collect::<Result<Vec<_>, _>>()?;
        let parts: Vec<_> = parts.iter().map(String::as_str).collect();
        Ok(match parts.as_slice() {
            ["api", version, rest @ ..] => Self::below("", version, rest),
            ["apis", group, version, rest @ ..] => Self::below(group, version, rest),
            _ => None,
        })
    }

    fn below(group: &str, version: &str, rest: &[&str]) -> Option<Self> {
        let (namespace, rest) = match rest {
            ["namespaces", name] => (*name, rest),
            ["namespaces", name, "status" | "finalize"] => (*name, rest),
            ["namespaces", namespace, rest @ ..] => (*namespace, rest),
            _ => ("", rest),
        };
        let part = |index: usize| {
            rest.get(index)
                .map(|it| (*it).to_owned())
                .unwrap_or_default()
        };
        let target = Self {
            group: group.to_owned(),
            version: version.to_owned(),
            namespace: namespace.to_owned(),
            resource: part(0),
            name: part(1),
            subresource: part(2),
            rest: rest.get(3..).unwrap_or_default().join("/"),
        };
        (!target.resource.is_empty()).then_some(target)
    }

    /// Returns what a method does with it.
    #[must_use]
    pub fn verb(&self, method: &http::Method, query: &Query) -> Option<Verb> {
        let is_one = !self.name.is_empty();
        Some(match method.as_str() {
            "GET" | "HEAD" if is_one => Verb::Get,
            "GET" | "HEAD" if query.is_set("watch") => Verb::Watch,
            "GET" | "HEAD" => Verb::List,
            "POST" => Verb::Create,
            "PUT" => Verb::Update,
            "PATCH" => Verb::Patch,
            "DELETE" if is_one => Verb::Delete,
            "DELETE" => Verb::DeleteCollection,
            _ => return None,
        })
    }

    /// Returns group and version as `apiVersion` has them.
    #[must_use]
    pub fn api_version(&self) -> String {
        api_version(&self.group, &self.version)
    }
}

/// Returns `apiVersion` of a group and a version.
#[must_use]
pub fn api_version(group: &str, version: &str) -> String {
    if group.is_empty() {
        version.to_owned()
    } else {
        format!("{group}/{version}")
    }
}

/// Decodes a part of a path, which must stay one part.
fn segment(raw: &str) -> Result<String, Failure> {
    let text = decode(raw, false).ok_or_else(|| {
        Failure::bad_request(format!("the path's part {raw:?} is not encoded UTF-8"))
    })?;
    if text == "." || text == ".." || text.contains(['/', '\0']) {
        return Err(Failure::bad_request(format!(
            "the path's part {text:?} may be neither '.' nor '..' nor contain '/'"
        )));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(path: &str) -> Target {
        Target::parse(path).unwrap().unwrap()
    }

    #[test]
    fn paths_name_objects_and_their_parts() {
        let pod = parse("/api/v1/namespaces/default/pods/web/log");
        assert_eq!(
            (pod.namespace.as_str(), pod.resource.as_str()),
            ("default", "pods")
        );
        assert_eq!(
            (pod.name.as_str(), pod.subresource.as_str()),
            ("web", "log")
        );
        let all = parse("/apis/kubevirt.io/v1/virtualmachines");
        assert_eq!(
            (all.api_version().as_str(), all.name.as_str()),
            ("kubevirt.io/v1", "")
        );
        let deep =
            parse("/apis/subresources.kubevirt.io/v1/namespaces/a/vmis/b/portforward/22/tcp");
        assert_eq!(
            (deep.subresource.as_str(), deep.rest.as_str()),
            ("portforward", "22/tcp")
        );
    }

    #[test]
    fn a_namespace_is_an_object_and_what_is_below_it_is_in_it() {
        let namespace = parse("/api/v1/namespaces/default");
        assert_eq!(
            (namespace.resource.as_str(), namespace.name.as_str()),
            ("namespaces", "default")
        );
        assert_eq!(
            parse("/api/v1/namespaces/default/status").subresource,
            "status"
        );
        assert_eq!(parse("/api/v1/namespaces/default/pods").resource, "pods");
        assert_eq!(parse("/api/v1/namespaces").name, "");
    }

    #[test]
    fn other_paths_name_nothing_and_traversal_is_refused() {
        assert_eq!(Target::parse("/healthz").unwrap(), None);
        assert_eq!(Target::parse("/apis/apps/v1").unwrap(), None);
        for path in [
            "/api/v1/namespaces/..%2fx/pods",
            "/api/v1/namespaces/%2e%2e/pods",
            "/api/v1/pods/%ff",
            "/api/v1/pods/%zz",
        ] {
            assert_eq!(Target::parse(path).unwrap_err().code, 400, "{path}");
        }
    }

    #[test]
    fn methods_become_verbs() {
        let verb = |method, path, query| parse(path).verb(&method, &Query::parse(query).unwrap());
        assert_eq!(
            verb(http::Method::GET, "/api/v1/pods", "watch=1"),
            Some(Verb::Watch)
        );
        assert_eq!(
            verb(http::Method::GET, "/api/v1/pods", ""),
            Some(Verb::List)
        );
        assert_eq!(
            verb(http::Method::DELETE, "/api/v1/nodes/a", ""),
            Some(Verb::Delete)
        );
        assert_eq!(verb(http::Method::OPTIONS, "/api/v1/nodes/a", ""), None);
    }
}
