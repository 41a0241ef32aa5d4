#![expect(
    clippy::needless_pass_by_value,
    reason = "checks read better with the literals in place"
)]

use serde_json::{Value, json};

use super::{changed, grants, names};
use crate::admission::{create_kubevirt, delete_kubevirt, update_kubevirt};

fn installation() -> Value {
    json!({"metadata": {"name": "kubevirt"}, "spec": {}, "status": {"phase": "Deployed"}})
}

#[track_caller]
fn refused(spec: Value, expected: &str) {
    let new = changed(installation(), &json!({ "spec": spec }));
    names(&update_kubevirt(&installation(), &new), expected);
}

#[test]
fn there_is_one_installation() {
    grants(&create_kubevirt(&installation(), 0));
    names(&create_kubevirt(&installation(), 1), "metadata.name");
}

#[test]
fn an_installation_with_workloads_can_be_protected() {
    let kinds = ["VirtualMachine"];
    grants(&delete_kubevirt(&installation(), &kinds));
    let blocks = json!({"spec": {"uninstallStrategy": "BlockUninstallIfWorkloadsExist"}});
    let protected = changed(installation(), &blocks);
    names(
        &delete_kubevirt(&protected, &kinds),
        "spec.uninstallStrategy",
    );
    grants(&delete_kubevirt(&protected, &[]));
    let broken = changed(protected, &json!({"status": {"phase": "Deploying"}}));
    grants(&delete_kubevirt(&broken, &kinds));
}

#[test]
fn the_specification_is_checked() {
    refused(
        json!({"uninstallStrategy": "Shred"}),
        "spec.uninstallStrategy",
    );
    let methods = json!({"workloadUpdateStrategy": {"workloadUpdateMethods": ["Wait"]}});
    refused(
        methods,
        "spec.workloadUpdateStrategy.workloadUpdateMethods[0]",
    );
    let patch =
        json!({"resourceName": "r", "resourceType": "Deployment", "patch": "{", "type": "merge"});
    refused(
        json!({"customizeComponents": {"patches": [patch]}}),
        "spec.customizeComponents.patches[0].patch",
    );
    refused(json!({"infra": {"replicas": 0}}), "spec.infra.replicas");
}

#[test]
fn lives_of_certificates_are_checked() {
    let check = |given: Value, field: &str| {
        let path = format!("spec.certificateRotateStrategy.selfSigned.{field}");
        refused(
            json!({"certificateRotateStrategy": {"selfSigned": given}}),
            &path,
        );
    };
    check(
        json!({"ca": {"duration": "1h", "renewBefore": "2h"}}),
        "ca.renewBefore",
    );
    check(
        json!({"server": {"duration": "1h", "renewBefore": "2h"}}),
        "server.renewBefore",
    );
    check(
        json!({"ca": {"duration": "1h"}, "server": {"duration": "2h"}}),
        "server.duration",
    );
    check(json!({"ca": {"duration": "soon"}}), "ca.duration");
    check(
        json!({"ca": {}, "caRotateInterval": "1h"}),
        "caRotateInterval",
    );
    let fine = json!({"ca": {"duration": "48h", "renewBefore": "24h"}, "server": {"duration": "24h", "renewBefore": "12h"}});
    let new = changed(
        installation(),
        &json!({"spec": {"certificateRotateStrategy": {"selfSigned": fine}}}),
    );
    grants(&update_kubevirt(&installation(), &new));
}

#[test]
fn the_configuration_is_checked() {
    let check = |given: Value, field: &str| {
        refused(
            json!({ "configuration": given }),
            &format!("spec.configuration.{field}"),
        );
    };
    check(
        json!({"additionalGuestMemoryOverheadRatio": "0.5"}),
        "additionalGuestMemoryOverheadRatio",
    );
    check(
        json!({"additionalGuestMemoryOverheadRatio": "much"}),
        "additionalGuestMemoryOverheadRatio",
    );
    check(json!({"evictionStrategy": "Sometimes"}), "evictionStrategy");
    check(
        json!({"migrations": {"maxDowntimeMs": 1}}),
        "migrations.maxDowntimeMs",
    );
    check(
        json!({"network": {"defaultNetworkInterface": "slirp"}}),
        "network.defaultNetworkInterface",
    );
    let tls = |given: Value| json!({ "tlsConfiguration": given });
    check(
        tls(json!({"minTLSVersion": "SSL3"})),
        "tlsConfiguration.minTLSVersion",
    );
    check(
        tls(json!({"ciphers": ["TLS_AES_128_GCM_SHA256"]})),
        "tlsConfiguration.ciphers",
    );
    check(
        tls(json!({"minTLSVersion": "VersionTLS12", "ciphers": ["ROT13"]})),
        "tlsConfiguration.ciphers[0]",
    );
    let seccomp =
        |given: Value| json!({"seccompConfiguration": {"virtualMachineInstanceProfile": given}});
    let profile = "seccompConfiguration.virtualMachineInstanceProfile.customProfile";
    check(seccomp(json!({})), profile);
    let both = json!({"customProfile": {"localhostProfile": "x", "runtimeDefaultProfile": true}});
    check(seccomp(both), profile);
    let off = |gate: &str, given: Value| {
        let developer = json!({"developerConfiguration": {"disabledFeatureGates": [gate]}});
        changed(developer, &given)
    };
    check(
        off(
            "Template",
            json!({"virtTemplateDeployment": {"enabled": true}}),
        ),
        "virtTemplateDeployment.enabled",
    );
    check(
        off(
            "OptOutRoleAggregation",
            json!({"roleAggregationStrategy": "Manual"}),
        ),
        "roleAggregationStrategy",
    );
}

#[test]
fn gates_are_checked_when_they_change() {
    let gates =
        json!({"featureGates": ["HostDisk", "Teleport"], "disabledFeatureGates": ["HostDisk"]});
    let new = changed(
        installation(),
        &json!({"spec": {"configuration": {"developerConfiguration": gates}}}),
    );
    let verdict = update_kubevirt(&installation(), &new);
    names(
        &verdict,
        "spec.configuration.developerConfiguration.featureGates[0]",
    );
    assert_eq!(verdict.warnings.len(), 1, "{:?}", verdict.warnings);
    grants(&update_kubevirt(&new, &new));
    let devices = json!({"mediatedDevicesConfiguration": {"mediatedDevicesTypes": ["x"]},
        "architectureConfiguration": {"ppc64le": {"machineType": "x"}}});
    let new = changed(installation(), &json!({"spec": {"configuration": devices}}));
    assert_eq!(update_kubevirt(&installation(), &new).warnings.len(), 2);
}
