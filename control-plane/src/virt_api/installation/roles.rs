//! Roles of users and of the components, their service accounts, and who has which role (upstream's names).

use api::components::service_account;
use serde_json::{Value, json};

use super::labels;
use crate::virt_api::GROUP as SUBRESOURCES;
use crate::virt_api::discovery::subresources;

const RBAC: &str = "rbac.authorization.k8s.io";
const KUBEVIRT: &str = "kubevirt.io";
/// All that can be done with objects of a namespace.
const WRITE: &[&str] = &[
    "get", "delete", "create", "update", "patch", "list", "watch",
];
const READ: &[&str] = &["get", "list", "watch"];
/// Kinds that users make.
const MACHINES: &[&str] = &[
    "virtualmachines",
    "virtualmachineinstances",
    "virtualmachineinstancepresets",
    "virtualmachineinstancereplicasets",
];
/// Questions that change nothing, which who may look at a machine may ask.
const LOOKS: &[&str] = &[
    "virtualmachines/expand-spec",
    "virtualmachines/objectgraph",
    "virtualmachineinstances/guestosinfo",
    "virtualmachineinstances/filesystemlist",
    "virtualmachineinstances/userlist",
    "virtualmachineinstances/objectgraph",
    "virtualmachineinstances/sev/fetchcertchain",
    "virtualmachineinstances/sev/querylaunchmeasurement",
];
/// What the controllers and nobody else ask of machines, and what needs a role of its own.
const NOT_FOR_USERS: &[&str] = &[
    "virtualmachines/migrate",
    "virtualmachineinstances/backup",
    "virtualmachineinstances/redefine-checkpoint",
];

/// A component: its service account and its rules, for the cluster and for the namespace of the installation.
struct Component {
    account: &'static str,
    cluster: Vec<Value>,
    namespace: Vec<Value>,
}

/// Returns cluster roles and bindings, service accounts, and the roles and bindings of the installation's namespace.
#[must_use]
pub fn cluster_roles_for(namespace: &str) -> Vec<Value> {
    let mut objects = users();
    for component in [api_server(), controller(), handler(), operator()] {
        objects.extend(component.objects(namespace));
    }
    objects.push(binding(
        "kubevirt-apiserver-auth-delegator",
        "system:auth-delegator",
        &account_subject(namespace, service_account::API),
    ));
    objects.push(front_proxy_reader(namespace));
    objects
}

/// Lets `virt-api` read whom API servers trust; the role is one that clusters have.
fn front_proxy_reader(namespace: &str) -> Value {
    let name = "kubevirt-apiserver-authentication-reader";
    let role = "extension-apiserver-authentication-reader";
    json!({
        "apiVersion": format!("{RBAC}/v1"), "kind": "RoleBinding",
        "metadata": {"name": name, "namespace": "kube-system", "labels": labels()},
        "roleRef": {"apiGroup": RBAC, "kind": "Role", "name": role},
        "subjects": [account_subject(namespace, service_account::API)],
    })
}

