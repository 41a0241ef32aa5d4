//! Lists of devices as the kubelet reads them.

use proto::deviceplugin::v1beta1::{Device, ListAndWatchResponse, NumaNode, TopologyInfo};

use crate::unit::{Offer, Unit};

/// Most devices in a list. One has 94 bytes at most (63 of them its name), and the kubelet takes messages of 4 MiB.
pub(super) const DEVICES_MAX: usize = 40_000;

/// All that an offer has, each copy for itself.
pub(super) fn list(offer: &Offer) -> ListAndWatchResponse {
    let count = count(offer);
    if count > DEVICES_MAX {
        let resource = &offer.resource;
        tracing::warn!(%resource, count, "more devices than the kubelet can be told of: it gets the first {DEVICES_MAX}");
    }
    let units = offer.units.iter();
    let devices = units.flat_map(|unit| ids(unit).map(|id| device(unit, id)));
    ListAndWatchResponse {
        devices: devices.take(DEVICES_MAX).collect(),
    }
}

/// How many devices an offer has.
fn count(offer: &Offer) -> usize {
    let copies = |unit: &Unit| usize::try_from(unit.copies).unwrap_or(usize::MAX);
    offer
        .units
        .iter()
        .map(copies)
        .fold(0, usize::saturating_add)
}

/// Whether two offers make the same list, so that the second need not be sent.
pub(super) fn is_same(one: &Offer, other: &Offer) -> bool {
    let listed = |unit: &Unit| (unit.copies, unit.health.is_healthy(), unit.numa_node);
    let mut pairs = one.units.iter().zip(&other.units);
    one.units.len() == other.units.len()
        && pairs.all(|(one, other)| one.id == other.id && listed(one) == listed(other))
}

/// What the kubelet knows a unit by.
fn ids(unit: &Unit) -> impl Iterator<Item = String> {
    let is_shared = unit.copies > 1;
    (0..unit.copies).map(move |number| match is_shared {
        true => format!("{}{number}", unit.id),
        false => unit.id.clone(),
    })
}

fn device(unit: &Unit, id: String) -> Device {
    let health = match unit.health.is_healthy() {
        true => "Healthy",
        false => "Unhealthy",
    };
    let topology = unit.numa_node.map(|node| TopologyInfo {
        nodes: vec![NumaNode { id: node.into() }],
    });
    Device {
        id,
        health: health.to_owned(),
        topology,
    }
}
