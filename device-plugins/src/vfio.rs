//! Device nodes of VFIO: one for all, one per IOMMU group, and one per device where the kernel has those.

use std::path::{Path, PathBuf};

use crate::source::Host;
use crate::sysfs;
use crate::unit::{Health, Node};

/// The node through which groups are put together to a container's address space.
const CONTAINER: &str = "/dev/vfio/vfio";

/// Whether a driver hands its devices to VFIO: `vfio-pci`, and the ones made for a vendor's cards, such as `mlx5_vfio_pci`.
/// Where the kernel tells (since 6.1), any driver whose device is registered there.
pub(crate) fn has(folder: &Path, driver: Option<&str>) -> bool {
    driver.is_some_and(is_driver) || !sysfs::entries(&folder.join("vfio-dev")).is_empty()
}

fn is_driver(name: &str) -> bool {
    let name = name.replace('_', "-");
    name.starts_with("vfio-") || name.ends_with("-vfio-pci")
}

/// The device's own nodes that are there: `/dev/vfio/devices/vfio3`.
pub(crate) fn device_nodes(host: &Host, folder: &Path) -> Vec<PathBuf> {
    sysfs::entries(&folder.join("vfio-dev"))
        .iter()
        .filter_map(|entry| Some(Path::new("/dev/vfio/devices").join(entry.file_name()?)))
        .filter(|path| host.node(path).exists())
        .collect()
}

/// Why a group cannot be opened for want of a node, if it cannot.
pub(crate) fn health(host: &Host, group: u32) -> Health {
    let group = group_node(group);
    if !host.node(Path::new(CONTAINER)).exists() {
        return Health::Unhealthy(format!("there is no {CONTAINER}: modprobe vfio"));
    }
    if !host.node(&group).exists() {
        let group = group.display();
        return Health::Unhealthy(format!(
            "there is no {group} although its devices are bound: see whether the kernel has CONFIG_VFIO_GROUP and whether /dev is the host's"
        ));
    }
    Health::Healthy
}

/// Whether the kernel made the group's node as one without protection.
pub(crate) fn is_unprotected(host: &Host, group: u32) -> bool {
    let node = format!("/dev/vfio/noiommu-{group}");
    host.node(Path::new(&node)).exists()
}

/// What a container needs for devices of a group.
pub(crate) fn nodes(group: u32, device_nodes: impl IntoIterator<Item = PathBuf>) -> Vec<Node> {
    let mut nodes = vec![node(CONTAINER.into(), false), node(group_node(group), true)];
    nodes.extend(device_nodes.into_iter().map(|path| node(path, true)));
    nodes
}

fn node(path: PathBuf, is_owned: bool) -> Node {
    Node {
        path,
        permissions: "rwm".to_owned(),
        is_owned,
    }
}

fn group_node(group: u32) -> PathBuf {
    PathBuf::from(format!("/dev/vfio/{group}"))
}

#[cfg(test)]
mod tests {
    use super::is_driver;

    #[test]
    fn drivers_of_vfio_are_known_by_their_names() {
        for name in [
            "vfio-pci",
            "mlx5_vfio_pci",
            "hisi-acc-vfio-pci",
            "vfio-platform",
        ] {
            assert!(is_driver(name), "{name}");
        }
        for name in ["iavf", "pci-stub", "vfio", "uio_pci_generic", ""] {
            assert!(!is_driver(name), "{name}");
        }
    }
}