/// Returns the roles of users. Those that are aggregated come with the roles that clusters give to users anyway.
fn users() -> Vec<Value> {
    let aggregate = |to: &str| json!({format!("{RBAC}/aggregate-to-{to}"): "true"});
    let mut admin = user_rules();
    admin.push(rule(KUBEVIRT, MACHINES, &["deletecollection"]));
    let mut edit = user_rules();
    edit.push(rule(KUBEVIRT, &["kubevirts"], &["get", "list"]));
    let view = vec![
        rule(SUBRESOURCES, LOOKS, &["get"]),
        rule(SUBRESOURCES, &["expand-vm-spec"], &["update"]),
        rule(KUBEVIRT, &["kubevirts"], &["get", "list"]),
        rule(KUBEVIRT, MACHINES, READ),
        rule(KUBEVIRT, &["virtualmachineinstancemigrations"], READ),
    ];
    let everybody = vec![
        rule(KUBEVIRT, &["kubevirts"], &["get", "list"]),
        rule(SUBRESOURCES, &["version", "guestfs"], &["get", "list"]),
    ];
    let migrate = vec![
        rule(SUBRESOURCES, &["virtualmachines/migrate"], &["update"]),
        rule(KUBEVIRT, &["virtualmachineinstancemigrations"], WRITE),
        rule(
            KUBEVIRT,
            &["virtualmachineinstancemigrations"],
            &["deletecollection"],
        ),
    ];
    let bootstrap = json!({"kubernetes.io/bootstrapping": "rbac-defaults"});
    vec![
        role("kubevirt.io:admin", aggregate("admin"), &admin),
        role("kubevirt.io:edit", aggregate("edit"), &edit),
        role("kubevirt.io:view", aggregate("view"), &view),
        role("kubevirt.io:migrate", json!({}), &migrate),
        role("kubevirt.io:default", bootstrap, &everybody),
        binding(
            "kubevirt.io:default",
            "kubevirt.io:default",
            &json!({"kind": "Group", "apiGroup": RBAC, "name": "system:authenticated"}),
        ),
    ]
}

fn user_rules() -> Vec<Value> {
    let of = |verb: &str| -> Vec<String> {
        let all = subresources().filter(|(_, _, needed)| *needed == verb);
        let names = all.map(|(resource, path, _)| format!("{resource}/{path}"));
        names
            .filter(|name| !NOT_FOR_USERS.contains(&name.as_str()))
            .collect()
    };
    vec![
        rule(SUBRESOURCES, &of("get"), &["get"]),
        rule(SUBRESOURCES, &of("update"), &["update"]),
        rule(SUBRESOURCES, &["expand-vm-spec"], &["update"]),
        rule(KUBEVIRT, MACHINES, WRITE),
        rule(KUBEVIRT, &["virtualmachineinstancemigrations"], READ),
    ]
}

fn api_server() -> Component {
    Component {
        account: service_account::API,
        cluster: vec![
            rule("", &["pods"], &["get", "list"]),
            rule("", &["nodes"], &["get"]),
            rule(
                KUBEVIRT,
                &["virtualmachines", "virtualmachineinstances"],
                &["get", "list", "watch", "patch", "update"],
            ),
            rule(KUBEVIRT, &["virtualmachines/status"], &["patch"]),
            rule(
                KUBEVIRT,
                &["virtualmachineinstancemigrations"],
                &["create", "get", "list", "watch", "patch"],
            ),
            rule(
                KUBEVIRT,
                &[
                    "virtualmachineinstancepresets",
                    "virtualmachineinstancereplicasets",
                    "kubevirts",
                ],
                READ,
            ),
        ],
        namespace: vec![rule("", &["configmaps"], READ)],
    }
}

fn controller() -> Component {
    const CHANGE: &[&str] = &[
        "get", "list", "watch", "create", "update", "delete", "patch",
    ];
    Component {
        account: service_account::CONTROLLER,
        cluster: vec![
            rule("", &["namespaces"], &["get", "list", "watch", "patch"]),
            rule("policy", &["poddisruptionbudgets"], CHANGE),
            rule("", &["pods", "configmaps", "endpoints", "services"], CHANGE),
            rule("", &["events"], &["update", "create", "patch"]),
            rule("", &["secrets"], &["create"]),
            rule("", &["pods/finalizers"], &["update"]),
            rule("", &["pods/eviction"], &["create"]),
            rule("", &["pods/status"], &["patch"]),
            rule("", &["nodes"], &["get", "list", "watch", "update", "patch"]),
            rule("apps", &["daemonsets"], &["list"]),
            rule("apps", &["controllerrevisions"], CHANGE),
            rule("", &["persistentvolumeclaims"], CHANGE),
            rule("", &["resourcequotas"], &["list", "watch"]),
            rule(KUBEVIRT, &["*"], &["*"]),
            // Named as well, for clusters that want this of whoever blocks the deletion of owners.
            rule(
                KUBEVIRT,
                &[
                    "virtualmachines/finalizers",
                    "virtualmachineinstances/finalizers",
                ],
                &["update"],
            ),
            rule(
                SUBRESOURCES,
                &[
                    "virtualmachines/stop",
                    "virtualmachineinstances/freeze",
                    "virtualmachineinstances/unfreeze",
                    "virtualmachineinstances/reset",
                    "virtualmachineinstances/softreboot",
                ],
                &["update"],
            ),
            rule("cdi.kubevirt.io", &["*"], &["*"]),
            rule("apiextensions.k8s.io", &["customresourcedefinitions"], READ),
            rule(
                "authorization.k8s.io",
                &["subjectaccessreviews"],
                &["create"],
            ),
            rule("storage.k8s.io", &["storageclasses"], READ),
            rule(
                "k8s.cni.cncf.io",
                &["network-attachment-definitions"],
                &["get"],
            ),
        ],
        namespace: vec![
            rule("", &["secrets"], READ),
            rule("coordination.k8s.io", &["leases"], CHANGE),
        ],
    }
}

