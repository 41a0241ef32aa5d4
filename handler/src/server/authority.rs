//! The authority of clients' certificates: the config map `kubevirt-ca` of the installation.

use std::sync::Arc;

use futures::{StreamExt, pin_mut};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Client;
use kube::api::Api;
use kube::runtime::watcher::{self, Event};
use tokio::sync::watch::Sender;
use tracing::warn;

use crate::cluster::{Complaints, watched};

/// Name of the config map.
const CONFIG_MAP: &str = "kubevirt-ca";
/// The key with the certificates in PEM.
const BUNDLE: &str = "ca-bundle";

/// Follows the certificates of the clients' authority. Never returns.
pub async fn watch(client: Client, namespace: String, told: Sender<Option<Arc<str>>>) {
    let api = Api::<ConfigMap>::namespaced(client, &namespace);
    let only = watcher::Config::default().fields(&format!("metadata.name={CONFIG_MAP}"));
    let events = watched(api, only);
    let mut complaints = Complaints::default();
    pin_mut!(events);
    while let Some(event) = events.next().await {
        match event {
            Ok(event) => {
                complaints.all_is_well();
                follow(&told, event);
            }
            Err(error) => complaints.tell("the config map kubevirt-ca", &error),
        }
    }
}

fn follow(told: &Sender<Option<Arc<str>>>, event: Event<ConfigMap>) {
    match event {
        Event::Apply(object) | Event::InitApply(object) => tell(told, object),
        // What was trusted stays so until there is something else.
        Event::Init | Event::InitDone | Event::Delete(_) => {}
    }
}

fn tell(told: &Sender<Option<Arc<str>>>, object: ConfigMap) {
    let bundle = object.data.and_then(|mut data| data.remove(BUNDLE));
    let Some(bundle) = bundle else {
        warn!("the config map {CONFIG_MAP} has no key {BUNDLE}");
        return;
    };
    let bundle = Some(bundle.into());
    told.send_if_modified(|known| {
        let is_news = *known != bundle;
        *known = bundle;
        is_news
    });
}
