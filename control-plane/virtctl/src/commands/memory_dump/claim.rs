//! The claim that takes a dump.

use api::Quantity;
use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use crate::argument;
use crate::cluster::{Cluster, Kind};
use crate::failure::Failure;
use crate::report;

const MIB: u64 = 1 << 20;
/// What a dump has beside the guest's memory.
const OVERHEAD_BYTES: u64 = 100 * MIB;
/// Bytes of a file system of a thousand that its own tables may take.
const OF_FILE_SYSTEM: u64 = 55;

#[derive(Debug, Args)]
pub(super) struct ClaimFlags {
    /// Claim that takes the dump [default: the one of the last dump]
    #[arg(long, value_name = "CLAIM", value_parser = argument::name)]
    claim_name: Option<String>,
    /// Make the claim, large enough for the dump
    #[arg(long, num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true", hide_default_value = true, value_name = "BOOL", requires = "claim_name")]
    create_claim: bool,
    /// Storage class of the new claim [default: that of the cluster]
    #[arg(long, value_name = "CLASS")]
    storage_class: Option<String>,
    /// Who may use the new claim at one time
    #[arg(long, value_name = "MODE", value_enum, default_value = "ReadWriteOnce")]
    access_mode: AccessMode,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum AccessMode {
    #[value(name = "ReadWriteOnce")]
    Once,
    #[value(name = "ReadWriteMany")]
    Many,
}

/// A claim that was made for a dump.
pub(super) struct Made {
    path: String,
}

impl ClaimFlags {
    /// Returns the name of the claim, if it is said.
    pub(super) fn name(&self) -> Option<&str> {
        self.claim_name.as_deref()
    }

    /// Makes the claim where that is asked for.
    ///
    /// # Errors
    ///
    /// Fails when the machine does not run, or there is such a claim.
    pub(super) async fn make(
        &self,
        cluster: &Cluster,
        machine: &str,
    ) -> Result<Option<Made>, Failure> {
        let (true, Some(name)) = (self.create_claim, &self.claim_name) else {
            return Ok(None);
        };
        let vmi = cluster.get(&cluster.object(Kind::Instance, machine)).await;
        let vmi = vmi.map_err(|refusal| refusal.of("error reading how much memory it has:"))?;
        let size = size_bytes(&vmi).ok_or_else(|| {
            Failure::Argument(format!("VMI {machine} does not say how much memory it has"))
        })?;
        let namespace = &cluster.namespace;
        let claims = format!("/api/v1/namespaces/{namespace}/persistentvolumeclaims");
        let made = cluster.post(&claims, &self.claim(name, size)).await;
        made.map_err(|refusal| refusal.of(format!("error creating PVC {namespace}/{name}:")))?;
        report::line(&format!("PVC {namespace}/{name} created"))?;
        Ok(Some(Made {
            path: format!("{claims}/{name}"),
        }))
    }

    fn claim(&self, name: &str, size_bytes: u64) -> Value {
        let mode = match self.access_mode {
            AccessMode::Once => "ReadWriteOnce",
            AccessMode::Many => "ReadWriteMany",
        };
        let size = format!("{}Mi", size_bytes.div_ceil(MIB));
        let mut spec = json!({
            "accessModes": [mode],
            "resources": {"requests": {"storage": size}},
        });
        if let Some(class) = &self.storage_class {
            spec["storageClassName"] = json!(class);
        }
        let labels = json!({"cdi.kubevirt.io/applyStorageProfile": "true"});
        json!({
            "apiVersion": "v1", "kind": "PersistentVolumeClaim",
            "metadata": {"name": name, "labels": labels}, "spec": spec,
        })
    }
}

impl Made {
    /// Deletes the claim, as nothing will be in it.
    pub(super) async fn take_back(self, cluster: &Cluster) {
        let options = json!({"kind": "DeleteOptions", "apiVersion": "v1"});
        match cluster.delete(&self.path, &options).await {
            Ok(_) => report::problem("the PVC is deleted again"),
            Err(refusal) => report::problem(&format!("the PVC stays: {refusal}")),
        }
    }
}

/// Returns the bytes that a dump needs on a file system.
fn size_bytes(vmi: &Value) -> Option<u64> {
    let sizes = [
        "/status/memory/guestCurrent",
        "/spec/domain/memory/guest",
        "/spec/domain/resources/requests/memory",
    ];
    let mut sizes = sizes
        .iter()
        .filter_map(|at| vmi.pointer(at)?.as_str()?.parse::<Quantity>().ok()?.units());
    let dump = sizes.next()?.checked_add(OVERHEAD_BYTES)?;
    Some(dump.checked_mul(1000)?.div_ceil(1000 - OF_FILE_SYSTEM))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{MIB, size_bytes};

    #[test]
    fn a_claim_has_room_for_the_memory_and_the_file_system() {
        let vmi = json!({"spec": {"domain": {"memory": {"guest": "845Mi"}}}});
        assert_eq!(size_bytes(&vmi), Some(1000 * MIB));
        assert_eq!(size_bytes(&json!({})), None);
    }
}