fn handler() -> Component {
    Component {
        account: service_account::HANDLER,
        cluster: vec![
            rule(
                KUBEVIRT,
                &["virtualmachineinstances"],
                &["get", "update", "patch", "list", "watch"],
            ),
            rule("", &["nodes"], &["patch", "list", "watch", "get"]),
            rule("", &["pods"], READ),
            rule("", &["configmaps"], READ),
            rule("", &["events"], &["create", "patch", "update"]),
            rule("apiextensions.k8s.io", &["customresourcedefinitions"], READ),
            rule(KUBEVIRT, &["kubevirts"], READ),
        ],
        namespace: vec![rule("", &["configmaps"], READ)],
    }
}

/// The operator makes all roles above, and so must have what they give.
fn operator() -> Component {
    Component {
        account: service_account::OPERATOR,
        cluster: vec![rule("*", &["*"], &["*"])],
        namespace: Vec::new(),
    }
}

impl Component {
    fn objects(self, namespace: &str) -> Vec<Value> {
        let metadata = json!({"name": self.account, "namespace": namespace, "labels": labels()});
        let subject = account_subject(namespace, self.account);
        let mut objects = vec![
            json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata}),
            role(self.account, json!({}), &self.cluster),
            binding(self.account, self.account, &subject),
        ];
        if !self.namespace.is_empty() {
            let version = format!("{RBAC}/v1");
            objects.push(json!({
                "apiVersion": version, "kind": "Role", "metadata": metadata,
                "rules": self.namespace,
            }));
            objects.push(json!({
                "apiVersion": version, "kind": "RoleBinding", "metadata": metadata,
                "roleRef": {"apiGroup": RBAC, "kind": "Role", "name": self.account},
                "subjects": [subject],
            }));
        }
        objects
    }
}

fn account_subject(namespace: &str, account: &str) -> Value {
    json!({"kind": "ServiceAccount", "namespace": namespace, "name": account})
}

fn rule<S: AsRef<str>>(group: &str, resources: &[S], verbs: &[&str]) -> Value {
    let resources: Vec<&str> = resources.iter().map(AsRef::as_ref).collect();
    json!({"apiGroups": [group], "resources": resources, "verbs": verbs})
}

fn role(name: &str, more_labels: Value, rules: &[Value]) -> Value {
    let mut all_labels = labels();
    if let (Some(all), Value::Object(more)) = (all_labels.as_object_mut(), more_labels) {
        all.extend(more);
    }
    json!({
        "apiVersion": format!("{RBAC}/v1"), "kind": "ClusterRole",
        "metadata": {"name": name, "labels": all_labels}, "rules": rules,
    })
}

fn binding(name: &str, role: &str, subject: &Value) -> Value {
    json!({
        "apiVersion": format!("{RBAC}/v1"), "kind": "ClusterRoleBinding",
        "metadata": {"name": name, "labels": labels()},
        "roleRef": {"apiGroup": RBAC, "kind": "ClusterRole", "name": role},
        "subjects": [subject],
    })
}
