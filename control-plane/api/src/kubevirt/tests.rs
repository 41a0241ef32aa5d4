use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{Configuration, KubeVirt};

/// An installation with every field set that has a type, and the untyped ones that are easily misspelt.
fn full() -> Value {
    json!({
        "apiVersion": "kubevirt.io/v1", "kind": "KubeVirt",
        "metadata": {"name": "kubevirt", "namespace": "kubevirt"},
        "spec": {
            "imageTag": "v1", "imageRegistry": "r", "imagePullPolicy": "Always",
            "imagePullSecrets": [{"name": "s"}],
            "monitorNamespace": "m", "serviceMonitorNamespace": "m", "monitorAccount": "a",
            "workloadUpdateStrategy": {"workloadUpdateMethods": ["LiveMigrate"]},
            "uninstallStrategy": "RemoveWorkloads",
            "certificateRotateStrategy": {"selfSigned": {"ca": {"duration": "168h"}}},
            "productVersion": "1", "productName": "p", "productComponent": "c", "synchronizationPort": "1",
            "configuration": full_configuration(),
            "infra": {"replicas": 2}, "workloads": {"nodePlacement": {}}, "customizeComponents": {"flags": {"api": {"v": "5"}}},
        },
        "status": {
            "phase": "Deployed", "conditions": [{"type": "Available", "status": "True"}],
            "operatorVersion": "v", "targetKubeVirtRegistry": "r", "targetKubeVirtVersion": "v",
            "targetDeploymentConfig": "{}", "targetDeploymentID": "i",
            "observedKubeVirtRegistry": "r", "observedKubeVirtVersion": "v",
            "observedDeploymentConfig": "{}", "observedDeploymentID": "i",
            "outdatedVirtualMachineInstanceWorkloads": 0, "observedGeneration": 1,
            "defaultArchitecture": "amd64", "generations": [{"name": "x"}], "synchronizationAddresses": ["a"],
        },
    })
}

/// `spec.configuration` with every field set. (In two parts: the macro's depth is bounded.)
fn full_configuration() -> Value {
    let limits = json!({"rateLimiter": {"tokenBucketRateLimiter": {"qps": 50.0, "burst": 100}}});
    let component = json!({"restClient": limits});
    let architecture =
        json!({"ovmfPath": "/o", "emulatedMachines": ["q35*"], "machineType": "q35"});
    let mut first = json!({
        "cpuModel": "host-model", "cpuRequest": "100m",
        "developerConfiguration": {
            "featureGates": ["HostDevices"], "disabledFeatureGates": ["NodeRestriction"],
            "pvcTolerateLessSpaceUpToPercent": 5, "minimumReservePVCBytes": 1024,
            "memoryOvercommit": 150, "nodeSelectors": {"a": "b"}, "useEmulation": true,
            "cpuAllocationRatio": 10, "minimumClusterTSCFrequency": 1,
            "diskVerification": {"memoryLimit": "2G"},
            "logVerbosity": {
                "virtAPI": 1, "virtController": 2, "virtHandler": 3, "virtLauncher": 4,
                "virtOperator": 5, "virtSynchronizationController": 6, "nodeVerbosity": {"n": 7},
            },
            "clusterProfiler": true,
        },
        "emulatedMachines": ["q35*"], "imagePullPolicy": "Always",
        "migrations": {"nodeDrainTaintKey": "k", "parallelMigrationsPerCluster": 5},
        "machineType": "q35",
        "network": {
            "defaultNetworkInterface": "masquerade", "permitSlirpInterface": false,
            "permitBridgeInterfaceOnPodNetwork": true,
            "binding": {"b": {
                "sidecarImage": "i", "networkAttachmentDefinition": "n", "domainAttachmentType": "tap",
                "migration": {"method": "link-refresh"}, "downwardAPI": "device-info",
                "computeResourceOverhead": {"requests": {"memory": "1Mi"}},
            }},
        },
    });
    let second = json!({
        "ovmfPath": "/o", "selinuxLauncherType": "t", "defaultRuntimeClass": "c",
        "smbios": {"manufacturer": "m", "product": "p", "version": "v", "sku": "s", "family": "f"},
        "architectureConfiguration": {
            "amd64": architecture, "arm64": architecture, "ppc64le": architecture,
            "s390x": architecture, "defaultArchitecture": "amd64",
        },
        "evictionStrategy": "LiveMigrate", "additionalGuestMemoryOverheadRatio": "1.5",
        "supportContainerResources": [{"type": "container-disk"}],
        "supportedGuestAgentVersions": ["9.*"], "memBalloonStatsPeriod": 10,
        "permittedHostDevices": {
            "pciHostDevices": [{
                "pciVendorSelector": "10DE:1EB8", "resourceName": "r/a", "externalResourceProvider": true,
            }],
            "mediatedDevices": [{
                "mdevNameSelector": "GRID T4-1Q", "resourceName": "r/b", "externalResourceProvider": false,
            }],
            "usb": [{
                "resourceName": "r/c", "selectors": [{"vendor": "0bda", "product": "0811"}],
                "externalResourceProvider": false,
            }],
        },
        "mediatedDevicesConfiguration": {"enabled": true},
        "minCPUModel": "Penryn", "obsoleteCPUModels": {"486": true},
        "virtualMachineInstancesPerNode": 110,
        "apiConfiguration": component, "webhookConfiguration": component,
        "controllerConfiguration": component, "handlerConfiguration": component,
        "tlsConfiguration": {"minTLSVersion": "VersionTLS13", "ciphers": ["TLS_AES_128_GCM_SHA256"]},
        "seccompConfiguration": {"virtualMachineInstanceProfile": {}},
        "vmStateStorageClass": "c",
        "virtualMachineOptions": {"disableFreePageReporting": {}, "disableSerialConsoleLog": {}},
        "ksmConfiguration": {"nodeLabelSelector": {
            "matchLabels": {"a": "b"}, "matchExpressions": [{"key": "k", "operator": "Exists"}],
        }},
        "autoCPULimitNamespaceLabelSelector": {"matchLabels": {"a": "b"}},
        "liveUpdateConfiguration": {"maxHotplugRatio": 4}, "vmRolloutStrategy": "LiveUpdate",
        "commonInstancetypesDeployment": {"enabled": true}, "virtTemplateDeployment": {"enabled": true},
        "instancetype": {"referencePolicy": "reference"}, "hypervisors": [{"name": "kvm"}],
        "changedBlockTrackingLabelSelectors": {"namespaceLabelSelector": {}},
        "persistentReservationConfiguration": {"enabled": true},
        "confidentialCompute": {"tdx": {}}, "roleAggregationStrategy": "AggregateToDefault",
    });
    let fields = first.as_object_mut().unwrap();
    fields.extend(second.as_object().unwrap().clone());
    first
}

