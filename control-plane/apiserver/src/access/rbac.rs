//! Role-based access control: rules in roles, given to subjects by bindings.

use serde::Deserialize;
use serde_json::Value;

use super::{Attributes, MASTERS, User};

/// A rule of a role (`rbac.authorization.k8s.io/v1` `PolicyRule`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, serde::Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Rule {
    /// Verbs, `*` for all.
    pub verbs: Vec<String>,
    /// API groups, `*` for all.
    pub api_groups: Vec<String>,
    /// Resources and subresources: `pods`, `pods/log`, `*`, `*/scale`.
    pub resources: Vec<String>,
    /// Names of objects; all when empty.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub resource_names: Vec<String>,
    /// Paths that are about no resource: `/healthz`, `/apis/*`.
    #[serde(rename = "nonResourceURLs", skip_serializing_if = "Vec::is_empty")]
    pub paths: Vec<String>,
}

/// Whom a binding gives a role.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
struct Subject {
    kind: String,
    name: String,
    namespace: String,
}

#[derive(Clone, Debug)]
struct Role {
    namespace: String,
    name: String,
    rules: Vec<Rule>,
}

#[derive(Clone, Debug)]
struct Binding {
    namespace: String,
    is_of_cluster_role: bool,
    role: String,
    subjects: Vec<Subject>,
}

/// All roles and bindings at one time.
#[derive(Clone, Debug, Default)]
pub struct Rbac {
    roles: Vec<Role>,
    bindings: Vec<Binding>,
}

impl Rbac {
    /// Reads roles and bindings; what cannot be read gives nobody anything.
    #[must_use]
    pub fn new(roles: &[&Value], bindings: &[&Value]) -> Self {
        Self {
            roles: roles.iter().map(|it| role(it)).collect(),
            bindings: bindings.iter().map(|it| binding(it)).collect(),
        }
    }

    /// Whether a user may do something.
    #[must_use]
    pub fn allows(&self, user: &User, wanted: &Attributes) -> bool {
        user.is_in(MASTERS)
            || self
                .rules_of(user, &wanted.namespace)
                .any(|rule| rule.allows(wanted))
    }

    /// Returns the rules that a user has in a namespace, those of the whole cluster included.
    pub fn rules_of<'s>(
        &'s self,
        user: &'s User,
        namespace: &'s str,
    ) -> impl Iterator<Item = &'s Rule> {
        let given = self.bindings.iter().filter(move |binding| {
            (binding.namespace.is_empty() || binding.namespace == namespace)
                && binding
                    .subjects
                    .iter()
                    .any(|it| it.is(user, &binding.namespace))
        });
        given
            .flat_map(|binding| self.role_of(binding))
            .flat_map(|role| &role.rules)
    }

    fn role_of(&self, binding: &Binding) -> Option<&Role> {
        let namespace = if binding.is_of_cluster_role {
            ""
        } else {
            &binding.namespace
        };
        let is_it = |role: &&Role| role.namespace == namespace && role.name == binding.role;
        self.roles.iter().find(is_it)
    }
}

fn role(object: &Value) -> Role {
    Role {
        namespace: text(&object["metadata"]["namespace"]),
        name: text(&object["metadata"]["name"]),
        rules: Vec::deserialize(&object["rules"]).unwrap_or_default(),
    }
}

fn binding(object: &Value) -> Binding {
    Binding {
        namespace: text(&object["metadata"]["namespace"]),
        is_of_cluster_role: object["roleRef"]["kind"] == "ClusterRole",
        role: text(&object["roleRef"]["name"]),
        subjects: Vec::deserialize(&object["subjects"]).unwrap_or_default(),
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

impl Subject {
    fn is(&self, user: &User, binding_namespace: &str) -> bool {
        match self.kind.as_str() {
            "User" => self.name == "*" || self.name == user.name,
            "Group" => user.is_in(&self.name),
            "ServiceAccount" => {
                let namespace = if self.namespace.is_empty() {
                    binding_namespace
                } else {
                    &self.namespace
                };
                user.name == format!("system:serviceaccount:{namespace}:{}", self.name)
            }
            _ => false,
        }
    }
}

impl Rule {
    /// Whether the rule allows something.
    #[must_use]
    pub fn allows(&self, wanted: &Attributes) -> bool {
        let has = |list: &[String], value: &str| list.iter().any(|it| it == "*" || it == value);
        if !has(&self.verbs, &wanted.verb) {
            return false;
        }
        if !wanted.path.is_empty() {
            return self.paths.iter().any(|it| is_path(it, &wanted.path));
        }
        has(&self.api_groups, &wanted.group)
            && self.has_resource(wanted)
            && (self.resource_names.is_empty() || self.resource_names.contains(&wanted.name))
    }

    fn has_resource(&self, wanted: &Attributes) -> bool {
        let full = wanted.full_resource();
        let any_of_subresource = format!("*/{}", wanted.subresource);
        self.resources.iter().any(|it| {
            it == "*"
                || *it == full
                || (!wanted.subresource.is_empty() && *it == any_of_subresource)
        })
    }
}

fn is_path(pattern: &str, path: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => path.starts_with(prefix),
        None => path == pattern,
    }
}
