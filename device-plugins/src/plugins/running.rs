//! The plugins that run: one task for each resource.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::resource::ResourceName;
use crate::runner::{self, PluginSetup, Registration};
use crate::unit::Offer;

use super::grant::Desk;
use super::plan::Offers;

/// How long plugins may take to end: they tell the kubelet that nothing is offered any more, and wait a second for that.
const ENDING_MAX: Duration = Duration::from_secs(3);

/// The plugins.
#[derive(Debug)]
pub(crate) struct Running {
    desk: Desk,
    plugins: BTreeMap<ResourceName, Plugin>,
    tasks: JoinSet<ResourceName>,
    folder_changed: watch::Sender<u64>,
    told: Arc<Notify>,
    is_ending: bool,
}

#[derive(Debug)]
struct Plugin {
    offer: watch::Sender<Arc<Offer>>,
    registration: watch::Receiver<Registration>,
    stop: CancellationToken,
}

impl Running {
    /// Begins without plugins. `told` is notified whenever a plugin's registration changes.
    pub(crate) fn new(desk: Desk, told: Arc<Notify>) -> Self {
        Self {
            desk,
            plugins: BTreeMap::new(),
            tasks: JoinSet::new(),
            folder_changed: watch::Sender::new(0),
            told,
            is_ending: false,
        }
    }

    /// Has a plugin for each resource and for no other. One that is wanted again while it ends is begun when it has ended.
    pub(crate) fn follow(&mut self, offers: &Offers, plugin_dir: &Path) {
        if self.is_ending {
            return;
        }
        for (resource, plugin) in &self.plugins {
            if !offers.contains_key(resource) && !plugin.stop.is_cancelled() {
                tracing::info!(%resource, "is offered no more");
                plugin.stop.cancel();
            }
        }
        for (resource, offer) in offers {
            match self.plugins.get(resource) {
                Some(plugin) => {
                    plugin.offer.send_if_modified(|shown| {
                        let is_other = !Arc::ptr_eq(shown, offer) && *shown != *offer;
                        shown.clone_from(offer);
                        is_other
                    });
                }
                None => self.begin(resource, offer, plugin_dir),
            }
        }
    }

    fn begin(&mut self, resource: &ResourceName, offer: &Arc<Offer>, plugin_dir: &Path) {
        let (offers, shown) = watch::channel(offer.clone());
        let (telling, registration) = watch::channel(Registration::default());
        let stop = CancellationToken::new();
        let setup = PluginSetup {
            resource: resource.clone(),
            plugin_dir: plugin_dir.to_owned(),
            offer: shown,
            folder_changed: self.folder_changed.subscribe(),
            giver: Arc::new(self.desk.clone()),
            registration: telling,
            stop: stop.clone(),
        };
        let told = attend(registration.clone(), self.told.clone());
        let resource = resource.clone();
        let ended = resource.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                () = Box::pin(runner::run(setup)) => {}
                () = told => {}
            }
            ended
        });
        let plugin = Plugin {
            offer: offers,
            registration,
            stop,
        };
        self.plugins.insert(resource, plugin);
    }

    /// Tells the plugins that sockets in the kubelet's folder may have changed.
    pub(crate) fn sockets_changed(&self) {
        self.folder_changed
            .send_modify(|count| *count = count.wrapping_add(1));
    }

    /// How a plugin stands with the kubelet.
    pub(crate) fn registration(&self, resource: &ResourceName) -> Registration {
        let plugin = self.plugins.get(resource);
        plugin
            .map(|plugin| plugin.registration.borrow().clone())
            .unwrap_or_default()
    }

    /// Waits until a plugin has ended. Never ends while there are none. Can be dropped at any time.
    pub(crate) async fn ended(&mut self) {
        match self.tasks.join_next().await {
            Some(Ok(resource)) => {
                self.plugins.remove(&resource);
            }
            Some(Err(error)) => {
                tracing::error!(%error, "a device plugin broke off");
                // Which one is not known; those whose ends are gone are.
                self.plugins
                    .retain(|_, plugin| plugin.offer.receiver_count() > 0);
            }
            None => std::future::pending().await,
        }
    }

    /// Ends all plugins, and begins none any more.
    pub(crate) async fn end(&mut self) {
        self.is_ending = true;
        for plugin in self.plugins.values() {
            plugin.stop.cancel();
        }
        let ending = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(ENDING_MAX, ending).await.is_err() {
            tracing::warn!("device plugins did not end in time");
        }
    }
}

/// Passes changes of a registration on. Never ends.
async fn attend(mut registration: watch::Receiver<Registration>, told: Arc<Notify>) {
    while registration.changed().await.is_ok() {
        told.notify_one();
    }
    std::future::pending::<()>().await;
}
