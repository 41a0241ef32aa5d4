//! Gives devices to containers as the kubelet does.

use std::collections::{BTreeMap, BTreeSet};

use proto::deviceplugin::v1beta1::{
    AllocateRequest, ContainerAllocateRequest, ContainerAllocateResponse,
    ContainerPreferredAllocationRequest, PreStartContainerRequest, PreferredAllocationRequest,
};
use tonic::{Response, Status};

use super::plugin::Plugin;
use super::{Entry, KubeletError, State};

/// What a container was given.
#[derive(Clone, Debug, PartialEq)]
pub struct Given {
    /// The devices.
    pub ids: Vec<String>,
    /// What the plugin says they need.
    pub response: ContainerAllocateResponse,
}

impl State {
    pub(super) async fn allocate(
        &self,
        pod_uid: &str,
        container: &str,
        resource: &str,
        count: usize,
    ) -> Result<Given, KubeletError> {
        let _turn = self.turn.lock().await;
        self.forget_ended_pods();
        if let Some(given) = self.given_to(pod_uid, container, resource) {
            return Ok(given);
        }
        let plugin = self.plugins().get(resource);
        let mut plugin = plugin.ok_or_else(|| KubeletError::Unknown {
            resource: resource.to_owned(),
        })?;
        let refused = |status: Status| KubeletError::Refused {
            resource: resource.to_owned(),
            reason: status.message().to_owned(),
        };
        let free = self.free(resource, count)?;
        let ids = plugin.choose(&free, count).await.map_err(refused)?;
        let response = plugin.allocate(&ids).await.map_err(refused)?;
        self.note(pod_uid, container, resource, &ids, &response)?;
        Ok(Given { ids, response })
    }

    /// What pods had that have ended is free again.
    fn forget_ended_pods(&self) {
        let pods_dir = self.pods_dir();
        self.entries()
            .retain(|entry| pods_dir.join(&entry.pod_uid).is_dir());
    }

    fn given_to(&self, pod_uid: &str, container: &str, resource: &str) -> Option<Given> {
        let entries = self.entries();
        let known = entries.iter().find(|entry| {
            entry.pod_uid == pod_uid && entry.container == container && entry.resource == resource
        })?;
        Some(Given {
            ids: known.ids.values().flatten().cloned().collect(),
            response: known.response.clone(),
        })
    }

    /// The healthy devices that nobody has, if they are enough.
    fn free(&self, resource: &str, wanted: usize) -> Result<Vec<String>, KubeletError> {
        let taken: BTreeSet<String> = {
            let entries = self.entries();
            let own = entries.iter().filter(|entry| entry.resource == resource);
            own.flat_map(|entry| entry.ids.values().flatten().cloned())
                .collect()
        };
        let node = self.node.borrow();
        let devices = node.resources.get(resource).map(|found| &found.devices);
        let healthy = devices.into_iter().flatten();
        let free: Vec<String> = healthy
            .filter(|(id, device)| device.is_healthy && !taken.contains(*id))
            .map(|(id, _)| id.clone())
            .collect();
        if free.len() < wanted {
            return Err(KubeletError::Short {
                resource: resource.to_owned(),
                wanted,
                free: free.len(),
            });
        }
        Ok(free)
    }

    fn note(
        &self,
        pod_uid: &str,
        container: &str,
        resource: &str,
        ids: &[String],
        response: &ContainerAllocateResponse,
    ) -> Result<(), KubeletError> {
        let entry = Entry {
            pod_uid: pod_uid.to_owned(),
            container: container.to_owned(),
            resource: resource.to_owned(),
            ids: self.by_numa_node(resource, ids),
            response: response.clone(),
        };
        self.entries().push(entry);
        self.save()
    }

    fn by_numa_node(&self, resource: &str, ids: &[String]) -> BTreeMap<i64, Vec<String>> {
        let node = self.node.borrow();
        let mut by_node: BTreeMap<i64, Vec<String>> = BTreeMap::new();
        for id in ids {
            let found = node.resources.get(resource);
            let device = found.and_then(|found| found.devices.get(id));
            let first = device.and_then(|device| device.numa_nodes.first());
            let near = first.copied().unwrap_or(-1);
            by_node.entry(near).or_default().push(id.clone());
        }
        by_node
    }
}

impl Plugin {
    /// Chooses what the plugin would give first, and then any.
    async fn choose(&mut self, free: &[String], count: usize) -> Result<Vec<String>, Status> {
        let mut first = Vec::new();
        if self.options.get_preferred_allocation_available {
            first = self.preferred(free, count).await?;
        }
        let mut chosen: Vec<String> = Vec::new();
        for id in first.iter().chain(free) {
            if chosen.len() < count && free.contains(id) && !chosen.contains(id) {
                chosen.push(id.clone());
            }
        }
        Ok(chosen)
    }

    async fn preferred(&mut self, free: &[String], count: usize) -> Result<Vec<String>, Status> {
        let request = ContainerPreferredAllocationRequest {
            available_device_i_ds: free.to_vec(),
            must_include_device_i_ds: Vec::new(),
            allocation_size: i32::try_from(count).unwrap_or(i32::MAX),
        };
        let request = PreferredAllocationRequest {
            container_requests: vec![request],
        };
        let answer = self.client.get_preferred_allocation(request).await;
        let first = answer?.into_inner().container_responses.into_iter().next();
        Ok(first.map(|first| first.device_i_ds).unwrap_or_default())
    }

    async fn allocate(&mut self, ids: &[String]) -> Result<ContainerAllocateResponse, Status> {
        let wanted = ContainerAllocateRequest {
            devices_ids: ids.to_vec(),
        };
        let request = AllocateRequest {
            container_requests: vec![wanted],
        };
        let answer = self
            .client
            .allocate(request)
            .await
            .map(Response::into_inner);
        let first = answer?.container_responses.into_iter().next();
        let given = first.ok_or_else(|| Status::internal("the plugin's answer is empty"))?;
        if self.options.pre_start_required {
            let devices_ids = ids.to_vec();
            let request = PreStartContainerRequest { devices_ids };
            self.client.pre_start_container(request).await?;
        }
        Ok(given)
    }
}
