//! The kubelet's side of the device plugin API (`k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1`).
//!
//! Plugins register at `device-plugins/kubelet.sock` in the kubelet's folder, and serve on sockets of their own there.
//! That the folder is emptied when this starts tells them to register again. What was given to whom is in a file, since
//! containers outlive this program, and so is the plugin's answer: a container that is started again has the same devices.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use hyper_util::rt::TokioIo;
use prost::Message;
use proto::deviceplugin::v1beta1::device_plugin_client::DevicePluginClient;
use proto::deviceplugin::v1beta1::registration_server::{Registration, RegistrationServer};
use proto::deviceplugin::v1beta1::{
    AllocateRequest, ContainerAllocateRequest, ContainerAllocateResponse,
    ContainerPreferredAllocationRequest, DevicePluginOptions, Empty, PreStartContainerRequest,
    PreferredAllocationRequest, RegisterRequest,
};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Mutex as AsyncMutex, MutexGuard as AsyncMutexGuard, watch};
use tokio::time::timeout;
use tokio_stream::wrappers::UnixListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Request, Response, Status};
use tower::service_fn;

use super::checkpoint::{self, Given};
use super::registry::{Counts, Registry, Shortage, choose};
use super::{Allocation, DeviceError, DeviceSource};
use crate::sandbox::beneath;
use crate::sandbox::spec::{Device, Mount};

/// The version that is spoken.
const VERSION: &str = "v1beta1";
/// Name of the socket at which plugins register.
const SOCKET: &str = "kubelet.sock";
/// Name of the folder of device plugins in the kubelet's.
const FOLDER: &str = "device-plugins";
/// Time for a plugin's answer.
const ANSWER: Duration = Duration::from_secs(10);
/// Most plugins at the same time; each holds a connection.
const PLUGINS_MAX: usize = 256;

/// Why plugins cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum PluginError {
    /// The folder cannot be made ready.
    #[error("make {} ready for device plugins", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The socket's server failed.
    #[error("serve device plugins")]
    Serve(#[source] tonic::transport::Error),
}

/// A plugin that is registered.
#[derive(Clone)]
struct Plugin {
    client: DevicePluginClient<Channel>,
    options: DevicePluginOptions,
    registration: u64,
}

/// Devices of plugins.
pub struct PluginDevices {
    folder: PathBuf,
    patience: Duration,
    counts: watch::Sender<BTreeMap<String, Counts>>,
    /// Changes whenever devices may have become free.
    changes: watch::Sender<()>,
    /// One allocation at a time, from the choice to the note.
    turn: AsyncMutex<()>,
    // Neither is held across an await, nor while the other is.
    registry: Mutex<Registry>,
    plugins: Mutex<HashMap<String, Plugin>>,
}

impl PluginDevices {
    /// Time for devices that a pod was placed here for: their plugin may be about to register, or the pod that had them to
    /// end.
    pub const PATIENCE: Duration = Duration::from_secs(10);

    /// Takes up what was given before, in the kubelet's folder. Devices that are not free are waited for as long as
    /// `patience`. Blocks shortly.
    ///
    /// # Errors
    ///
    /// Fails when the folder cannot be made or its notes cannot be read.
    pub fn new(kubelet_dir: &Path, patience: Duration) -> Result<Arc<Self>, PluginError> {
        let folder = kubelet_dir.join(FOLDER);
        let given = fs::create_dir_all(&folder).and_then(|()| checkpoint::read(&folder));
        let given = given.map_err(|source| PluginError::Folder {
            path: folder.clone(),
            source,
        })?;
        Ok(Arc::new(Self {
            folder,
            patience,
            counts: watch::Sender::default(),
            changes: watch::Sender::default(),
            turn: AsyncMutex::default(),
            registry: Mutex::new(Registry::with(given)),
            plugins: Mutex::default(),
        }))
    }

    /// How many devices there are of each resource, for the node's status.
    #[must_use]
    pub fn counts(&self) -> watch::Receiver<BTreeMap<String, Counts>> {
        self.counts.subscribe()
    }

