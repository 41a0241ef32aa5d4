use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use proto::deviceplugin::v1beta1::device_plugin_server::{DevicePlugin, DevicePluginServer};
use proto::deviceplugin::v1beta1::registration_client::RegistrationClient;
use proto::deviceplugin::v1beta1::{
    AllocateRequest, AllocateResponse, ContainerAllocateResponse, Device, DevicePluginOptions,
    DeviceSpec, Empty, ListAndWatchResponse, PreStartContainerRequest, PreStartContainerResponse,
    PreferredAllocationRequest, PreferredAllocationResponse, RegisterRequest,
};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::timeout;
use tokio_stream::wrappers::{ReceiverStream, UnixListenerStream};
use tokio_util::sync::CancellationToken;
use tonic::transport::{Endpoint, Server};
use tonic::{Request, Response, Status};

use super::plugins::PluginDevices;
use super::{DeviceError, DeviceSource};

const RESOURCE: &str = "example.com/thing";
const PATIENCE: Duration = Duration::from_secs(10);
/// How long devices that are not there are waited for.
const SHORT: Duration = Duration::from_millis(50);

/// A plugin with devices that can be changed.
struct Things {
    lists: tokio::sync::watch::Receiver<Vec<(&'static str, bool)>>,
}

#[tonic::async_trait]
impl DevicePlugin for Things {
    async fn get_device_plugin_options(
        &self,
        _: Request<Empty>,
    ) -> Result<Response<DevicePluginOptions>, Status> {
        Ok(Response::new(DevicePluginOptions::default()))
    }

    type ListAndWatchStream = ReceiverStream<Result<ListAndWatchResponse, Status>>;

    async fn list_and_watch(
        &self,
        _: Request<Empty>,
    ) -> Result<Response<Self::ListAndWatchStream>, Status> {
        let (send, receive) = tokio::sync::mpsc::channel(4);
        let mut lists = self.lists.clone();
        tokio::spawn(async move {
            loop {
                let devices = lists.borrow_and_update().clone();
                let devices = devices.into_iter().map(|(id, healthy)| Device {
                    id: id.to_owned(),
                    health: if healthy { "Healthy" } else { "Unhealthy" }.to_owned(),
                    topology: None,
                });
                let list = ListAndWatchResponse {
                    devices: devices.collect(),
                };
                if send.send(Ok(list)).await.is_err() || lists.changed().await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(receive)))
    }

    async fn get_preferred_allocation(
        &self,
        request: Request<PreferredAllocationRequest>,
    ) -> Result<Response<PreferredAllocationResponse>, Status> {
        let last = request
            .into_inner()
            .container_requests
            .remove(0)
            .available_device_i_ds
            .pop();
        let answer = proto::deviceplugin::v1beta1::ContainerPreferredAllocationResponse {
            device_i_ds: last.into_iter().collect(),
        };
        Ok(Response::new(PreferredAllocationResponse {
            container_responses: vec![answer],
        }))
    }

    async fn allocate(
        &self,
        request: Request<AllocateRequest>,
    ) -> Result<Response<AllocateResponse>, Status> {
        let ids = request
            .into_inner()
            .container_requests
            .remove(0)
            .devices_ids;
        let answer = ContainerAllocateResponse {
            envs: [("THINGS".to_owned(), ids.join(","))].into(),
            devices: vec![DeviceSpec {
                container_path: "/dev/thing".to_owned(),
                host_path: "/dev/null".to_owned(),
                permissions: "rw".to_owned(),
            }],
            ..ContainerAllocateResponse::default()
        };
        Ok(Response::new(AllocateResponse {
            container_responses: vec![answer],
        }))
    }

    async fn pre_start_container(
        &self,
        _: Request<PreStartContainerRequest>,
    ) -> Result<Response<PreStartContainerResponse>, Status> {
        Ok(Response::new(PreStartContainerResponse {}))
    }
}

struct Site {
    folder: tempfile::TempDir,
    devices: Arc<PluginDevices>,
    _stop: tokio_util::sync::DropGuard,
}

impl Site {
    async fn new() -> Self {
        Self::at(tempfile::tempdir().unwrap()).await
    }

    async fn at(folder: tempfile::TempDir) -> Self {
        Self::with(folder, SHORT).await
    }

