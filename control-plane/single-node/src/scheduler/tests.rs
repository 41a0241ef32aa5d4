use serde_json::{Value, json};

use super::{Amounts, Fit, fit, requests};

fn node() -> Value {
    json!({
        "metadata": {"name": "n1", "labels": {"kubevirt.io/schedulable": "true", "cores": "2"}},
        "spec": {},
        "status": {"allocatable": {"cpu": "2", "memory": "1Gi", "pods": "3", "devices.kubevirt.io/kvm": "1"}},
    })
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "tests write the fields in place"
)]
fn pod(spec: Value) -> Value {
    json!({"metadata": {"name": "p"}, "spec": spec})
}

fn why(pod: &Value, node: &Value, taken: &Amounts) -> String {
    match fit(pod, node, taken) {
        Fit::Fits => String::new(),
        Fit::Unschedulable(why) => why,
    }
}

#[test]
fn a_pod_takes_its_containers_or_its_greatest_init_container() {
    let pod = pod(json!({
        "containers": [
            {"resources": {"requests": {"cpu": "100m", "memory": "64Mi"}}},
            {"resources": {"limits": {"cpu": "0.5", "devices.kubevirt.io/kvm": "1"}}},
        ],
        "initContainers": [
            {"resources": {"requests": {"memory": "128Mi"}}},
            {"restartPolicy": "Always", "resources": {"requests": {"cpu": "1"}}},
        ],
        "overhead": {"memory": "1Mi"},
    }));
    let wanted = requests(&pod);
    assert_eq!(wanted["cpu"], 1600);
    assert_eq!(wanted["memory"], 129 << 20);
    assert_eq!(wanted["devices.kubevirt.io/kvm"], 1);
    assert_eq!(wanted["pods"], 1);
}

#[test]
fn what_is_taken_is_not_given_twice() {
    let wants = pod(json!({"containers": [{"resources": {"requests": {"memory": "600Mi"}}}]}));
    assert_eq!(fit(&wants, &node(), &Amounts::new()), Fit::Fits);
    let taken = requests(&wants);
    assert_eq!(
        why(&wants, &node(), &taken),
        "0/1 nodes are available: 1 Insufficient memory."
    );
    let device = pod(json!({"containers": [{"resources": {"limits": {"example.org/gpu": 1}}}]}));
    assert_eq!(
        why(&device, &node(), &Amounts::new()),
        "0/1 nodes are available: 1 Insufficient example.org/gpu (the node offers none)."
    );
    let kvm = |count: u64| {
        let limits = json!({"devices.kubevirt.io/kvm": count});
        pod(json!({"containers": [{"resources": {"limits": limits}}]}))
    };
    assert_eq!(
        why(&kvm(2), &node(), &Amounts::new()),
        "0/1 nodes are available: 1 Insufficient devices.kubevirt.io/kvm (the node offers 1, 2 are wanted)."
    );
    assert_eq!(
        why(&kvm(1), &node(), &requests(&kvm(1))),
        "0/1 nodes are available: 1 Insufficient devices.kubevirt.io/kvm (others have them)."
    );
    let full = Amounts::from([("pods".to_owned(), 3)]);
    assert_eq!(
        why(&pod(json!({})), &node(), &full),
        "0/1 nodes are available: 1 Insufficient pods."
    );
}

#[test]
fn selectors_and_affinity_must_fit() {
    let none = Amounts::new();
    let selector = |value: &str| pod(json!({"nodeSelector": {"kubevirt.io/schedulable": value}}));
    assert_eq!(why(&selector("true"), &node(), &none), "");
    assert!(why(&selector("false"), &node(), &none).contains("node affinity/selector"));
    let affinity = |condition: Value| {
        pod(
            json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {
            "nodeSelectorTerms": [{"matchExpressions": [condition]}]}}}}),
        )
    };
    for (condition, fits) in [
        (
            json!({"key": "cores", "operator": "In", "values": ["1", "2"]}),
            true,
        ),
        (
            json!({"key": "cores", "operator": "NotIn", "values": ["2"]}),
            false,
        ),
        (
            json!({"key": "cores", "operator": "Gt", "values": ["1"]}),
            true,
        ),
        (
            json!({"key": "cores", "operator": "Lt", "values": ["2"]}),
            false,
        ),
        (
            json!({"key": "gone", "operator": "Lt", "values": ["2"]}),
            false,
        ),
        (json!({"key": "gone", "operator": "DoesNotExist"}), true),
        (json!({"key": "gone", "operator": "Exists"}), false),
        (json!({"key": "cores", "operator": "Maybe"}), false),
    ] {
        assert_eq!(
            why(&affinity(condition.clone()), &node(), &none).is_empty(),
            fits,
            "{condition}"
        );
    }
}

#[test]
fn taints_keep_away_what_does_not_tolerate_them() {
    let none = Amounts::new();
    let mut tainted = node();
    tainted["spec"]["taints"] = json!([{"key": "a", "value": "b", "effect": "NoSchedule"}]);
    assert_eq!(
        why(&pod(json!({})), &tainted, &none),
        "0/1 nodes are available: 1 node(s) had untolerated taint {a: b}."
    );
    for toleration in [
        json!({"operator": "Exists"}),
        json!({"key": "a", "operator": "Exists", "effect": "NoSchedule"}),
        json!({"key": "a", "value": "b"}),
    ] {
        assert_eq!(
            why(&pod(json!({"tolerations": [toleration]})), &tainted, &none),
            ""
        );
    }
    let mut cordoned = node();
    cordoned["spec"]["unschedulable"] = json!(true);
    assert!(why(&pod(json!({})), &cordoned, &none).contains("were unschedulable"));
}