    /// Lets plugins register until stopped.
    ///
    /// # Errors
    ///
    /// Fails when the socket cannot be made.
    pub async fn serve(self: Arc<Self>, stop: CancellationToken) -> Result<(), PluginError> {
        let bound = bind(&self.folder).map_err(|source| PluginError::Folder {
            path: self.folder.clone(),
            source,
        });
        let stopped = stop.clone().cancelled_owned();
        let desk = Desk {
            devices: self,
            stop,
            count: Mutex::new(0),
        };
        let server = Server::builder().add_service(RegistrationServer::new(desk));
        let served = server.serve_with_incoming_shutdown(UnixListenerStream::new(bound?), stopped);
        served.await.map_err(PluginError::Serve)
    }

    fn registry(&self) -> MutexGuard<'_, Registry> {
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn plugins(&self) -> MutexGuard<'_, HashMap<String, Plugin>> {
        self.plugins.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell_counts(&self) {
        let counts = self.registry().counts();
        self.counts.send_if_modified(|told| {
            let is_news = *told != counts;
            *told = counts;
            is_news
        });
        self.changes.send_replace(());
    }

    /// Follows what a plugin offers until it is gone or replaced.
    async fn follow(&self, resource: &str, plugin: Plugin) {
        let mut client = plugin.client.clone();
        if let Err(status) = self
            .listen(resource, &mut client, plugin.registration)
            .await
        {
            tracing::warn!(resource, %status, "lost a device plugin");
        }
        self.registry().withdraw(resource, plugin.registration);
        self.tell_counts();
    }

    async fn listen(
        &self,
        resource: &str,
        client: &mut DevicePluginClient<Channel>,
        registration: u64,
    ) -> Result<(), Status> {
        let mut lists = client.list_and_watch(Empty {}).await?.into_inner();
        while let Some(list) = lists.message().await? {
            let devices = list
                .devices
                .into_iter()
                .map(|device| (device.id, device.health == "Healthy"));
            if !self.registry().offer(resource, registration, devices) {
                return Ok(());
            }
            self.tell_counts();
        }
        Ok(())
    }

    async fn allocate_all(
        &self,
        pod: &str,
        container: &str,
        wanted: &BTreeMap<String, u64>,
    ) -> Result<Allocation, DeviceError> {
        let mut all = Allocation::default();
        for (resource, count) in wanted {
            let one = self.allocate_one(pod, container, resource, *count).await?;
            all.devices.extend(one.devices);
            all.mounts.extend(one.mounts);
            all.env.extend(one.env);
        }
        Ok(all)
    }

    async fn allocate_one(
        &self,
        pod: &str,
        container: &str,
        resource: &str,
        count: u64,
    ) -> Result<Allocation, DeviceError> {
        let refused = |reason: String| DeviceError::Refused {
            resource: resource.to_owned(),
            reason,
        };
        let unknown = || DeviceError::Unknown {
            resource: resource.to_owned(),
        };
        if let Some(known) = self.registry().given_to(pod, container, resource) {
            return noted(&known).map_err(refused);
        }
        let turn = self.turn_with(resource, count).await;
        let plugin = self.plugins().get(resource).cloned();
        let mut plugin = plugin.ok_or_else(unknown)?;
        let ids = self.choose(resource, count, &mut plugin).await?;
        let answer = plugin.allocate(ids.clone()).await.map_err(refused)?;
        let [pod, container, resource] = [pod, container, resource].map(str::to_owned);
        let given = Given {
            pod,
            container,
            resource: resource.clone(),
            ids,
            answer: answer.encode_to_vec(),
        };
        self.registry().give(given);
        self.save();
        drop(turn);
        let refused = |reason: String| DeviceError::Refused { resource, reason };
        convert(answer).map_err(refused)
    }

