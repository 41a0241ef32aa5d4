//! What was given to whom, in the file and format of the kubelet's (`kubelet_internal_checkpoint`), from which device
//! plugins learn what is in use.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Serialize};

use crate::sandbox::record;

/// Name of the file in the folder of device plugins.
pub(super) const NAME: &str = "kubelet_internal_checkpoint";
/// The NUMA node under which the kubelet lists devices whose plugin names none.
const NO_NUMA_NODE: &str = "-1";

/// Devices that a container has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Given {
    pub(super) pod: String,
    pub(super) container: String,
    pub(super) resource: String,
    pub(super) ids: Vec<String>,
    /// The plugin's answer, a `ContainerAllocateResponse` as it is on the wire.
    pub(super) answer: Vec<u8>,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Checkpoint {
    data: Data,
    /// The kubelet's is over the way in which Go prints the data; there is none here.
    checksum: u64,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Data {
    pod_device_entries: Option<Vec<Entry>>,
    registered_devices: Option<BTreeMap<String, Vec<String>>>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    #[serde(rename = "PodUID")]
    pod_uid: String,
    container_name: String,
    resource_name: String,
    #[serde(rename = "DeviceIDs")]
    device_ids: BTreeMap<String, Vec<String>>,
    alloc_resp: String,
}

/// Writes what was given, and which healthy devices there are by resource. Blocks shortly.
pub(super) fn write(
    folder: &Path,
    given: &[Given],
    registered: BTreeMap<String, Vec<String>>,
) -> io::Result<()> {
    let entries = given.iter().map(Entry::from).collect();
    let data = Data {
        pod_device_entries: Some(entries),
        registered_devices: Some(registered),
    };
    let checkpoint = Checkpoint { data, checksum: 0 };
    record::write(folder, NAME, &checkpoint)
}

/// Reads what was given before this program started. Blocks shortly.
pub(super) fn read(folder: &Path) -> io::Result<Vec<Given>> {
    let checkpoint: Checkpoint = record::read(folder, NAME)?.unwrap_or_default();
    let entries = checkpoint.data.pod_device_entries.unwrap_or_default();
    entries.into_iter().map(Given::try_from).collect()
}

impl From<&Given> for Entry {
    fn from(given: &Given) -> Self {
        Self {
            pod_uid: given.pod.clone(),
            container_name: given.container.clone(),
            resource_name: given.resource.clone(),
            device_ids: BTreeMap::from([(NO_NUMA_NODE.to_owned(), given.ids.clone())]),
            alloc_resp: BASE64.encode(&given.answer),
        }
    }
}

impl TryFrom<Entry> for Given {
    type Error = io::Error;

    fn try_from(entry: Entry) -> io::Result<Self> {
        let wrong = |error| io::Error::new(io::ErrorKind::InvalidData, error);
        Ok(Self {
            pod: entry.pod_uid,
            container: entry.container_name,
            resource: entry.resource_name,
            ids: entry.device_ids.into_values().flatten().collect(),
            answer: BASE64.decode(entry.alloc_resp).map_err(wrong)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::{Value, json};

    use super::{Given, NAME, read, write};

    fn given() -> Given {
        let [pod, container, resource] = ["p", "c", "x/y"].map(str::to_owned);
        Given {
            pod,
            container,
            resource,
            ids: vec!["a".to_owned(), "b".to_owned()],
            answer: b"answer".to_vec(),
        }
    }

    #[test]
    fn the_file_is_what_the_kubelet_writes() {
        let folder = tempfile::tempdir().unwrap();
        let registered = BTreeMap::from([("x/y".to_owned(), vec!["a".to_owned()])]);
        write(folder.path(), &[given()], registered).unwrap();
        let text = std::fs::read(folder.path().join(NAME)).unwrap();
        let value: Value = serde_json::from_slice(&text).unwrap();
        assert_eq!(
            value["Data"],
            json!({
                "PodDeviceEntries": [{
                    "PodUID": "p", "ContainerName": "c", "ResourceName": "x/y",
                    "DeviceIDs": {"-1": ["a", "b"]}, "AllocResp": "YW5zd2Vy",
                }],
                "RegisteredDevices": {"x/y": ["a"]},
            })
        );
        assert_eq!(read(folder.path()).unwrap(), [given()]);
    }

    #[test]
    fn a_kubelets_own_file_is_read() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(read(folder.path()).unwrap(), []);
        let empty = r#"{"Data":{"PodDeviceEntries":null,"RegisteredDevices":{}},"Checksum":3}"#;
        std::fs::write(folder.path().join(NAME), empty).unwrap();
        assert_eq!(read(folder.path()).unwrap(), []);
        std::fs::write(folder.path().join(NAME), "{").unwrap();
        assert!(read(folder.path()).is_err());
    }
}