    async fn with(folder: tempfile::TempDir, patience: Duration) -> Self {
        let devices = PluginDevices::new(folder.path(), patience).unwrap();
        let stop = CancellationToken::new();
        let serving = Arc::clone(&devices).serve(stop.clone());
        tokio::spawn(async move { serving.await.unwrap() });
        let socket = folder.path().join("device-plugins/kubelet.sock");
        timeout(PATIENCE, async {
            while UnixStream::connect(&socket).await.is_err() {
                tokio::task::yield_now().await;
            }
        })
        .await
        .unwrap();
        Self {
            folder,
            devices,
            _stop: stop.drop_guard(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join("device-plugins").join(name)
    }

    /// Serves a plugin until the lists' sender is gone.
    fn serve(&self, lists: &tokio::sync::watch::Sender<Vec<(&'static str, bool)>>) {
        let listener = UnixListener::bind(self.path("thing.sock")).unwrap();
        let plugin = DevicePluginServer::new(Things {
            lists: lists.subscribe(),
        });
        let server = Server::builder().add_service(plugin);
        tokio::spawn(server.serve_with_incoming(UnixListenerStream::new(listener)));
    }

    async fn register(&self, request: RegisterRequest) -> Result<(), Status> {
        let socket = self.path("kubelet.sock");
        let connector = tower::service_fn(move |_| {
            let socket = socket.clone();
            async move { UnixStream::connect(socket).await.map(TokioIo::new) }
        });
        let channel =
            Endpoint::from_static("http://kubelet").connect_with_connector_lazy(connector);
        RegistrationClient::new(channel)
            .register(request)
            .await
            .map(|_| ())
    }

    async fn wait_for(&self, capacity: u64, allocatable: u64) {
        let mut counts = self.devices.counts();
        let is_so = |counts: &BTreeMap<String, super::Counts>| {
            counts.get(RESOURCE).is_some_and(|counts| {
                (counts.capacity, counts.allocatable) == (capacity, allocatable)
            })
        };
        timeout(PATIENCE, counts.wait_for(is_so))
            .await
            .unwrap()
            .unwrap();
    }

    async fn allocate(&self, pod: &str, count: u64) -> Result<super::Allocation, DeviceError> {
        self.devices
            .allocate(pod, "main", &BTreeMap::from([(RESOURCE.to_owned(), count)]))
            .await
    }
}

fn request() -> RegisterRequest {
    let options = DevicePluginOptions {
        pre_start_required: true,
        get_preferred_allocation_available: true,
    };
    RegisterRequest {
        version: "v1beta1".to_owned(),
        endpoint: "thing.sock".to_owned(),
        resource_name: RESOURCE.to_owned(),
        options: Some(options),
    }
}

fn things(allocation: &super::Allocation) -> &str {
    &allocation.env[0].1
}

#[tokio::test]
async fn devices_of_plugins_are_given_once_and_taken_back() {
    let site = Site::new().await;
    let (lists, _) = tokio::sync::watch::channel(vec![("a", true), ("b", true), ("c", false)]);
    site.serve(&lists);
    site.register(request()).await.unwrap();
    site.wait_for(3, 2).await;
    let first = site.allocate("p1", 1).await.unwrap();
    assert_eq!(things(&first), "b");
    assert_eq!(first.devices[0].target, "/dev/thing");
    assert_eq!(
        things(&site.allocate("p1", 1).await.unwrap()),
        "b",
        "asked again for the same container"
    );
    assert_eq!(things(&site.allocate("p2", 1).await.unwrap()), "a");
    let short = site.allocate("p3", 1).await.unwrap_err();
    assert!(
        short.to_string().contains("requested 1, available 0"),
        "{short}"
    );
    site.devices.release("p1");
    assert_eq!(things(&site.allocate("p3", 1).await.unwrap()), "b");
    lists.send_replace(vec![("a", true), ("b", true), ("c", true)]);
    site.wait_for(3, 3).await;
}

#[tokio::test]
async fn what_was_given_is_known_after_a_restart() {
    let site = Site::new().await;
    let (lists, _) = tokio::sync::watch::channel(vec![("a", true), ("b", true)]);
    site.serve(&lists);
    site.register(request()).await.unwrap();
    site.wait_for(2, 2).await;
    let first = site.allocate("p1", 1).await.unwrap();
    site.allocate("p2", 1).await.unwrap();
    let again = Site::at(site.folder).await;
    assert_eq!(
        again.allocate("p1", 1).await.unwrap(),
        first,
        "before any plugin is back"
    );
    again.devices.release("p2");
    let noted = std::fs::read_to_string(again.path("kubelet_internal_checkpoint")).unwrap();
    assert!(
        noted.contains("\"p1\"") && !noted.contains("\"p2\""),
        "{noted}"
    );
}

#[tokio::test]
async fn pods_wait_for_plugins_and_for_those_that_had_the_devices() {
    let site = Site::with(tempfile::tempdir().unwrap(), PATIENCE).await;
    let (lists, _) = tokio::sync::watch::channel(vec![("a", true)]);
    site.serve(&lists);
    let registered = async {
        tokio::task::yield_now().await;
        site.register(request()).await.unwrap();
    };
    let (first, ()) = tokio::join!(site.allocate("p1", 1), registered);
    assert_eq!(things(&first.unwrap()), "a");
    let released = async {
        tokio::task::yield_now().await;
        site.devices.release("p1");
    };
    let (second, ()) = tokio::join!(site.allocate("p2", 1), released);
    assert_eq!(things(&second.unwrap()), "a");
}

#[tokio::test]
async fn wrong_registrations_are_refused() {
    let site = Site::new().await;
    let odd = [
        RegisterRequest {
            version: "v1".to_owned(),
            ..request()
        },
        RegisterRequest {
            endpoint: "../x.sock".to_owned(),
            ..request()
        },
        RegisterRequest {
            endpoint: String::new(),
            ..request()
        },
        RegisterRequest {
            resource_name: "memory".to_owned(),
            ..request()
        },
    ];
    for odd in odd {
        let refused = site.register(odd.clone()).await.unwrap_err();
        assert_eq!(refused.code(), tonic::Code::InvalidArgument, "{odd:?}");
    }
}

#[tokio::test]
async fn a_plugin_that_is_gone_offers_nothing() {
    let site = Site::new().await;
    let (lists, _) = tokio::sync::watch::channel(vec![("a", true)]);
    site.serve(&lists);
    site.register(request()).await.unwrap();
    site.wait_for(1, 1).await;
    drop(lists);
    site.wait_for(1, 0).await;
    assert!(matches!(
        site.allocate("p", 1).await,
        Err(DeviceError::Refused { .. })
    ));
}

#[tokio::test]
async fn without_a_plugin_there_are_no_devices() {
    let site = Site::new().await;
    let unknown = site.allocate("p", 1).await.unwrap_err();
    assert!(matches!(unknown, DeviceError::Unknown { .. }), "{unknown}");
}
