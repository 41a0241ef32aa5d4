use serde_json::{Value, json};

use super::{all, facets, plural};

fn definition(kind: &str) -> Value {
    all()
        .into_iter()
        .find(|definition| definition["spec"]["names"]["kind"] == kind)
        .unwrap()
}

fn schema(kind: &str) -> Value {
    definition(kind)["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone()
}

/// The part of a schema below a path of fields; `*` is an item or a value under any name.
fn part(schema: &Value, path: &str) -> Value {
    let mut part = schema.clone();
    for field in path.split('.') {
        part = match field {
            "*" if part["type"] == "array" => part["items"].clone(),
            "*" => part["additionalProperties"].clone(),
            _ => part["properties"][field].clone(),
        };
        assert!(part.is_object(), "{path} has no {field}");
    }
    part
}

/// Walks through every schema of a definition.
fn walk(schema: &Value, path: &str, visit: &mut impl FnMut(&str, &Value)) {
    visit(path, schema);
    if let Some(Value::Object(properties)) = schema.get("properties") {
        for (name, property) in properties {
            walk(property, &format!("{path}.{name}"), visit);
        }
    }
    for inner in ["items", "additionalProperties"] {
        if let Some(inner) = schema.get(inner) {
            walk(inner, &format!("{path}.*"), visit);
        }
    }
}

/// What of a value a schema doesn't allow: unknown fields, missing ones, and wrong types.
fn problems(schema: &Value, value: &Value, path: &str) -> Vec<String> {
    let kind = schema["type"].as_str().unwrap_or_default();
    let is_right = match value {
        Value::Null => schema["nullable"] == true,
        Value::Bool(_) => kind == "boolean",
        Value::Number(number) => match kind {
            "number" => true,
            "integer" => number.is_i64() || number.is_u64(),
            _ => schema["x-kubernetes-int-or-string"] == true,
        },
        Value::String(_) => kind == "string" || schema["x-kubernetes-int-or-string"] == true,
        Value::Array(_) => kind == "array",
        Value::Object(_) => kind == "object",
    };
    if !is_right {
        return vec![format!("{path}: {value} is no {schema}")];
    }
    let mut found = Vec::new();
    if let Value::Array(items) = value {
        for (index, item) in items.iter().enumerate() {
            found.extend(problems(
                &schema["items"],
                item,
                &format!("{path}[{index}]"),
            ));
        }
    }
    if let Value::Object(fields) = value {
        let required = schema["required"].as_array().cloned().unwrap_or_default();
        let missing = required
            .iter()
            .filter(|name| !fields.contains_key(name.as_str().unwrap()));
        found.extend(missing.map(|name| format!("{path}.{name}: missing")));
        for (name, field) in fields {
            let path = format!("{path}.{name}");
            let property = schema["properties"].get(name);
            match property.or_else(|| schema.get("additionalProperties")) {
                Some(property) => found.extend(problems(property, field, &path)),
                None if schema["x-kubernetes-preserve-unknown-fields"] == true => {}
                None if path.starts_with(".metadata.") => {}
                None => found.push(format!("{path}: unknown")),
            }
        }
    }
    found
}

#[track_caller]
fn accepts(object: &Value) {
    let kind = object["kind"].as_str().unwrap();
    assert_eq!(problems(&schema(kind), object, ""), Vec::<String>::new());
}

#[test]
fn six_kinds_are_defined_in_two_versions_of_which_one_is_stored() {
    let definitions: Vec<_> = all().collect();
    assert_eq!(definitions.len(), 6);
    for definition in definitions {
        let versions = definition["spec"]["versions"].as_array().unwrap().clone();
        let names: Vec<_> = versions.iter().map(|version| &version["name"]).collect();
        assert_eq!(names, ["v1", "v1alpha3"]);
        assert_eq!(versions[1]["deprecated"], true);
        assert_ne!(versions[0]["storage"], versions[1]["storage"]);
        let name = definition["metadata"]["name"].as_str().unwrap();
        let plural = plural(definition["spec"]["names"]["kind"].as_str().unwrap()).unwrap();
        assert_eq!(name, format!("{plural}.kubevirt.io"));
    }
    let stored = |kind: &str| definition(kind)["spec"]["versions"][1]["storage"].clone();
    assert_eq!(stored("VirtualMachineInstancePreset"), true);
    assert_eq!(stored("VirtualMachine"), false);
}

#[test]
fn instances_have_no_status_subresource_and_replica_sets_scale() {
    let subresources = |kind: &str| {
        let version = &definition(kind)["spec"]["versions"][0];
        version["subresources"].clone()
    };
    assert_eq!(subresources("VirtualMachineInstance"), Value::Null);
    assert_eq!(subresources("VirtualMachineInstancePreset"), Value::Null);
    for kind in [
        "VirtualMachine",
        "VirtualMachineInstanceMigration",
        "KubeVirt",
    ] {
        assert_eq!(subresources(kind), json!({"status": {}}));
    }
    assert_eq!(
        subresources("VirtualMachineInstanceReplicaSet")["scale"],
        json!({
            "specReplicasPath": ".spec.replicas",
            "statusReplicasPath": ".status.replicas",
            "labelSelectorPath": ".status.labelSelector",
        })
    );
}

#[test]
fn columns_are_those_that_people_know() {
    let columns = |kind: &str| -> Vec<String> {
        let columns = &definition(kind)["spec"]["versions"][0]["additionalPrinterColumns"];
        let columns = columns.as_array().cloned().unwrap_or_default();
        let of = |column: &Value| match column.get("priority") {
            Some(_) => format!("({})", column["name"].as_str().unwrap()),
            None => column["name"].as_str().unwrap().to_owned(),
        };
        columns.iter().map(of).collect()
    };
    assert_eq!(columns("VirtualMachine"), ["Age", "Status", "Ready"]);
    assert_eq!(
        columns("VirtualMachineInstance"),
        [
            "Age",
            "Phase",
            "IP",
            "NodeName",
            "Ready",
            "(Live-Migratable)",
            "(Paused)"
        ]
    );
    assert_eq!(columns("VirtualMachineInstanceMigration"), ["Phase", "VMI"]);
    assert_eq!(
        columns("VirtualMachineInstanceReplicaSet"),
        ["Desired", "Current", "Ready", "Age"]
    );
    assert_eq!(columns("KubeVirt"), ["Age", "Phase"]);
}

#[test]
fn schemas_are_structural() {
    for definition in all() {
        let schema = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        walk(schema, "", &mut |path, schema| {
            let object = schema.as_object().unwrap();
            let is_either = object.contains_key("x-kubernetes-int-or-string");
            assert!(object.contains_key("type") != is_either, "{path}: {schema}");
            for banned in [
                "$ref", "$defs", "oneOf", "allOf", "const", "title", "default",
            ] {
                assert!(!object.contains_key(banned), "{path} has {banned}");
            }
            assert!(object.contains_key("anyOf") == is_either, "{path}");
            let properties = object.get("properties").and_then(Value::as_object);
            for name in object
                .get("required")
                .and_then(Value::as_array)
                .into_iter()
                .flatten()
            {
                let known = properties.is_some_and(|p| p.contains_key(name.as_str().unwrap()));
                assert!(known, "{path} requires {name}, which it hasn't");
            }
            for key in object
                .get("x-kubernetes-list-map-keys")
                .and_then(Value::as_array)
                .into_iter()
                .flatten()
            {
                let items = &schema["items"];
                assert!(
                    items["required"].as_array().unwrap().contains(key),
                    "{path}: {key}"
                );
            }
            let description = object.get("description").and_then(Value::as_str);
            assert!(description.is_none_or(|text| text.len() < 170 && !text.contains('`')));
        });
    }
}

#[test]
fn what_is_said_beyond_the_types_is_about_types_and_fields_that_exist() {
    let mut fields = Vec::new();
    for definition in all() {
        let schema = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        walk(schema, "", &mut |path, _| {
            fields.push(path.rsplit('.').next().unwrap().to_owned());
        });
    }
    for (of, field) in facets::named() {
        assert!(fields.iter().any(|known| known == field), "{of}.{field}");
    }
}

#[test]
fn definitions_are_small() {
    for definition in all() {
        let len = definition.to_string().len();
        assert!(
            len < 150_000,
            "{} has {len} bytes",
            definition["metadata"]["name"]
        );
    }
}

#[test]
fn amounts_ports_and_times_have_their_forms() {
    let vmi = schema("VirtualMachineInstance");
    let guest = part(&vmi, "spec.domain.memory.guest");
    assert_eq!(guest["x-kubernetes-int-or-string"], true);
    assert!(guest["pattern"].is_string());
    let request = part(&vmi, "spec.domain.resources.requests.*");
    assert_eq!(request["x-kubernetes-int-or-string"], true);
    let port = part(&vmi, "spec.readinessProbe.httpGet.port");
    assert_eq!(port["x-kubernetes-int-or-string"], true);
    let time = part(&vmi, "status.conditions.*.lastTransitionTime");
    assert_eq!(
        (&time["format"], &time["nullable"]),
        (&json!("date-time"), &json!(true))
    );
    let seconds = part(&vmi, "spec.terminationGracePeriodSeconds");
    assert_eq!(
        (&seconds["type"], &seconds["format"]),
        (&json!("integer"), &json!("int64"))
    );
    assert_eq!(part(&vmi, "status.phase")["type"], "string");
    assert_eq!(part(&vmi, "spec.domain.devices.rng")["type"], "object");
    let key = part(&vmi, "spec.tolerations.*.key");
    assert_eq!(key["type"], "string");
    assert_eq!(
        part(&vmi, "spec.topologySpreadConstraints")["x-kubernetes-list-type"],
        "map"
    );
    assert_eq!(vmi["required"], json!(["spec"]));
    let vm = schema("VirtualMachine");
    let metadata = part(&vm, "spec.template.metadata");
    assert_eq!(metadata["x-kubernetes-preserve-unknown-fields"], true);
    assert_eq!(metadata["nullable"], true);
    assert_eq!(vm["properties"]["metadata"], json!({"type": "object"}));
}

#[test]
fn an_old_machine_is_accepted() {
    accepts(&json!({
        "apiVersion": "kubevirt.io/v1alpha3",
        "kind": "VirtualMachine",
        "metadata": {"name": "cirros"},
        "spec": {
            "running": false,
            "template": {
                "metadata": {"labels": {"kubevirt.io/domain": "cirros"}, "creationTimestamp": null},
                "spec": {
                    "domain": {
                        "cpu": {"cores": 2},
                        "devices": {
                            "disks": [{"disk": {"bus": "virtio"}, "name": "rootfs"}],
                            "interfaces": [{"name": "default", "bridge": {}}],
                        },
                        "machine": {"type": ""},
                        "resources": {"requests": {"memory": "2056M", "cpu": 1}},
                    },
                    "networks": [{"name": "default", "pod": {}}],
                    "terminationGracePeriodSeconds": 0,
                    "volumes": [
                        {"name": "rootfs", "containerDisk": {"image": "kubevirt/cirros"}},
                        {"name": "c", "cloudInitNoCloud": {"userDataBase64": "SGkuXG4="}},
                        {"name": "h", "hostDisk": {"path": "/data/disk.img", "type": "DiskOrCreate", "capacity": "1Gi"}},
                        {"name": "p", "persistentVolumeClaim": {"claimName": "p"}},
                    ],
                },
            },
        },
    }));
}

#[test]
fn pod_settings_and_data_volumes_are_accepted() {
    let affinity = json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {
        "nodeSelectorTerms": [{"matchExpressions": [
            {"key": "zone", "operator": "In", "values": ["a"]}]}]}}});
    accepts(&json!({
        "kind": "VirtualMachine",
        "metadata": {"name": "m"},
        "spec": {
            "runStrategy": "Always",
            "dataVolumeTemplates": [{"metadata": {"name": "d"}, "spec": {
                "source": {"http": {"url": "https://example.org/d.qcow2"}},
                "pvc": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
            }}],
            "template": {"spec": {
                "affinity": affinity,
                "tolerations": [{"key": "k", "operator": "Exists", "tolerationSeconds": 5}],
                "topologySpreadConstraints": [
                    {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}],
                "dnsConfig": {"nameservers": ["192.0.2.1"]},
                "livenessProbe": {"tcpSocket": {"port": "ssh"}, "periodSeconds": 5},
                "domain": {"devices": {}},
            }},
        },
    }));
}

