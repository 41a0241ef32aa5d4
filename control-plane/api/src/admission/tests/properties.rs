use proptest::prelude::*;
use serde_json::{Value, json};

use super::{USER, by, changed, defaulted, good};
use crate::admission::{
    create_kubevirt, create_migration, create_preset, create_replica_set, create_vm, create_vmi,
    keep_status, update_kubevirt, update_migration, update_vm, update_vm_status, update_vmi,
};
use crate::kubevirt::Configuration;

/// Names of fields at which rules look.
const NAMES: &str = "spec|template|domain|cpu|memory|devices|disks|disk|interfaces|volumes|networks|pod|metadata|resources|requests|limits|status|guest|name|labels|features|hyperv|affinity|nodeAffinity|requiredDuringSchedulingIgnoredDuringExecution|nodeSelectorTerms|matchExpressions|values|dnsConfig|searches|configuration|selector|volumeRequests|addVolumeOptions|dataVolumeTemplates|storage|source|[a-c]";

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "[a-z0-9/.:-]{0,6}".prop_map(Value::from),
    ];
    leaf.prop_recursive(7, 80, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((NAMES, inner), 0..5)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn no_json_makes_a_decision_panic(part in any_json(), other in any_json()) {
        let config = Configuration::default();
        let cluster = by(USER, &config);
        let ours = by(super::CONTROLLER, &config);
        let wild = changed(good(), &json!({ "spec": part }));
        let machine = json!({"metadata": other, "spec": {"template": wild, "runStrategy": "Always"}, "status": part});
        for object in [&part, &other, &wild, &machine] {
            create_vmi(&defaulted(object.clone(), &config), &cluster);
            update_vmi(object, &part, &ours);
            update_vmi(&good(), object, &cluster);
            keep_status(object, &mut part.clone(), &cluster);
            create_vm(object, &cluster);
            update_vm(&other, object, &cluster);
            update_vm_status(object, Some(&part));
            create_replica_set(object, &cluster);
            create_preset(object, &cluster);
            create_migration(object, Some(&other), std::slice::from_ref(&part), &cluster);
            update_migration(&other, object);
            create_kubevirt(object, 0);
            update_kubevirt(&part, object);
        }
    }
}
