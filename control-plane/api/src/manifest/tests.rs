use proptest::prelude::proptest;

use super::{ManifestError, Object, parse_manifest, parse_vmi_json};

const VMI: &str =
    "apiVersion: kubevirt.io/v1\nkind: VirtualMachineInstance\nmetadata:\n  name: m\n";

fn error(text: &str) -> String {
    parse_manifest(text).unwrap_err().to_string()
}

#[test]
fn both_versions_and_both_kinds_are_read() {
    for version in ["v1", "v1alpha3"] {
        let text = format!(
            "apiVersion: kubevirt.io/{version}\nkind: VirtualMachine\nmetadata: {{name: v}}\nspec: {{template: {{spec: {{hostname: h}}}}}}\n"
        );
        let documents = parse_manifest(&text).unwrap();
        let Object::Vm(vm) = &documents[0].object else {
            panic!("{documents:?}")
        };
        let vmi = vm.instance();
        assert_eq!(
            (vmi.metadata.name.as_str(), vmi.guest_hostname()),
            ("v", "h")
        );
    }
}

#[test]
fn several_documents_and_json_are_read() {
    let text = format!("{VMI}---\n{VMI}---\n");
    assert_eq!(parse_manifest(&text).unwrap().len(), 2);
    let json = r#"{"apiVersion":"kubevirt.io/v1","kind":"VirtualMachineInstance","metadata":{"name":"m"}}"#;
    assert_eq!(parse_manifest(json).unwrap().len(), 1);
}

#[test]
fn unknown_fields_are_reported_by_path() {
    let text = format!(
        "{VMI}spec:\n  domain:\n    devices:\n      disks:\n      - name: a\n      - name: b\n        colour: red\n    flux: 1\n"
    );
    let paths: Vec<String> = parse_manifest(&text).unwrap()[0]
        .unknown_fields
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(
        paths,
        ["spec.domain.devices.disks[1].colour", "spec.domain.flux"]
    );
}

#[test]
fn values_of_a_wrong_type_are_named_by_path() {
    assert_eq!(
        error(&format!("{VMI}spec: {{domain: {{cpu: {{cores: two}}}}}}")),
        "spec.domain.cpu.cores: invalid type: string \"two\", expected u32"
    );
    let memory = error(&format!(
        "{VMI}spec: {{domain: {{memory: {{guest: 12Q}}}}}}"
    ));
    assert!(
        memory.starts_with("spec.domain.memory.guest: \"12Q\" is no quantity"),
        "{memory}"
    );
    let grace = error(&format!("{VMI}spec: {{terminationGracePeriodSeconds: -1}}"));
    assert!(
        grace.starts_with("spec.terminationGracePeriodSeconds: "),
        "{grace}"
    );
}

#[test]
fn unknown_kinds_and_versions_are_named() {
    assert!(matches!(
        parse_manifest("apiVersion: KubeVirt.io/v1alpha3\nkind: VirtualBoxInstance"),
        Err(ManifestError::UnknownKind { .. })
    ));
    let text = error("apiVersion: kubevirt.io/v2\nkind: VirtualMachine");
    assert!(text.contains("no matches for kind \"VirtualMachine\" in version \"kubevirt.io/v2\""));
    assert!(error("kind: VM").starts_with("apiVersion: required"));
    assert!(error("apiVersion: kubevirt.io/v1").starts_with("kind: required"));
}

#[test]
fn text_that_is_no_manifest_gets_one_line() {
    for text in [
        "",
        "---\n",
        "# only a comment\n",
        "hello",
        "- 1\n- 2",
        "{",
        "a: b: c",
        "\t",
        "a: 1\na: 2",
    ] {
        let message = error(text);
        assert!(!message.contains('\n'), "{message:?}");
    }
}

#[test]
fn alias_bombs_are_cut_short() {
    let mut bomb = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n".to_owned();
    for level in 1..9 {
        let alias = format!("*a{}", level - 1);
        bomb += &format!("a{level}: &a{level} [{}]\n", vec![alias; 10].join(","));
    }
    assert!(matches!(
        parse_manifest(&bomb),
        Err(ManifestError::Syntax(_))
    ));
    let deep = "[".repeat(100_000);
    assert!(parse_manifest(&deep).is_err());
}

#[test]
fn null_is_the_same_as_absent() {
    let (vmi, unknown) = parse_vmi_json(
        br#"{"metadata":{"name":"m","creationTimestamp":null},"spec":{"domain":null,"volumes":null},"status":{}}"#,
    )
    .unwrap();
    assert!(unknown.is_empty());
    let (absent, _) = parse_vmi_json(br#"{"metadata":{"name":"m"}}"#).unwrap();
    assert_eq!(vmi, absent);
}

#[test]
fn what_is_read_is_written_back() {
    let json = serde_json::json!({
        "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance",
        "metadata": {"name": "m"},
        "spec": {"domain": {"devices": {"disks": [{"name": "d", "disk": {"bus": "virtio"}}],
            "interfaces": [{"name": "n", "masquerade": {}}]}, "memory": {"guest": "1Gi"}},
            "volumes": [{"name": "d", "cloudInitNoCloud": {"userDataBase64": "SGkuXG4="}}],
            "networks": [{"name": "n", "pod": {}}]},
    });
    let (vmi, _) = parse_vmi_json(json.to_string().as_bytes()).unwrap();
    assert_eq!(serde_json::to_value(&vmi).unwrap(), json);
}

proptest! {
    #[test]
    fn arbitrary_text_never_panics(text in "[ -~\n\t]{0,300}") {
        let _parsed = parse_manifest(&text);
    }
}
