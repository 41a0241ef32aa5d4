//! Which containers have which units, from the kubelet's own record (`kubelet_internal_checkpoint`).
//!
//! The kubelet writes the file anew and renames it whenever it has given a container devices. What a pod had stays in it
//! until the kubelet next gives something away, so an entry counts only as long as the kubelet has a folder for its pod.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use serde::Deserialize;

use crate::report::Holder;
use crate::resource::ResourceName;
use crate::source::Host;

use super::record;

/// Name of the file in the kubelet's folder of device plugins.
pub(crate) const FILE_NAME: &str = "kubelet_internal_checkpoint";
/// Most bytes that are read: a thousand containers with a dozen devices each come to three million.
const LEN_MAX: u64 = 16 << 20;
/// Most units in use that are kept.
const IN_USE_MAX: usize = 65_536;
/// Most bytes of a pod's uid, a container's name or an identifier.
const NAME_LEN_MAX: usize = 253;

/// A unit that a container has.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct InUse {
    /// The resource.
    pub(crate) resource: ResourceName,
    /// The unit, or one of its copies.
    pub(crate) id: String,
    /// Who has it.
    pub(crate) holder: Holder,
}

#[derive(Deserialize)]
struct Checkpoint {
    #[serde(rename = "Data")]
    data: Data,
}

#[derive(Deserialize)]
struct Data {
    #[serde(rename = "PodDeviceEntries")]
    entries: Option<Vec<Entry>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    #[serde(rename = "PodUID")]
    pod_uid: String,
    container_name: String,
    resource_name: String,
    #[serde(rename = "DeviceIDs")]
    device_ids: Option<DeviceIds>,
}

/// The identifiers: by NUMA node, or (until Kubernetes 1.19) as a list.
#[derive(Deserialize)]
#[serde(untagged)]
enum DeviceIds {
    ByNode(BTreeMap<String, Option<Vec<String>>>),
    Plain(Vec<String>),
}

impl DeviceIds {
    fn into_list(self) -> Vec<String> {
        match self {
            Self::ByNode(nodes) => nodes.into_values().flatten().flatten().collect(),
            Self::Plain(ids) => ids,
        }
    }
}

/// Reads what is in use, in order; none where the kubelet has no record yet. Blocks.
///
/// # Errors
///
/// Fails where the record cannot be read or makes no sense.
pub(crate) fn read(host: &Host) -> io::Result<Option<Vec<InUse>>> {
    match record::bytes(&host.plugin_dir.join(FILE_NAME), LEN_MAX) {
        Ok(bytes) => {
            let mut in_use = parse(&bytes)?;
            retain_pods(&mut in_use, &host.pods_dir);
            Ok(Some(in_use))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Reads the kubelet's record. Entries whose names no kubelet writes are left out.
pub(crate) fn parse(bytes: &[u8]) -> serde_json::Result<Vec<InUse>> {
    let checkpoint: Checkpoint = serde_json::from_slice(bytes)?;
    let entries = checkpoint.data.entries.unwrap_or_default();
    let mut in_use: Vec<InUse> = entries
        .into_iter()
        .flat_map(units)
        .take(IN_USE_MAX)
        .collect();
    in_use.sort();
    in_use.dedup();
    Ok(in_use)
}

fn units(entry: Entry) -> impl Iterator<Item = InUse> {
    let resource = ResourceName::new(&entry.resource_name).ok();
    let is_known = is_uid(&entry.pod_uid) && is_short(&entry.container_name);
    let resource = resource.filter(|_| is_known);
    let holder = Holder {
        pod_uid: entry.pod_uid,
        container: entry.container_name,
    };
    let ids = entry.device_ids.map(DeviceIds::into_list);
    let ids = ids.unwrap_or_default().into_iter();
    ids.filter(|id| is_short(id)).filter_map(move |id| {
        Some(InUse {
            resource: resource.clone()?,
            id,
            holder: holder.clone(),
        })
    })
}

fn is_short(text: &str) -> bool {
    !text.is_empty() && text.len() <= NAME_LEN_MAX
}

/// Whether a text can be a pod's uid, and so the name of a folder and no path.
fn is_uid(text: &str) -> bool {
    let is_fit = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    is_short(text) && text.bytes().all(is_fit)
}

/// Whether the kubelet still has a pod: it has a folder for it. Where it has no folder for pods at all, nothing can be
/// told, and the pod is taken to exist. Blocks.
pub(crate) fn is_pod_there(pods_dir: &Path, pod_uid: &str) -> bool {
    is_uid(pod_uid) && (pods_dir.join(pod_uid).exists() || !pods_dir.exists())
}

fn retain_pods(in_use: &mut Vec<InUse>, pods_dir: &Path) {
    let mut known: BTreeMap<String, bool> = BTreeMap::new();
    in_use.retain(|one| {
        let pod_uid = &one.holder.pod_uid;
        if let Some(is_there) = known.get(pod_uid) {
            return *is_there;
        }
        let is_there = is_pod_there(pods_dir, pod_uid);
        known.insert(pod_uid.clone(), is_there);
        is_there
    });
}

#[cfg(test)]
mod tests;
