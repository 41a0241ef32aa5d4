//! Values with their labels, and their text.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeLabel, EncodeLabelSet, EncodeMetric, LabelSetEncoder, MetricEncoder,
    NoLabelSet,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use super::phases::TimesByPhase;

/// Values that one family has at most: what launchers tell is theirs to choose.
const VALUES_MAX: usize = 20_000;
/// Characters of a label that are kept.
const LABEL_CHARS_MAX: usize = 256;

/// Whether a value may fall.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// It may.
    Gauge,
    /// It only grows; its name ends with `_total`, which is written for it.
    Counter,
}

/// Values of one meaning.
#[derive(Debug)]
pub(super) struct Family {
    /// Name, for a counter without `_total`.
    pub(super) name: &'static str,
    pub(super) help: &'static str,
    pub(super) kind: Kind,
}

/// What tells values of one family apart.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Labels {
    shared: Arc<[(&'static str, String)]>,
    own: Vec<(&'static str, String)>,
}

/// Histograms of one meaning.
#[derive(Clone, Debug)]
pub(super) struct Histograms {
    pub(super) name: &'static str,
    pub(super) help: &'static str,
    pub(super) times: TimesByPhase,
}

/// What is measured at one moment.
#[derive(Debug, Default)]
pub(super) struct Samples {
    /// By name. A second value with the same labels would make the whole text invalid.
    values: BTreeMap<&'static str, (&'static Family, BTreeMap<Labels, f64>)>,
    histograms: Vec<Histograms>,
}

impl Labels {
    /// Returns labels that many values have.
    pub(super) fn new<'a>(labels: impl IntoIterator<Item = (&'static str, &'a str)>) -> Self {
        let labels = labels.into_iter();
        Self {
            shared: labels.map(|(name, value)| (name, bounded(value))).collect(),
            own: Vec::new(),
        }
    }

    fn is_empty(&self) -> bool {
        self.shared.is_empty() && self.own.is_empty()
    }

    /// Returns these labels and some more.
    pub(super) fn with<'a>(
        &self,
        labels: impl IntoIterator<Item = (&'static str, &'a str)>,
    ) -> Self {
        let mut all = self.clone();
        let more = labels.into_iter();
        all.own
            .extend(more.map(|(name, value)| (name, bounded(value))));
        all
    }
}

fn bounded(value: &str) -> String {
    value.chars().take(LABEL_CHARS_MAX).collect()
}

impl EncodeLabelSet for Labels {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        for (name, value) in self.shared.iter().chain(&self.own) {
            (*name, value.as_str()).encode(encoder.encode_label())?;
        }
        Ok(())
    }
}

impl Samples {
    /// Adds a value, if there is one.
    pub(super) fn add(&mut self, family: &'static Family, labels: &Labels, value: Option<f64>) {
        let Some(value) = value.filter(|value| value.is_finite()) else {
            return;
        };
        let entry = self.values.entry(family.name);
        let (_, values) = entry.or_insert_with(|| (family, BTreeMap::new()));
        if values.len() < VALUES_MAX {
            values.entry(labels.clone()).or_insert(value);
        }
    }

    /// Adds histograms.
    pub(super) fn histograms(&mut self, histograms: Vec<Histograms>) {
        self.histograms.extend(histograms);
    }

    /// Returns the text (OpenMetrics 1.0).
    pub(super) fn into_text(self) -> String {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(self));
        let mut text = String::new();
        encode(&mut text, &registry).expect("a string takes all that is written to it");
        text
    }
}

fn encode_value(metric: &mut MetricEncoder<'_>, kind: Kind, value: f64) -> fmt::Result {
    match kind {
        Kind::Gauge => metric.encode_gauge(&value),
        Kind::Counter => metric.encode_counter::<NoLabelSet, _, f64>(&value, None),
    }
}

impl Collector for Samples {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for (family, values) in self.values.values() {
            let kind = match family.kind {
                Kind::Gauge => MetricType::Gauge,
                Kind::Counter => MetricType::Counter,
            };
            let mut metric = encoder.encode_descriptor(family.name, family.help, None, kind)?;
            for (labels, value) in values {
                // Empty braces are no part of the format.
                if labels.is_empty() {
                    encode_value(&mut metric, family.kind, *value)?;
                } else {
                    encode_value(&mut metric.encode_family(labels)?, family.kind, *value)?;
                }
            }
        }
        for histograms in &self.histograms {
            let kind = MetricType::Histogram;
            let (name, help) = (histograms.name, histograms.help);
            let metric = encoder.encode_descriptor(name, help, None, kind)?;
            histograms.times.encode(metric)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{Family, Kind, Labels, Samples};

    static SIZE: Family = Family {
        name: "size_bytes",
        help: "Size",
        kind: Kind::Gauge,
    };
    static VISITS: Family = Family {
        name: "visits",
        help: "Visits",
        kind: Kind::Counter,
    };

    #[test]
    fn values_are_written_once_with_their_labels() {
        let mut samples = Samples::default();
        let labels = Labels::new([("node", "a\"b")]).with([("disk", "x\n")]);
        samples.add(&VISITS, &labels, Some(2.0));
        samples.add(&VISITS, &labels, Some(3.0));
        samples.add(&SIZE, &Labels::default(), Some(1.5));
        samples.add(&SIZE, &labels, None);
        samples.add(&SIZE, &labels, Some(f64::NAN));
        let expected = concat!(
            "# HELP size_bytes Size\n# TYPE size_bytes gauge\nsize_bytes 1.5\n",
            "# HELP visits Visits\n# TYPE visits counter\n",
            "visits_total{node=\"a\\\"b\",disk=\"x\\n\"} 2.0\n# EOF\n",
        );
        assert_eq!(samples.into_text(), expected);
    }

    #[test]
    fn labels_are_cut_where_they_get_too_long() {
        let mut samples = Samples::default();
        let labels = Labels::new([("name", "ä".repeat(100_000).as_str())]);
        samples.add(&SIZE, &labels, Some(1.0));
        assert!(samples.into_text().len() < 1024);
    }
}
