//! `virtctl permitted-devices`.

use clap::Args;
use serde_json::Value;

use super::Session;
use crate::failure::Failure;
use crate::report;

/// List the host devices that instances may have.
///
/// Names are those to use in spec.domain.devices of instances: hostDevices, and gpus for mediated devices.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  # List the devices that the installation permits:
  virtctl permitted-devices")]
pub(crate) struct PermittedDevices {}

impl PermittedDevices {
    /// Prints the names.
    pub(super) async fn run(&self, session: &Session) -> Result<(), Failure> {
        let cluster = session.cluster().await?;
        // There is one installation, whatever namespace it is in.
        let list = cluster.get("/apis/kubevirt.io/v1/kubevirts").await;
        let list = list.map_err(|refusal| refusal.of("Error reading the KubeVirt resource:"))?;
        let Some(kubevirt) = list["items"].as_array().and_then(|items| items.first()) else {
            return Err(Failure::Argument(
                "no KubeVirt resource in this cluster: is KubeVirt installed?".to_owned(),
            ));
        };
        report::text(&text(kubevirt))
    }
}

fn text(kubevirt: &Value) -> String {
    let permitted = &kubevirt["spec"]["configuration"]["permittedHostDevices"];
    let names = |field: &str| {
        let devices = permitted[field].as_array().into_iter().flatten();
        let names = devices.filter_map(|device| device["resourceName"].as_str());
        names.map(ToOwned::to_owned).collect::<Vec<String>>()
    };
    let mut host = names("pciHostDevices");
    host.extend(names("usb"));
    let host = host.join(", ");
    let mediated = names("mediatedDevices").join(", ");
    format!("Permitted Devices: \nHost Devices: \n{host} \nGPU Devices: \n{mediated}\n")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::text;

    #[test]
    fn devices_are_listed_by_what_they_are_used_as() {
        let permitted = json!({
            "pciHostDevices": [{"resourceName": "a/nic"}, {"resourceName": "a/disk"}],
            "usb": [{"resourceName": "a/stick"}],
            "mediatedDevices": [{"resourceName": "b/gpu"}],
        });
        let kubevirt = json!({"spec": {"configuration": {"permittedHostDevices": permitted}}});
        let expected =
            "Permitted Devices: \nHost Devices: \na/nic, a/disk, a/stick \nGPU Devices: \nb/gpu\n";
        assert_eq!(text(&kubevirt), expected);
        assert_eq!(
            text(&json!({})),
            "Permitted Devices: \nHost Devices: \n \nGPU Devices: \n\n"
        );
    }
}