    /// Takes the turn to allocate once there is enough of a resource, or there was time for it.
    async fn turn_with(&self, resource: &str, count: u64) -> AsyncMutexGuard<'_, ()> {
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        let mut changes = self.changes.subscribe();
        let enough = async {
            loop {
                changes.borrow_and_update();
                let turn = self.turn.lock().await;
                if self.registry().free(resource, count).is_ok() {
                    return turn;
                }
                drop(turn);
                // The sender is this one's own, so it is not gone.
                let _there = changes.changed().await;
            }
        };
        match timeout(self.patience, enough).await {
            Ok(turn) => turn,
            Err(_) => self.turn.lock().await,
        }
    }

    async fn choose(
        &self,
        resource: &str,
        count: u64,
        plugin: &mut Plugin,
    ) -> Result<Vec<String>, DeviceError> {
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        let free = self.registry().free(resource, count);
        let free = free.map_err(|shortage| match shortage {
            Shortage::Unknown => DeviceError::Unknown {
                resource: resource.to_owned(),
            },
            Shortage::Free(free) => DeviceError::Refused {
                resource: resource.to_owned(),
                reason: format!(
                    "requested number of devices unavailable: requested {count}, available {free}"
                ),
            },
        })?;
        Ok(choose(&free, &plugin.preferred(&free, count).await, count))
    }

    fn save(&self) {
        let (given, healthy) = {
            let registry = self.registry();
            (registry.given().to_vec(), registry.healthy())
        };
        if let Err(error) = checkpoint::write(&self.folder, &given, healthy) {
            tracing::warn!(%error, "cannot note which devices were given to whom");
        }
    }
}

impl DeviceSource for PluginDevices {
    fn allocate<'a>(
        &'a self,
        pod_uid: &'a str,
        container: &'a str,
        wanted: &'a BTreeMap<String, u64>,
    ) -> BoxFuture<'a, Result<Allocation, DeviceError>> {
        Box::pin(self.allocate_all(pod_uid, container, wanted))
    }

    fn release(&self, pod_uid: &str) {
        let had_any = self.registry().release(pod_uid);
        if had_any {
            self.save();
            self.changes.send_replace(());
        }
    }
}

impl Plugin {
    /// Asks which devices the plugin would give first. One that does not say has no preference.
    async fn preferred(&mut self, free: &[String], count: usize) -> Vec<String> {
        if !self.options.get_preferred_allocation_available {
            return Vec::new();
        }
        let request = ContainerPreferredAllocationRequest {
            available_device_i_ds: free.to_vec(),
            must_include_device_i_ds: Vec::new(),
            allocation_size: i32::try_from(count).unwrap_or(i32::MAX),
        };
        let request = PreferredAllocationRequest {
            container_requests: vec![request],
        };
        let answer = timeout(ANSWER, self.client.get_preferred_allocation(request)).await;
        let answer = answer.ok().and_then(Result::ok).map(Response::into_inner);
        let first = answer.and_then(|answer| answer.container_responses.into_iter().next());
        first.map(|first| first.device_i_ds).unwrap_or_default()
    }

    /// Asks what a container needs for devices, and makes them ready.
    async fn allocate(&mut self, ids: Vec<String>) -> Result<ContainerAllocateResponse, String> {
        let request = AllocateRequest {
            container_requests: vec![ContainerAllocateRequest {
                devices_ids: ids.clone(),
            }],
        };
        let answer = timeout(ANSWER, self.client.allocate(request)).await;
        let answer = answer
            .map_err(|_| NO_ANSWER.to_owned())?
            .map_err(|status| status.message().to_owned())?;
        let first = answer.into_inner().container_responses.into_iter().next();
        let given = first.ok_or("the plugin's answer is empty")?;
        if self.options.pre_start_required {
            let request = PreStartContainerRequest { devices_ids: ids };
            let answer = timeout(ANSWER, self.client.pre_start_container(request)).await;
            answer
                .map_err(|_| NO_ANSWER.to_owned())?
                .map_err(|status| status.message().to_owned())?;
        }
        Ok(given)
    }
}

/// Why a plugin that is silent gives nothing.
const NO_ANSWER: &str = "the device plugin does not answer";

/// Returns what a container was given before.
fn noted(given: &Given) -> Result<Allocation, String> {
    let answer = ContainerAllocateResponse::decode(given.answer.as_slice());
    convert(answer.map_err(|error| format!("the note of what was given makes no sense: {error}"))?)
}

