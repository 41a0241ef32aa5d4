//! What a node has of its plugins' resources.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Instant;

use prost::Message;
use proto::deviceplugin::v1beta1::ListAndWatchResponse;

/// The resources of a node by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// The resources.
    pub resources: BTreeMap<String, Resource>,
}

/// What a node has of a resource.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resource {
    /// The devices by name.
    pub devices: BTreeMap<String, Device>,
    /// Whether a plugin's stream is open and has told of them.
    pub is_connected: bool,
    /// How often a plugin has registered.
    pub registrations: u64,
    /// When it did last.
    pub registered_at: Option<Instant>,
    /// How many lists came.
    pub lists: u64,
    /// Bytes of the last list.
    pub list_len_bytes: usize,
}

/// A device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Device {
    /// Whether it can be given.
    pub is_healthy: bool,
    /// The NUMA nodes that it is near to.
    pub numa_nodes: Vec<i64>,
}

/// How many devices there are of a resource.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// All.
    pub capacity: usize,
    /// Those that are healthy.
    pub allocatable: usize,
}

impl Node {
    /// How many devices there are of a resource.
    #[must_use]
    pub fn counts(&self, resource: &str) -> Counts {
        let found = self.resources.get(resource);
        found.map(Resource::counts).unwrap_or_default()
    }

    /// Notes a registration.
    pub(super) fn register(&mut self, resource: &str) {
        let resource = self.resources.entry(resource.to_owned()).or_default();
        resource.registrations += 1;
        resource.registered_at = Some(Instant::now());
    }

    /// Notes a plugin's list.
    pub(super) fn list(&mut self, resource: &str, list: ListAndWatchResponse) {
        let resource = self.resources.entry(resource.to_owned()).or_default();
        resource.is_connected = true;
        resource.lists += 1;
        resource.list_len_bytes = list.encoded_len();
        let device = |device: proto::deviceplugin::v1beta1::Device| {
            let nodes = device.topology.unwrap_or_default().nodes;
            let known = Device {
                is_healthy: device.health == "Healthy",
                numa_nodes: nodes.into_iter().map(|node| node.id).collect(),
            };
            (device.id, known)
        };
        resource.devices = list.devices.into_iter().map(device).collect();
    }

    /// Notes that a plugin's stream has ended: none of its devices can be given.
    pub(super) fn lose(&mut self, resource: &str) {
        if let Some(resource) = self.resources.get_mut(resource) {
            resource.lose();
        }
    }

    /// Notes that all streams have ended.
    pub(super) fn disconnect(&mut self) {
        self.resources.values_mut().for_each(Resource::lose);
    }
}

impl Resource {
    /// How many devices there are.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let healthy = self.devices.values().filter(|device| device.is_healthy);
        Counts {
            capacity: self.devices.len(),
            allocatable: healthy.count(),
        }
    }

    fn lose(&mut self) {
        self.is_connected = false;
        for device in self.devices.values_mut() {
            device.is_healthy = false;
        }
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (capacity, allocatable) = (self.capacity, self.allocatable);
        write!(to, "{allocatable} of {capacity} devices healthy")
    }
}

impl fmt::Display for Node {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.resources.is_empty() {
            return to.write_str("no resources");
        }
        for (name, resource) in &self.resources {
            let (counts, lists) = (resource.counts(), resource.lists);
            let registrations = resource.registrations;
            write!(
                to,
                "[{name}: {counts}, {registrations} registrations, {lists} lists]"
            )?;
        }
        Ok(())
    }
}
