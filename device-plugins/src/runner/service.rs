//! The five calls (`v1beta1.DevicePlugin`).

use std::sync::Arc;
use std::time::Duration;

use futures::stream::BoxStream;
use proto::deviceplugin::v1beta1::device_plugin_server::DevicePlugin;
use proto::deviceplugin::v1beta1::{
    AllocateRequest, AllocateResponse, ContainerAllocateRequest, ContainerAllocateResponse,
    ContainerPreferredAllocationRequest, ContainerPreferredAllocationResponse, DevicePluginOptions,
    Empty, ListAndWatchResponse, PreStartContainerRequest, PreStartContainerResponse,
    PreferredAllocationRequest, PreferredAllocationResponse,
};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use super::list::DEVICES_MAX;
use super::preferred::preferred;
use super::streams::{Streams, lists};
use super::{AllocateError, Giver};
use crate::resource::ResourceName;
use crate::unit::Offer;

/// Most containers in one call. The kubelet asks for one at a time.
const CONTAINERS_MAX: usize = 64;
/// Time for making a container's devices ready: a look at the host and a few changes of owner.
const GIVE_LIMIT: Duration = Duration::from_secs(10);

/// Which optional calls the kubelet shall make.
pub(super) const OPTIONS: DevicePluginOptions = DevicePluginOptions {
    pre_start_required: false,
    get_preferred_allocation_available: true,
};

/// Answers the kubelet.
pub(super) struct Service {
    pub(super) resource: ResourceName,
    pub(super) offer: watch::Receiver<Arc<Offer>>,
    pub(super) giver: Arc<dyn Giver>,
    pub(super) streams: watch::Sender<Streams>,
    pub(super) stop: CancellationToken,
}

impl Service {
    async fn give(
        &self,
        wanted: ContainerAllocateRequest,
    ) -> Result<ContainerAllocateResponse, Status> {
        check_len("devices_ids", wanted.devices_ids.len(), DEVICES_MAX)?;
        let given = self.giver.give(&self.resource, wanted.devices_ids);
        match timeout(GIVE_LIMIT, given).await {
            Ok(given) => given.map_err(|error| status(&error)),
            Err(_) => Err(Status::deadline_exceeded(format!(
                "give devices of {}: the node agent was not done in {GIVE_LIMIT:?}; see its log",
                self.resource
            ))),
        }
    }
}

/// The answer to the kubelet, which shows its text in the pod's status.
fn status(error: &AllocateError) -> Status {
    let text = error.to_string();
    match error {
        AllocateError::Gone { .. } => Status::not_found(text),
        AllocateError::Refused { .. } => Status::failed_precondition(text),
        AllocateError::Ending => Status::unavailable(text),
    }
}

fn check_len(field: &str, len: usize, most: usize) -> Result<(), Status> {
    if len > most {
        let text = format!("{field}: {len} entries, and at most {most} are taken");
        return Err(Status::invalid_argument(text));
    }
    Ok(())
}

fn advise(
    offer: &Offer,
    wanted: &ContainerPreferredAllocationRequest,
) -> ContainerPreferredAllocationResponse {
    ContainerPreferredAllocationResponse {
        device_i_ds: preferred(
            offer,
            &wanted.available_device_i_ds,
            &wanted.must_include_device_i_ds,
            wanted.allocation_size,
        ),
    }
}

#[tonic::async_trait]
impl DevicePlugin for Service {
    type ListAndWatchStream = BoxStream<'static, Result<ListAndWatchResponse, Status>>;

    async fn get_device_plugin_options(
        &self,
        _request: Request<Empty>,
    ) -> Result<Response<DevicePluginOptions>, Status> {
        Ok(Response::new(OPTIONS))
    }

    async fn list_and_watch(
        &self,
        _request: Request<Empty>,
    ) -> Result<Response<Self::ListAndWatchStream>, Status> {
        let (offer, stop) = (self.offer.clone(), self.stop.clone());
        let lists = lists(offer, stop, self.streams.clone());
        Ok(Response::new(Box::pin(lists)))
    }

    async fn get_preferred_allocation(
        &self,
        request: Request<PreferredAllocationRequest>,
    ) -> Result<Response<PreferredAllocationResponse>, Status> {
        let wanted = request.into_inner().container_requests;
        check_len("container_requests", wanted.len(), CONTAINERS_MAX)?;
        let offer = Arc::clone(&self.offer.borrow());
        let advice = wanted.iter().map(|wanted| advise(&offer, wanted));
        Ok(Response::new(PreferredAllocationResponse {
            container_responses: advice.collect(),
        }))
    }

    async fn allocate(
        &self,
        request: Request<AllocateRequest>,
    ) -> Result<Response<AllocateResponse>, Status> {
        let wanted = request.into_inner().container_requests;
        check_len("container_requests", wanted.len(), CONTAINERS_MAX)?;
        let mut given = Vec::with_capacity(wanted.len());
        for wanted in wanted {
            given.push(self.give(wanted).await?);
        }
        Ok(Response::new(AllocateResponse {
            container_responses: given,
        }))
    }

    async fn pre_start_container(
        &self,
        _request: Request<PreStartContainerRequest>,
    ) -> Result<Response<PreStartContainerResponse>, Status> {
        Ok(Response::new(PreStartContainerResponse {}))
    }
}
