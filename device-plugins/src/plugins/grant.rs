//! The kubelet's requests for devices, and the answers.

use std::collections::{HashMap, HashSet};

use futures::FutureExt;
use futures::future::BoxFuture;
use proto::deviceplugin::v1beta1::{ContainerAllocateResponse, DeviceSpec};
use tokio::sync::{mpsc, oneshot};

use crate::resource::ResourceName;
use crate::runner::{AllocateError, Giver};
use crate::unit::{Health, Offer, Unit};

use super::plan::{self, Held};

/// Most requests that wait; further ones wait with their senders.
pub(crate) const REQUESTS_MAX: usize = 64;

/// How a request is answered.
pub(crate) type Answer = Result<ContainerAllocateResponse, AllocateError>;

/// A container needs units of a resource.
#[derive(Debug)]
pub(crate) struct Request {
    /// The resource.
    pub(crate) resource: ResourceName,
    /// The units.
    pub(crate) ids: Vec<String>,
    /// Where the answer goes.
    pub(crate) answer: oneshot::Sender<Answer>,
    /// The number of the look that it waits for, or has waited for: then what is missing is gone.
    pub(crate) after: Option<u64>,
}

/// Takes the plugins' requests to the task that owns the devices.
#[derive(Clone, Debug)]
pub(crate) struct Desk(pub(crate) mpsc::Sender<Request>);

impl Giver for Desk {
    fn give(&self, resource: &ResourceName, ids: Vec<String>) -> BoxFuture<'static, Answer> {
        let (answer, answered) = oneshot::channel();
        let request = Request {
            resource: resource.clone(),
            ids,
            answer,
            after: None,
        };
        let requests = self.0.clone();
        async move {
            let sent = requests.send(request).await;
            sent.map_err(|_ended| AllocateError::Ending)?;
            answered.await.map_err(|_ended| AllocateError::Ending)?
        }
        .boxed()
    }
}

/// Finds the units that are asked for, and sees to it that they can be given.
pub(crate) fn choose(
    resource: &ResourceName,
    ids: &[String],
    offer: Option<&Offer>,
    held: &[Held],
) -> Result<Vec<(String, Unit)>, AllocateError> {
    let holders: HashMap<&str, &Held> = held
        .iter()
        .flat_map(|one| one.parts.iter().map(move |part| (part.as_str(), one)))
        .collect();
    let mut seen = HashSet::new();
    let ids = ids.iter().filter(|id| seen.insert(id.as_str()));
    let chosen = ids.map(|id| Ok((id.clone(), find(resource, id, offer, &holders)?)));
    chosen.collect()
}

fn find(
    resource: &ResourceName,
    id: &str,
    offer: Option<&Offer>,
    holders: &HashMap<&str, &Held>,
) -> Result<Unit, AllocateError> {
    let gone = |reason: &str| AllocateError::Gone {
        resource: resource.clone(),
        id: id.to_owned(),
        reason: reason.to_owned(),
    };
    let offer = offer.ok_or_else(|| gone("the resource is no longer offered on this node"))?;
    let unit = offer.units.iter().find(|unit| unit.is_named(id));
    let unit = unit.ok_or_else(|| gone(&why_absent(offer, id)))?;
    if let Health::Unhealthy(reason) = &unit.health {
        return Err(gone(reason));
    }
    let elsewhere = unit.parts.iter().find_map(|part| {
        let one = holders.get(part.as_str())?;
        (one.resource != *resource || one.id != id).then_some(one)
    });
    match elsewhere {
        None => Ok(unit.clone()),
        Some(one) => Err(AllocateError::Refused {
            resource: resource.clone(),
            id: id.to_owned(),
            reason: format!(
                "{} has its device as {} of {}",
                plan::holders(&one.holders),
                one.id,
                one.resource
            ),
        }),
    }
}

fn why_absent(offer: &Offer, id: &str) -> String {
    let left_out = offer.left_out.iter().find(|left| left.device == id);
    match left_out {
        Some(left) => left.reason.clone(),
        None => "no such device is there any more, or a container has it under another resource (virt-handler devices shows which)".to_owned(),
    }
}

/// What the kubelet is told to give the container. The addresses of a unit follow each other, unit after unit: that is how
/// launchers tell units of several devices apart.
pub(crate) fn response(offer: &Offer, units: &[(String, Unit)]) -> ContainerAllocateResponse {
    let mut response = ContainerAllocateResponse::default();
    let mut seen = HashSet::new();
    let nodes = units.iter().flat_map(|(_, unit)| &unit.nodes);
    for node in nodes.filter(|node| seen.insert(&node.path)) {
        let path = node.path.to_string_lossy().into_owned();
        response.devices.push(DeviceSpec {
            container_path: path.clone(),
            host_path: path,
            permissions: node.permissions.clone(),
        });
    }
    if let Some(prefix) = offer.variable {
        let addresses = units.iter().flat_map(|(_, unit)| &unit.addresses);
        let addresses: Vec<&str> = addresses.map(String::as_str).collect();
        let variable = offer.resource.variable(prefix.as_str());
        response.envs.insert(variable, addresses.join(","));
    }
    response
}

#[cfg(test)]
mod tests;
