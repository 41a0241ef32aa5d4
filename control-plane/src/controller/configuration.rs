//! What the controllers are told: their own options, and the cluster's `KubeVirt` object.

use api::features::gate;
use api::kubevirt::Configuration;
use serde::Deserialize;
use serde_json::Value;

use super::Options;

/// Everything that decisions depend on beside the objects.
#[derive(Clone, Debug, Default)]
pub(crate) struct Config {
    /// Image of launchers.
    pub(crate) launcher_image: String,
    /// Arguments of launchers after those that upstream's controller gives.
    pub(crate) launcher_arguments: Vec<String>,
    /// When images are fetched for which nobody says so.
    pub(crate) image_pull_policy: String,
    /// Secrets for the registry of the launcher's image.
    pub(crate) image_pull_secrets: Vec<String>,
    /// How the cluster runs machines.
    pub(crate) cluster: Configuration,
    /// Whether virtual machines are restarted when that is what a change of their template needs.
    pub(crate) restart_on_update: bool,
}

impl Config {
    /// Makes it from the options and the `KubeVirt` object, if there is one that can be read.
    pub(crate) fn new(options: &Options, kubevirt: Option<&Value>) -> Self {
        let spec = kubevirt.and_then(|kubevirt| kubevirt.get("spec"));
        let cluster = spec.and_then(|spec| spec.get("configuration"));
        let cluster = cluster
            .and_then(|cluster| Configuration::deserialize(cluster).ok())
            .unwrap_or_default();
        let text = |field| {
            spec.and_then(|spec| spec.get(field))
                .and_then(Value::as_str)
        };
        let secrets = spec
            .and_then(|spec| spec.get("imagePullSecrets"))
            .and_then(Value::as_array);
        let secrets = secrets
            .into_iter()
            .flatten()
            .filter_map(|secret| secret["name"].as_str());
        let annotation = kubevirt.and_then(|kubevirt| {
            let annotations = kubevirt.pointer("/metadata/annotations")?;
            annotations.get(super::RESTART_ON_UPDATE)?.as_str()
        });
        Self {
            launcher_image: options.launcher_image.clone(),
            launcher_arguments: options.launcher_arguments.clone(),
            image_pull_policy: text("imagePullPolicy").unwrap_or_default().to_owned(),
            image_pull_secrets: secrets.map(str::to_owned).collect(),
            cluster,
            restart_on_update: annotation == Some("true"),
        }
    }

    /// Whether container disks are volumes that the kubelet mounts.
    pub(crate) fn image_volumes(&self) -> bool {
        self.cluster.is_on(gate::IMAGE_VOLUME)
    }
}
