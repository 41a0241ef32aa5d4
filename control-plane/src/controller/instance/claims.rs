//! Claims that an instance needs before its pod can be made.

use std::fmt;

use api::Vmi;

use crate::controller::change::text;
use crate::controller::pod::{ClaimUse, Claims, claim_of};

/// Annotation of a claim that says how far its filling is.
const FILLING: &str = "cdi.kubevirt.io/storage.pod.phase";

/// What an instance waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Waiting {
    /// There is no such claim.
    NoClaim {
        /// The volume.
        volume: String,
        /// The claim.
        claim: String,
    },
    /// Nobody has made the claim of a data volume yet.
    NoDataVolume {
        /// The volume.
        volume: String,
        /// The data volume and its claim.
        claim: String,
    },
    /// The claim is being filled.
    Filling {
        /// The volume.
        volume: String,
        /// The claim.
        claim: String,
    },
    /// The claim has lost its volume.
    Lost {
        /// The volume.
        volume: String,
        /// The claim.
        claim: String,
    },
}

impl Waiting {
    /// In one word, for conditions and events.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::NoClaim { .. } => "FailedPvcNotFound",
            Self::NoDataVolume { .. } => "FailedDataVolumeNotFound",
            Self::Filling { .. } => "DataVolumeNotReady",
            Self::Lost { .. } => "PvcLost",
        }
    }

    /// Whether an object is missing that a person may have to make.
    pub(crate) fn is_missing(&self) -> bool {
        !matches!(self, Self::Filling { .. })
    }
}

impl fmt::Display for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoClaim { volume, claim } => write!(
                f,
                "PVC {claim} of volume {volume} does not exist: create the claim, and the instance starts"
            ),
            Self::NoDataVolume { volume, claim } => write!(
                f,
                "PVC {claim} of data volume {claim} (volume {volume}) does not exist yet: it is made by the \
                 Containerized Data Importer (CDI); without CDI, create a PVC of this name that holds the disk"
            ),
            Self::Filling { volume, claim } => {
                write!(f, "PVC {claim} of volume {volume} is still being filled")
            }
            Self::Lost { volume, claim } => write!(
                f,
                "PVC {claim} of volume {volume} has lost its persistent volume: delete and create it anew"
            ),
        }
    }
}

/// Returns the names of the claims that an instance refers to.
pub(crate) fn names(vmi: &Vmi) -> Vec<String> {
    let mut names: Vec<String> = vmi
        .spec
        .volumes
        .iter()
        .filter_map(claim_of)
        .map(|claim| claim.name)
        .collect();
    names.sort();
    names.dedup();
    names
}

/// Returns the first thing that an instance waits for. A claim that has no volume yet is none: what has a consumer gets
/// one.
pub(super) fn waiting(vmi: &Vmi, claims: &Claims) -> Option<Waiting> {
    vmi.spec.volumes.iter().find_map(|volume| {
        let claim = claim_of(volume)?;
        waiting_for(&volume.name, claim, claims)
    })
}

fn waiting_for(volume: &str, claim: ClaimUse, claims: &Claims) -> Option<Waiting> {
    let volume = volume.to_owned();
    let Some(known) = claims.get(&claim.name) else {
        let claim_name = claim.name;
        return Some(if claim.is_data_volume {
            Waiting::NoDataVolume {
                volume,
                claim: claim_name,
            }
        } else {
            Waiting::NoClaim {
                volume,
                claim: claim_name,
            }
        });
    };
    if text(known, "/status/phase") == "Lost" {
        return Some(Waiting::Lost {
            volume,
            claim: claim.name,
        });
    }
    let annotations = known.pointer("/metadata/annotations");
    let filling = annotations.and_then(|annotations| annotations.get(FILLING));
    let is_filling = filling.is_some_and(|phase| phase != "Succeeded");
    is_filling.then_some(Waiting::Filling {
        volume,
        claim: claim.name,
    })
}
