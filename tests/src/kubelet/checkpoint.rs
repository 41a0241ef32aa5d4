//! The kubelet's file of who has which devices.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use prost::Message;
use proto::deviceplugin::v1beta1::ContainerAllocateResponse;
use serde_json::{Value, json};

use super::node::{Node, Resource};
use super::{KubeletError, State};

/// Name of the file.
pub const CHECKPOINT: &str = "kubelet_internal_checkpoint";

/// Devices that a container has.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Uid of the pod.
    pub pod_uid: String,
    /// Name of the container.
    pub container: String,
    /// The resource.
    pub resource: String,
    /// The devices by NUMA node, -1 for none.
    pub ids: BTreeMap<i64, Vec<String>>,
    /// What the plugin answered.
    pub response: ContainerAllocateResponse,
}

impl State {
    /// Takes up what the file has. Its resources have no devices before their plugins register again.
    pub(super) fn load(&self) -> Result<(), KubeletError> {
        let path = self.plugin_dir().join(CHECKPOINT);
        let failed = |source| KubeletError::File {
            path: path.clone(),
            source,
        };
        let file: Value = match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| failed(error.into()))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(failed(error)),
        };
        let entries = file["Data"]["PodDeviceEntries"].as_array();
        *self.entries() = entries.into_iter().flatten().map(entry).collect();
        let registered = file["Data"]["RegisteredDevices"].as_object();
        let names = registered
            .into_iter()
            .flat_map(|registered| registered.keys());
        self.node.send_modify(|node| {
            let fresh = |name: &String| (name.clone(), Resource::default());
            node.resources = names.map(fresh).collect();
        });
        Ok(())
    }

    /// Writes the file, as the kubelet does after each list and each allocation.
    pub(super) fn save(&self) -> Result<(), KubeletError> {
        let data = data(&self.entries(), &self.node.borrow());
        let checksum = fnv1a(data.to_string().as_bytes());
        let file = json!({ "Data": data, "Checksum": checksum }).to_string();
        let folder = self.plugin_dir();
        write(&folder, file.as_bytes()).map_err(|source| KubeletError::File {
            path: folder.join(CHECKPOINT),
            source,
        })
    }
}

/// Writes beside the file and renames.
fn write(folder: &Path, bytes: &[u8]) -> io::Result<()> {
    let beside = folder.join(format!(".{CHECKPOINT}"));
    fs::write(&beside, bytes)?;
    fs::rename(beside, folder.join(CHECKPOINT))
}

fn data(entries: &[Entry], node: &Node) -> Value {
    let healthy = |resource: &Resource| -> Vec<String> {
        let devices = resource.devices.iter();
        let healthy = devices.filter(|(_, device)| device.is_healthy);
        healthy.map(|(id, _)| id.clone()).collect()
    };
    let registered: BTreeMap<&String, Vec<String>> = node
        .resources
        .iter()
        .map(|(name, resource)| (name, healthy(resource)))
        .collect();
    let entries: Vec<Value> = entries.iter().map(to_json).collect();
    json!({ "PodDeviceEntries": entries, "RegisteredDevices": registered })
}

fn to_json(entry: &Entry) -> Value {
    json!({
        "PodUID": entry.pod_uid,
        "ContainerName": entry.container,
        "ResourceName": entry.resource,
        "DeviceIDs": entry.ids,
        "AllocResp": STANDARD.encode(entry.response.encode_to_vec()),
    })
}

fn entry(json: &Value) -> Entry {
    let text = |name: &str| json[name].as_str().unwrap_or_default().to_owned();
    let response = STANDARD.decode(text("AllocResp")).unwrap_or_default();
    Entry {
        pod_uid: text("PodUID"),
        container: text("ContainerName"),
        resource: text("ResourceName"),
        ids: serde_json::from_value(json["DeviceIDs"].clone()).unwrap_or_default(),
        response: ContainerAllocateResponse::decode(response.as_slice()).unwrap_or_default(),
    }
}

/// A number that changes with the contents; the kubelet's own is made of what its memory holds.
fn fnv1a(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, byte| {
        (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
    })
}
