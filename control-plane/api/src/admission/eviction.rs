//! Evictions of pods: a launcher's pod goes only when its instance may end, or has moved.

use std::collections::BTreeMap;

use crate::components::{HOTPLUG_DISK, VIRT_LAUNCHER};
use crate::condition::kind;
use crate::kubevirt::Configuration;
use crate::labels;
use crate::vmi::Vmi;

/// Annotation of an eviction that says who asks for it.
pub const REQUESTED_BY: &str = "requested-by";
/// Value of [`REQUESTED_BY`] of the tool that spreads pods anew.
pub const DESCHEDULER: &str = "sigs.k8s.io/descheduler";
/// Value of the annotation [`EVICTION_SOURCE`](labels::EVICTION_SOURCE) of instances that it wants moved.
pub const SOURCE_DESCHEDULER: &str = "descheduler";

/// What counts of a pod.
#[derive(Clone, Copy, Debug)]
pub struct EvictedPod<'a> {
    /// Its labels.
    pub labels: &'a BTreeMap<String, String>,
    /// Its annotations.
    pub annotations: &'a BTreeMap<String, String>,
    /// Its phase (`v1.PodPhase`).
    pub phase: &'a str,
    /// Its node.
    pub node: &'a str,
}

impl EvictedPod<'_> {
    fn is_app(&self, app: &str) -> bool {
        self.labels
            .get(labels::APP)
            .is_some_and(|known| known == app)
    }

    fn is_over(&self) -> bool {
        matches!(self.phase, "Succeeded" | "Failed")
    }

    /// Returns the name of the instance that the pod belongs to; `None` for pods that evictions of are not
    /// our business.
    pub fn instance(&self) -> Option<&str> {
        let is_ours = self.is_app(VIRT_LAUNCHER) && !self.is_over();
        let name = self.annotations.get(labels::DOMAIN).filter(|_| is_ours)?;
        Some(name.as_str())
    }

    /// Whether the pod holds volumes that are plugged into a machine.
    pub fn holds_volumes(&self) -> bool {
        self.is_app(HOTPLUG_DISK)
    }
}

/// What is done about an eviction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Eviction {
    /// The pod goes.
    Allowed,
    /// The pod stays for now; the sender asks again (429).
    Refused {
        /// Why.
        message: String,
    },
    /// The pod stays for now (429), and its instance is marked so that somebody moves it: the node goes into
    /// `status.evacuationNodeName`.
    Marked {
        /// Node that is to be left.
        node: String,
        /// Whether the annotation [`EVICTION_SOURCE`](labels::EVICTION_SOURCE) becomes
        /// [`SOURCE_DESCHEDULER`].
        by_descheduler: bool,
        /// Why the pod stays.
        message: String,
    },
}

/// Decides on the eviction of a launcher's pod ([`EvictedPod::instance`]) of an instance.
pub fn plan(
    pod: &EvictedPod<'_>,
    vmi: &Vmi,
    config: &Configuration,
    requested_by: &str,
) -> Eviction {
    let (namespace, name) = (vmi.metadata.namespace_or_default(), &vmi.metadata.name);
    let own = vmi.spec.eviction_strategy.as_deref();
    let strategy = own.or(config.eviction_strategy.as_deref());
    let is_migratable = vmi.status.is_true(kind::LIVE_MIGRATABLE);
    let refused = |message: String| Eviction::Refused { message };
    let is_marked = match strategy.unwrap_or_default() {
        "LiveMigrate" if !is_migratable => {
            return refused(format!(
                "VirtualMachineInstance {namespace}/{name} has evictionStrategy LiveMigrate and cannot be migrated: stop it, or see its condition LiveMigratable"
            ));
        }
        "LiveMigrate" | "External" => true,
        "LiveMigrateIfPossible" => is_migratable,
        _ => false,
    };
    if !is_marked {
        return Eviction::Allowed;
    }
    if !vmi.status.evacuation_node_name.is_empty() {
        return refused(format!(
            "evacuation of VirtualMachineInstance {namespace}/{name} is under way"
        ));
    }
    if vmi.status.node_name != pod.node {
        return refused(format!(
            "the pod is the target of a migration of VirtualMachineInstance {namespace}/{name}"
        ));
    }
    Eviction::Marked {
        node: pod.node.to_owned(),
        by_descheduler: requested_by == DESCHEDULER,
        message: format!(
            "the eviction starts the evacuation of VirtualMachineInstance {namespace}/{name}"
        ),
    }
}

/// Decides on the eviction of a pod that holds plugged volumes, `instance` being the name of the instance
/// that runs with them, if one does.
pub fn plan_volumes(instance: Option<&str>) -> Eviction {
    match instance {
        None => Eviction::Allowed,
        Some(name) => Eviction::Refused {
            message: format!(
                "the pod holds volumes that are plugged into VirtualMachineInstance {name}: unplug them, or move it"
            ),
        },
    }
}
