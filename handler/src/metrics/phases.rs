//! How long instances stay in their phases. A change is counted once, by the time that the status has of it.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use api::Vmi;
use api::status::Phase;
use jiff::Timestamp;
use prometheus_client::encoding::EncodeLabel;
use prometheus_client::encoding::{EncodeLabelSet, LabelSetEncoder};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;

use super::samples::Histograms;
use crate::key::VmiKey;

/// Upper bounds in seconds: from what a machine needs to start, to what an image needs to be pulled.
const BOUNDS: [f64; 14] = [
    0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 90.0, 120.0, 180.0, 300.0, 600.0, 3600.0,
];
/// Between two phases.
const BETWEEN: (&str, &str) = (
    "kubevirt_vmi_phase_transition_time_seconds",
    "Time from one phase of an instance to the next",
);
/// Since the instance was made.
const FROM_CREATION: (&str, &str) = (
    "kubevirt_vmi_phase_transition_time_from_creation_seconds",
    "Time from the creation of an instance to the beginning of a phase",
);
/// Since its deletion was asked for.
const FROM_DELETION: (&str, &str) = (
    "kubevirt_vmi_phase_transition_time_from_deletion_seconds",
    "Time from the request to delete an instance to the beginning of a phase",
);

/// Histograms by the phase that began.
pub(super) type TimesByPhase = Family<PhaseLabels, Histogram, fn() -> Histogram>;

/// A phase and, where it matters, the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct PhaseLabels {
    phase: Phase,
    last_phase: Option<Phase>,
}

impl EncodeLabelSet for PhaseLabels {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        ("phase", self.phase.as_str()).encode(encoder.encode_label())?;
        match self.last_phase {
            Some(last) => ("last_phase", last.as_str()).encode(encoder.encode_label()),
            None => Ok(()),
        }
    }
}

/// Counts changes of phases.
#[derive(Debug)]
pub(super) struct PhaseTimes {
    /// Changes before were counted by whoever ran before.
    since: Timestamp,
    /// How many changes of which instance are counted.
    counted: Mutex<HashMap<String, usize>>,
    between: TimesByPhase,
    from_creation: TimesByPhase,
    from_deletion: TimesByPhase,
}

fn histogram() -> Histogram {
    Histogram::new(BOUNDS)
}

fn family() -> TimesByPhase {
    Family::new_with_constructor(histogram)
}

impl PhaseTimes {
    pub(super) fn new(since: Timestamp) -> Self {
        Self {
            since,
            counted: Mutex::default(),
            between: family(),
            from_creation: family(),
            from_deletion: family(),
        }
    }

    pub(super) fn histograms(&self) -> Vec<Histograms> {
        let all = [
            (BETWEEN, &self.between),
            (FROM_CREATION, &self.from_creation),
            (FROM_DELETION, &self.from_deletion),
        ];
        let named = all.into_iter().map(|((name, help), times)| Histograms {
            name,
            help,
            times: times.clone(),
        });
        named.collect()
    }

    /// Counts what has changed since the last time.
    pub(super) fn note(&self, instances: &[(VmiKey, Arc<Vmi>)]) {
        let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::take(&mut *counted);
        for (_, vmi) in instances {
            let uid = &vmi.metadata.uid;
            let from = before.get(uid).copied().unwrap_or_default();
            self.note_one(vmi, from);
            let changes = vmi.status.phase_transition_timestamps.len();
            counted.insert(uid.clone(), changes);
        }
    }

    fn note_one(&self, vmi: &Vmi, from: usize) {
        let created = time(vmi.metadata.creation_timestamp.as_ref());
        let deleted = time(vmi.metadata.deletion_timestamp.as_ref());
        let mut last = None;
        for (number, change) in vmi.status.phase_transition_timestamps.iter().enumerate() {
            let Some(at) = time(change.phase_transition_timestamp.as_ref()) else {
                continue;
            };
            if number >= from && at >= self.since {
                let began = |phase_before: Option<(Phase, Timestamp)>| PhaseLabels {
                    phase: change.phase,
                    last_phase: phase_before.map(|(phase, _)| phase),
                };
                let before = last.map(|(_, at)| at);
                observe(&self.between, began(last), before, at);
                observe(&self.from_creation, began(None), created, at);
                let is_end = matches!(change.phase, Phase::Succeeded | Phase::Failed);
                observe(
                    &self.from_deletion,
                    began(None),
                    deleted.filter(|_| is_end),
                    at,
                );
            }
            last = Some((change.phase, at));
        }
    }
}

fn observe(times: &TimesByPhase, labels: PhaseLabels, from: Option<Timestamp>, to: Timestamp) {
    let Some(from) = from.filter(|from| *from <= to) else {
        return;
    };
    let passed = to.duration_since(from).as_secs_f64();
    times.get_or_create_owned(&labels).observe(passed);
}

fn time(text: Option<&String>) -> Option<Timestamp> {
    text?.parse().ok()
}
