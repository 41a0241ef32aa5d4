//! Which kinds an API server has, and by which names people call them.

use anyhow::bail;
use http::Method;
use serde_json::Value;

use super::Api;

/// A kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Kind {
    group: String,
    version: String,
    kind: String,
    plural: String,
    names: Vec<String>,
    pub(super) is_namespaced: bool,
}

impl Kind {
    /// Returns the name that messages use: `virtualmachine.kubevirt.io`.
    pub(super) fn full_name(&self) -> String {
        let kind = self.kind.to_lowercase();
        if self.group.is_empty() {
            kind
        } else {
            format!("{kind}.{}", self.group)
        }
    }

    /// Returns the path of its objects, in a namespace or in all.
    pub(super) fn path(&self, namespace: Option<&str>) -> String {
        let base = if self.group.is_empty() {
            format!("/api/{}", self.version)
        } else {
            format!("/apis/{}/{}", self.group, self.version)
        };
        match namespace {
            Some(namespace) if self.is_namespaced => {
                format!("{base}/namespaces/{namespace}/{}", self.plural)
            }
            _ => format!("{base}/{}", self.plural),
        }
    }

    fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.clone()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }
}

/// The kinds of an API server, those of preferred versions first.
#[derive(Clone, Debug, Default)]
pub(super) struct Kinds(Vec<Kind>);

impl Kinds {
    /// Returns the kind that people call so: `vm`, `vms`, `virtualmachine`, `virtualmachines.kubevirt.io`.
    pub(super) fn named(&self, name: &str) -> anyhow::Result<&Kind> {
        let name = name.to_lowercase();
        let found = self.0.iter().find(|it| {
            it.names.contains(&name)
                || format!("{}.{}", it.plural, it.group) == name
                || it.full_name() == name
        });
        match found {
            Some(kind) => Ok(kind),
            None => bail!("the server doesn't have a resource type {name:?}"),
        }
    }

    /// Returns the kind of an object.
    pub(super) fn of_object(&self, api_version: &str, kind: &str) -> Option<&Kind> {
        // Group names are compared as the API server's are written by people: in any case.
        let is_it =
            |it: &&Kind| it.kind == kind && it.api_version().eq_ignore_ascii_case(api_version);
        self.0.iter().find(is_it)
    }
}

/// Asks an API server for its kinds.
pub(super) async fn discover(api: &Api) -> anyhow::Result<Kinds> {
    let get = async |path: String| anyhow::Ok(api.send(Method::GET, &path, "", "", None).await?.1);
    let mut kinds = read(&get("/api/v1".to_owned()).await?);
    let mut others = Vec::new();
    for group in get("/apis".to_owned()).await?["groups"]
        .as_array()
        .into_iter()
        .flatten()
    {
        let preferred = &group["preferredVersion"]["groupVersion"];
        for version in group["versions"].as_array().into_iter().flatten() {
            let name = version["groupVersion"].as_str().unwrap_or_default();
            // An aggregated API may be away; the others are there all the same.
            let Ok(list) = get(format!("/apis/{name}")).await else {
                continue;
            };
            if version["groupVersion"] == *preferred {
                kinds.extend(read(&list));
            } else {
                others.extend(read(&list));
            }
        }
    }
    kinds.extend(others);
    Ok(Kinds(kinds))
}

/// Reads an `APIResourceList`; parts of objects are left out.
fn read(list: &Value) -> Vec<Kind> {
    let version = list["groupVersion"].as_str().unwrap_or_default();
    let (group, version) = version.split_once('/').unwrap_or(("", version));
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let resources = list["resources"].as_array().into_iter().flatten();
    let whole = resources.filter(|it| !text(&it["name"]).contains('/'));
    let kind = |it: &Value| {
        let mut names = vec![
            text(&it["name"]),
            text(&it["singularName"]),
            text(&it["kind"]).to_lowercase(),
        ];
        names.extend(it["shortNames"].as_array().into_iter().flatten().map(text));
        Kind {
            group: group.to_owned(),
            version: version.to_owned(),
            kind: text(&it["kind"]),
            plural: text(&it["name"]),
            names,
            is_namespaced: it["namespaced"] == true,
        }
    };
    whole.map(kind).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Kinds, read};

    #[test]
    fn kinds_are_found_by_all_their_names() {
        let list = json!({"groupVersion": "kubevirt.io/v1", "resources": [
            {"name": "virtualmachines", "singularName": "virtualmachine", "kind": "VirtualMachine", "shortNames": ["vm", "vms"], "namespaced": true},
            {"name": "virtualmachines/status", "kind": "VirtualMachine", "namespaced": true},
        ]});
        let kinds = Kinds(read(&list));
        for name in [
            "vm",
            "VMs",
            "virtualmachine",
            "virtualmachines.kubevirt.io",
            "VirtualMachine",
        ] {
            let kind = kinds.named(name).unwrap();
            assert_eq!(
                kind.path(Some("a")),
                "/apis/kubevirt.io/v1/namespaces/a/virtualmachines"
            );
            assert_eq!(kind.path(None), "/apis/kubevirt.io/v1/virtualmachines");
        }
        assert!(kinds.named("virtualboxes").is_err());
        assert!(
            kinds
                .of_object("kubevirt.io/v1", "VirtualMachine")
                .is_some()
        );
        assert!(
            kinds
                .of_object("kubevirt.io/v1", "VirtualBoxInstance")
                .is_none()
        );
    }
}
