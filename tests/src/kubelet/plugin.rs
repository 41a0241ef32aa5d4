//! Plugins as the kubelet speaks with them.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hyper_util::rt::TokioIo;
use nix::libc;
use proto::deviceplugin::v1beta1::device_plugin_client::DevicePluginClient;
use proto::deviceplugin::v1beta1::{DevicePluginOptions, Empty};
use tokio::net::UnixStream;
use tonic::Status;
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

use super::State;

/// A plugin and its registration's number.
#[derive(Clone)]
pub(super) struct Plugin {
    pub(super) client: DevicePluginClient<Channel>,
    pub(super) options: DevicePluginOptions,
    pub(super) registration: u64,
}

/// The plugins by resource.
#[derive(Default)]
pub(super) struct Plugins {
    by_resource: HashMap<String, Plugin>,
    registrations: u64,
}

impl Plugins {
    pub(super) fn get(&self, resource: &str) -> Option<Plugin> {
        self.by_resource.get(resource).cloned()
    }

    /// Puts a plugin in the place of the one that there was.
    fn put(
        &mut self,
        resource: &str,
        client: DevicePluginClient<Channel>,
        options: DevicePluginOptions,
    ) -> Plugin {
        self.registrations += 1;
        let plugin = Plugin {
            client,
            options,
            registration: self.registrations,
        };
        self.by_resource.insert(resource.to_owned(), plugin.clone());
        plugin
    }

    fn is_current(&self, resource: &str, registration: u64) -> bool {
        let known = self.by_resource.get(resource);
        known.is_some_and(|known| known.registration == registration)
    }

    /// Drops the connection to a plugin, unless another is in its place; says whether it was not.
    fn leave(&mut self, resource: &str, registration: u64) -> bool {
        let is_current = self.is_current(resource, registration);
        if is_current {
            self.by_resource.remove(resource);
        }
        is_current
    }

    /// Drops all connections.
    pub(super) fn forget(&mut self) {
        self.by_resource.clear();
    }
}

impl State {
    /// Connects to a plugin that registers, and asks for its options.
    pub(super) async fn meet(&self, resource: &str, endpoint: &str) -> Result<Plugin, Status> {
        let channel = channel(self.plugin_dir(), endpoint.to_owned()).await;
        let channel = channel.map_err(|error| {
            Status::unknown(format!("failed to dial device plugin {endpoint}: {error}"))
        })?;
        let mut client = DevicePluginClient::new(channel);
        let options = client.get_device_plugin_options(Empty {}).await?;
        let plugin = self.plugins().put(resource, client, options.into_inner());
        self.node.send_modify(|node| node.register(resource));
        Ok(plugin)
    }

    /// Follows a plugin's lists until its stream ends or is dropped, or another registers.
    pub(super) async fn follow(self: Arc<Self>, resource: String, mut plugin: Plugin) {
        let mut dropped = self.streams_dropped.subscribe();
        tokio::select! {
            _ended = self.listen(&resource, &mut plugin) => {}
            _changed = dropped.changed() => {}
        }
        if self.plugins().leave(&resource, plugin.registration) {
            self.node.send_modify(|node| node.lose(&resource));
        }
    }

    async fn listen(&self, resource: &str, plugin: &mut Plugin) -> Result<(), Status> {
        let mut lists = plugin.client.list_and_watch(Empty {}).await?.into_inner();
        while let Some(list) = lists.message().await? {
            if !self.plugins().is_current(resource, plugin.registration) {
                break;
            }
            self.node.send_modify(|node| node.list(resource, list));
            self.save()
                .map_err(|error| Status::internal(error.to_string()))?;
        }
        Ok(())
    }
}

async fn channel(folder: PathBuf, socket: String) -> Result<Channel, tonic::transport::Error> {
    let connector = service_fn(move |_| {
        let (folder, socket) = (folder.clone(), socket.clone());
        async move {
            let held = hold(&folder)?;
            let path = short_path(&held, &socket);
            UnixStream::connect(path).await.map(TokioIo::new)
        }
    });
    // The address is not used, but must look like one.
    let endpoint = Endpoint::from_static("http://plugin");
    endpoint.connect_with_connector(connector).await
}

/// Opens a folder to name what is in it.
pub(super) fn hold(folder: &Path) -> io::Result<File> {
    let flags = libc::O_PATH | libc::O_DIRECTORY;
    OpenOptions::new()
        .read(true)
        .custom_flags(flags)
        .open(folder)
}

/// A path to a socket that is short enough, however long the folder's is.
pub(super) fn short_path(held: &File, name: &str) -> PathBuf {
    format!("/proc/self/fd/{}/{name}", held.as_raw_fd()).into()
}
