//! What `status.volumeStatus` tells of a claim: the controller fills it in before the pod starts.

use api::Vmi;
use api::status::ClaimInfo;

use super::place::ClaimStatus;

/// Name of disk space among a claim's resources.
const STORAGE: &str = "storage";
/// What [`ClaimInfo::volume_mode`] says of a block device.
const BLOCK: &str = "Block";

/// Returns what the status of an instance tells of the claim behind a volume.
pub(super) fn claim_status(vmi: &Vmi, volume: &str) -> ClaimStatus {
    let mut all = vmi.status.volume_status.iter();
    let Some(status) = all.find(|status| status.name == volume) else {
        return ClaimStatus::default();
    };
    let claim = status.persistent_volume_claim_info.as_ref();
    ClaimStatus {
        block: claim.map(|claim| claim.volume_mode.as_deref() == Some(BLOCK)),
        capacity_bytes: claim.and_then(capacity_bytes),
        preallocated: claim.and_then(|claim| claim.preallocated).unwrap_or(false),
        hotplugged: status.hotplug_volume.is_some(),
    }
}

/// The size of the volume, else the size that the claim asks for.
fn capacity_bytes(claim: &ClaimInfo) -> Option<u64> {
    let mut sizes = [&claim.capacity, &claim.requests].into_iter();
    sizes
        .find_map(|resources| resources.get(STORAGE)?.units())
        .filter(|bytes| *bytes > 0)
}