fn convert(given: ContainerAllocateResponse) -> Result<Allocation, String> {
    if let Some(cdi) = given.cdi_devices.first() {
        return Err(format!(
            "the plugin names the CDI device {:?}, and this node knows only devices by path",
            cdi.name
        ));
    }
    let devices = given.devices.into_iter().map(|device| Device {
        source: device.host_path.into(),
        target: device.container_path,
        permissions: device.permissions,
    });
    let mounts = given.mounts.into_iter().map(|mount| Mount {
        source: mount.host_path.into(),
        sub_path: None,
        target: mount.container_path,
        is_read_only: mount.read_only,
        follows_host: false,
    });
    Ok(Allocation {
        devices: devices.collect(),
        mounts: mounts.collect(),
        env: given.envs.into_iter().collect(),
    })
}

/// Where plugins register.
struct Desk {
    devices: Arc<PluginDevices>,
    stop: CancellationToken,
    /// Registrations so far.
    count: Mutex<u64>,
}

impl Desk {
    fn number(&self) -> u64 {
        let mut count = self.count.lock().unwrap_or_else(PoisonError::into_inner);
        *count += 1;
        *count
    }

    fn admit(&self, wanted: &RegisterRequest) -> Result<(), String> {
        let is_name = !wanted.endpoint.is_empty()
            && !wanted.endpoint.contains('/')
            && !wanted.endpoint.starts_with('.');
        let is_full = self.devices.plugins().len() >= PLUGINS_MAX
            && !self.devices.plugins().contains_key(&wanted.resource_name);
        if wanted.version != VERSION {
            return Err(format!(
                "version {:?} is not spoken here: use {VERSION}",
                wanted.version
            ));
        }
        if !is_name {
            return Err(format!(
                "endpoint {:?} is no name of a socket in the folder of device plugins",
                wanted.endpoint
            ));
        }
        if !super::is_device(&wanted.resource_name) {
            return Err(format!(
                "resource_name {:?} is no extended resource: name it <domain>/<resource>",
                wanted.resource_name
            ));
        }
        if is_full {
            return Err(format!("there are {PLUGINS_MAX} plugins already"));
        }
        Ok(())
    }
}

#[tonic::async_trait]
impl Registration for Desk {
    async fn register(&self, request: Request<RegisterRequest>) -> Result<Response<Empty>, Status> {
        let wanted = request.into_inner();
        self.admit(&wanted).map_err(Status::invalid_argument)?;
        let resource = wanted.resource_name;
        let plugin = Plugin {
            client: DevicePluginClient::new(channel(self.devices.folder.clone(), wanted.endpoint)),
            options: wanted.options.unwrap_or_default(),
            registration: self.number(),
        };
        tracing::info!(resource, "device plugin registered");
        self.devices
            .registry()
            .register(&resource, plugin.registration);
        self.devices
            .plugins()
            .insert(resource.clone(), plugin.clone());
        let (devices, stop) = (Arc::clone(&self.devices), self.stop.clone());
        tokio::spawn(async move {
            stop.run_until_cancelled(Box::pin(devices.follow(&resource, plugin)))
                .await
        });
        Ok(Response::new(Empty {}))
    }
}

/// Empties the folder but for the notes, and listens in it.
fn bind(folder: &Path) -> io::Result<UnixListener> {
    fs::create_dir_all(folder)?;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if !entry.file_type()?.is_dir() && entry.file_name() != checkpoint::NAME {
            fs::remove_file(entry.path())?;
        }
    }
    // A socket's path has at most 108 bytes, and the folder's may be longer.
    let held = beneath::folder(folder)?;
    UnixListener::bind(format!("/proc/self/fd/{}/{SOCKET}", held.as_raw_fd()))
}

/// Returns what connects when it is first used.
fn channel(folder: PathBuf, socket: String) -> Channel {
    let connector = service_fn(move |_| {
        let (folder, socket) = (folder.clone(), socket.clone());
        async move {
            let held = beneath::folder(&folder)?;
            let path = format!("/proc/self/fd/{}/{socket}", held.as_raw_fd());
            UnixStream::connect(path).await.map(TokioIo::new)
        }
    });
    // The address is not used, but must look like one.
    Endpoint::from_static("http://plugin").connect_with_connector_lazy(connector)
}
