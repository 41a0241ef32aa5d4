use serde_json::{Value, json};

use super::super::{CLASS, PROVISIONER};
use super::{Action, plan, volume};

#[expect(
    clippy::needless_pass_by_value,
    reason = "tests write the fields in place"
)]
fn claim(spec: Value) -> Value {
    let mut claim = json!({
        "metadata": {"name": "c", "namespace": "a", "uid": "u", "finalizers": ["kubernetes.io/pvc-protection"]},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
        "status": {"phase": "Pending"},
    });
    for (name, value) in spec.as_object().unwrap() {
        claim["spec"][name] = value.clone();
    }
    claim
}

fn class() -> Value {
    json!({
        "metadata": {"name": CLASS, "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}},
        "provisioner": PROVISIONER,
    })
}

fn reason(actions: &[Action]) -> &str {
    match actions {
        [Action::Tell { reason, .. }] => reason,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_claim_becomes_a_volume_which_is_bound() {
    let claim = claim(json!({}));
    let actions = plan(std::slice::from_ref(&claim), &[], &[], &[class()]);
    assert!(matches!(&actions[..], [Action::Make { name, .. }] if name == "pvc-u"));
    let made = volume(&claim, "pvc-u", "/v/pvc-u", "n1");
    let actions = plan(&[claim], &[made], &[], &[class()]);
    assert!(matches!(&actions[..], [Action::Bind { .. }]));
}

#[test]
fn a_volume_that_somebody_made_is_taken_when_it_fits() {
    let free = json!({
        "metadata": {"name": "v", "labels": {"disk": "fast"}},
        "spec": {"capacity": {"storage": "2Gi"}, "accessModes": ["ReadWriteOnce"], "storageClassName": "manual"},
    });
    let wants = |spec: Value| plan(&[claim(spec)], std::slice::from_ref(&free), &[], &[class()]);
    let bound =
        wants(json!({"storageClassName": "manual", "selector": {"matchLabels": {"disk": "fast"}}}));
    assert!(matches!(&bound[..], [Action::Bind { .. }]));
    for other in [
        json!({"storageClassName": "manual", "selector": {"matchLabels": {"disk": "slow"}}}),
        json!({"storageClassName": "manual", "volumeName": "w"}),
        json!({"storageClassName": "manual", "accessModes": ["ReadWriteMany"]}),
        json!({"storageClassName": "manual", "resources": {"requests": {"storage": "3Gi"}}}),
    ] {
        assert!(
            matches!(&wants(other.clone())[..], [Action::Tell { .. }]),
            "{other}"
        );
    }
    let two = plan(
        &[
            claim(json!({"storageClassName": "manual"})),
            claim(json!({"storageClassName": "manual"})),
        ],
        std::slice::from_ref(&free),
        &[],
        &[],
    );
    assert!(
        matches!(&two[..], [Action::Bind { .. }, Action::Tell { .. }]),
        "one volume is bound once"
    );
}

#[test]
fn a_claim_that_cannot_be_met_is_told_why() {
    let told = |spec: Value, classes: &[Value]| {
        reason(&plan(&[claim(spec)], &[], &[], classes)).to_owned()
    };
    assert!(
        told(json!({"storageClassName": "rook-ceph-block"}), &[class()]).contains("does not exist")
    );
    assert!(told(json!({}), &[]).contains("names no storage class"));
    assert!(told(json!({"volumeMode": "Block"}), &[class()]).contains("Filesystem only"));
    assert!(told(json!({"dataSource": {"name": "s"}}), &[class()]).contains("no dataSource"));
}

#[test]
fn a_claim_is_protected_while_a_pod_uses_it() {
    let mut claim = claim(json!({}));
    claim["status"]["phase"] = json!("Bound");
    claim["metadata"]["finalizers"] = json!(["other"]);
    let actions = plan(std::slice::from_ref(&claim), &[], &[], &[]);
    let both = vec![
        "other".to_owned(),
        "kubernetes.io/pvc-protection".to_owned(),
    ];
    assert!(matches!(&actions[..], [Action::Protect { finalizers, .. }] if *finalizers == both));
    claim["metadata"]["finalizers"] = json!(both);
    claim["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    let mut pod = json!({"metadata": {"namespace": "a"}, "spec": {"volumes": [{"persistentVolumeClaim": {"claimName": "c"}}]}});
    assert_eq!(
        plan(
            std::slice::from_ref(&claim),
            &[],
            std::slice::from_ref(&pod),
            &[]
        ),
        []
    );
    pod["status"]["phase"] = json!("Succeeded");
    let actions = plan(&[claim], &[], &[pod], &[]);
    assert!(
        matches!(&actions[..], [Action::Protect { finalizers, .. }] if *finalizers == ["other"])
    );
}

#[test]
fn volumes_whose_claim_is_gone_go_or_stay() {
    let mut bound = volume(&claim(json!({})), "pvc-u", "/v/pvc-u", "n1");
    bound["status"]["phase"] = json!("Bound");
    let removed = plan(&[], std::slice::from_ref(&bound), &[], &[]);
    assert!(
        matches!(&removed[..], [Action::Remove { path, .. }] if path.to_str() == Some("/v/pvc-u"))
    );
    bound["spec"]["persistentVolumeReclaimPolicy"] = json!("Retain");
    assert!(matches!(
        &plan(&[], std::slice::from_ref(&bound), &[], &[])[..],
        [Action::Release { .. }]
    ));
    bound["status"]["phase"] = json!("Released");
    assert_eq!(plan(&[], &[bound], &[], &[]), []);
}
