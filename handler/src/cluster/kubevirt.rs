//! The cluster's `KubeVirt` object: how machines are run.

use std::sync::Arc;

use api::kubevirt::{Configuration, KubeVirt};
use futures::{StreamExt, pin_mut};
use kube::Client;
use kube::api::{Api, DynamicObject};
use kube::runtime::watcher::{self, Event};
use proto::cmd::v1::{ClusterConfig, SmBios, VirtualMachineOptions};
use serde::Deserialize;
use tokio::sync::watch::Sender;
use tracing::warn;

use super::{Complaints, resource, watched};
/// How the cluster's machines are run, and how often that changed.
#[derive(Clone, Debug, Default)]
pub struct ClusterConfiguration {
    /// The configuration of the `KubeVirt` object, or none.
    pub configuration: Arc<Configuration>,
    /// Another number after each change.
    pub revision: u64,
    /// Whether the API server was heard.
    pub is_known: bool,
}

impl ClusterConfiguration {
    /// Returns what a launcher is told of the cluster with each Sync.
    #[must_use]
    pub fn options(&self) -> VirtualMachineOptions {
        let smbios = self.configuration.smbios_or_default();
        let options = self.configuration.virtual_machine_options.as_ref();
        VirtualMachineOptions {
            virtual_machine_sm_bios: Some(SmBios {
                manufacturer: smbios.manufacturer,
                product: smbios.product,
                version: smbios.version,
                sku: smbios.sku,
                family: smbios.family,
            }),
            mem_balloon_stats_period: self.configuration.mem_balloon_stats_period_seconds(),
            cluster_config: Some(ClusterConfig {
                free_page_reporting_disabled: options
                    .is_some_and(|options| options.disable_free_page_reporting.is_some()),
                serial_console_log_disabled: options
                    .is_some_and(|options| options.disable_serial_console_log.is_some()),
                ..ClusterConfig::default()
            }),
            ..VirtualMachineOptions::default()
        }
    }
}

/// Follows the cluster's `KubeVirt` object. Never returns.
pub async fn watch(client: Client, told: Sender<ClusterConfiguration>) {
    let api = Api::<DynamicObject>::all_with(client, &resource("KubeVirt", "kubevirts"));
    let events = watched(api, watcher::Config::default());
    pin_mut!(events);
    let mut complaints = Complaints::default();
    while let Some(event) = events.next().await {
        match event {
            Ok(event) => {
                complaints.all_is_well();
                follow(&told, event);
            }
            Err(error) => {
                complaints.tell("the KubeVirt object", &error);
                if is_unknown_kind(&error) {
                    mark_known(&told);
                }
            }
        }
    }
}

/// Whether the API server doesn't know such objects.
fn is_unknown_kind(error: &watcher::Error) -> bool {
    matches!(error, watcher::Error::InitialListFailed(kube::Error::Api(status)) if status.code == 404)
}

fn follow(told: &Sender<ClusterConfiguration>, event: Event<DynamicObject>) {
    match event {
        Event::Apply(object) | Event::InitApply(object) => tell(told, &object),
        Event::InitDone => mark_known(told),
        // A cluster whose configuration is deleted is being taken down; machines run on as they are.
        Event::Init | Event::Delete(_) => {}
    }
}

fn tell(told: &Sender<ClusterConfiguration>, object: &DynamicObject) {
    let spec = object.data.get("spec").cloned().unwrap_or_default();
    let kubevirt = KubeVirt::deserialize(serde_json::json!({ "spec": spec }));
    let configuration = match kubevirt {
        Ok(kubevirt) => kubevirt.spec.configuration,
        Err(error) => {
            warn!(%error, "cannot read the KubeVirt object; its last content stays in force");
            return;
        }
    };
    told.send_if_modified(|known| {
        if *known.configuration == configuration {
            return false;
        }
        known.configuration = Arc::new(configuration);
        known.revision += 1;
        true
    });
}

fn mark_known(told: &Sender<ClusterConfiguration>) {
    told.send_if_modified(|known| !std::mem::replace(&mut known.is_known, true));
}