#[test]
fn wrong_types_and_unknown_fields_show() {
    let object = json!({"kind": "VirtualMachineInstance", "spec": {
        "domain": {"cpu": {"cores": "two"}, "colour": "red"}, "volumes": [{}]}});
    let found = problems(&schema("VirtualMachineInstance"), &object, "");
    assert_eq!(found.len(), 3, "{found:?}");
    assert!(found.contains(&".spec.domain.colour: unknown".to_owned()));
}

/// The manifests that launchers are tested with, and the demo's.
fn manifests() -> Vec<(String, Value)> {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let fixtures = std::fs::read_dir(root.join("launcher/tests/fixtures")).unwrap();
    let mut files: Vec<_> = fixtures.map(|entry| entry.unwrap().path()).collect();
    files.push(root.join("images/demo/vmi.yaml"));
    let mut found = Vec::new();
    for file in files
        .iter()
        .filter(|file| file.extension().is_some_and(|e| e == "yaml"))
    {
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        let text = std::fs::read_to_string(file).unwrap();
        for document in crate::manifest::documents(&text).unwrap_or_default() {
            found.push((name.clone(), document));
        }
    }
    found
}

#[test]
fn manifests_of_documents_are_accepted() {
    let mut checked = 0;
    for (file, document) in manifests() {
        let kind = document["kind"].as_str().unwrap_or_default();
        let group = document["apiVersion"].as_str().unwrap_or_default();
        if !group.starts_with("kubevirt.io/") || plural(kind).is_none() {
            continue;
        }
        let found = problems(&schema(kind), &document, "");
        // Some documents leave parts out or have fields that upstream prunes as well.
        let wrong: Vec<_> = found
            .iter()
            .filter(|text| !text.ends_with(": unknown"))
            .collect();
        assert!(wrong.is_empty(), "{file}: {wrong:?}");
        checked += 1;
    }
    assert!(checked >= 5, "only {checked} manifests were found");
}