fn configuration(json: Value) -> Configuration {
    serde_json::from_value(json).unwrap()
}

#[test]
fn every_field_keeps_its_name() {
    let installation: KubeVirt = serde_json::from_value(full()).unwrap();
    assert_eq!(serde_json::to_value(&installation).unwrap(), full());
}

#[test]
fn null_is_read_as_absent() {
    let json = full_configuration();
    let fields = json.as_object().unwrap();
    let nulls: Value = fields
        .keys()
        .map(|key| (key.clone(), Value::Null))
        .collect();
    assert_eq!(configuration(nulls), Configuration::default());
    let nothing: KubeVirt = serde_json::from_value(json!({"spec": null, "status": null})).unwrap();
    assert_eq!(nothing, KubeVirt::default());
}

#[test]
fn what_is_unset_has_upstreams_defaults() {
    let nothing = Configuration::default();
    assert!(!nothing.use_emulation());
    assert_eq!(nothing.less_pvc_space_percent(), 10);
    assert_eq!(nothing.reserve_pvc_bytes(), 131_072);
    assert_eq!(nothing.handler_verbosity("n"), 2);
    assert_eq!(nothing.mem_balloon_stats_period_seconds(), 10);
    for percent in [-1, 0, 101] {
        let odd = json!({"developerConfiguration": {"pvcTolerateLessSpaceUpToPercent": percent}});
        assert_eq!(configuration(odd).less_pvc_space_percent(), 10);
    }
    let smbios = json!({"smbios": {"family": "f", "sku": "s"}});
    let smbios = serde_json::to_value(configuration(smbios).smbios_or_default()).unwrap();
    let expected =
        json!({"manufacturer": "KubeVirt", "product": "None", "family": "f", "sku": "s"});
    assert_eq!(smbios, expected);
}

#[test]
fn a_node_has_a_verbosity_of_its_own() {
    let configuration = configuration(full_configuration());
    assert_eq!(configuration.handler_verbosity("n"), 7);
    assert_eq!(configuration.handler_verbosity("m"), 3);
}

#[test]
fn features_are_on_when_listed_or_finished_and_not_switched_off() {
    let configuration = configuration(full_configuration());
    assert!(configuration.is_on("HostDevices"));
    assert!(!configuration.is_on("HostDisk"));
    assert!(configuration.is_on("LiveMigration"));
    assert!(!configuration.is_on("NodeRestriction"));
}

#[test]
fn pages_are_shared_on_chosen_nodes_only() {
    let labels = BTreeMap::from([("a".to_owned(), "b".to_owned())]);
    assert!(!Configuration::default().shares_pages(&labels));
    let unset = json!({"ksmConfiguration": {}});
    assert!(!configuration(unset).shares_pages(&labels));
    let everywhere = json!({"ksmConfiguration": {"nodeLabelSelector": {}}});
    assert!(configuration(everywhere).shares_pages(&BTreeMap::new()));
    let some = json!({"ksmConfiguration": {"nodeLabelSelector": {"matchLabels": {"a": "b"}}}});
    assert!(configuration(some.clone()).shares_pages(&labels));
    assert!(!configuration(some).shares_pages(&BTreeMap::new()));
}
