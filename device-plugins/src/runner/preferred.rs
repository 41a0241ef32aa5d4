//! Which devices would best be given (`GetPreferredAllocation`).

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::list::DEVICES_MAX;
use crate::unit::{Offer, Unit};

/// Where a device stands in its offer: the unit's place, and the number of the copy.
type Place = (usize, u32);

/// Says which devices of those available are best given to a container that needs `size` of them: those that must be
/// included, then devices near one NUMA node if there are enough, then as they stand in the offer. Available names that the
/// offer does not have, or not healthy, are not taken. Fewer than `size` are returned where there are not enough, and none
/// where `size` is negative.
#[must_use]
pub fn preferred(
    offer: &Offer,
    available: &[String],
    must_include: &[String],
    size: i32,
) -> Vec<String> {
    let size = usize::try_from(size).unwrap_or(0).min(DEVICES_MAX);
    let places = Places::new(offer);
    let mut seen = BTreeSet::new();
    let must = must_include.iter().filter(|id| seen.insert(id.as_str()));
    let mut chosen: Vec<String> = must.take(size).cloned().collect();
    let mut free: Vec<(Place, &String)> = available
        .iter()
        .filter(|id| seen.insert(id.as_str()))
        .filter_map(|id| Some((places.healthy(id)?, id)))
        .collect();
    free.sort_unstable();
    let missing = size - chosen.len();
    let nodes = chosen.iter().filter_map(|id| places.numa_node(id));
    let near = roomiest(offer, &free, missing, &nodes.collect());
    let is_near = |place: Place| near.is_none_or(|node| numa_node(offer, place) == Some(node));
    let best = free.iter().filter(|(place, _)| is_near(*place));
    chosen.extend(best.take(missing).map(|(_, id)| (*id).clone()));
    chosen
}

fn numa_node(offer: &Offer, (unit, _): Place) -> Option<u32> {
    offer.units.get(unit)?.numa_node
}

/// The NUMA node that has as many devices as are missing, if one has: one of those in use already, or else the one that
/// comes first in the offer.
fn roomiest(
    offer: &Offer,
    free: &[(Place, &String)],
    missing: usize,
    in_use: &BTreeSet<u32>,
) -> Option<u32> {
    let mut counts: BTreeMap<u32, (usize, Place)> = BTreeMap::new();
    for (place, _) in free {
        if let Some(node) = numa_node(offer, *place) {
            counts.entry(node).or_insert((0, *place)).0 += 1;
        }
    }
    let enough = counts.iter().filter(|(_, (count, _))| *count >= missing);
    let first = enough.min_by_key(|(node, (_, place))| (!in_use.contains(node), *place));
    first.map(|(node, _)| *node)
}

/// Finds devices of an offer by name.
struct Places<'a> {
    offer: &'a Offer,
    alone: HashMap<&'a str, usize>,
    shared: Vec<usize>,
}

impl<'a> Places<'a> {
    fn new(offer: &'a Offer) -> Self {
        let units = || offer.units.iter().enumerate();
        let is_shared = |unit: &Unit| unit.copies > 1;
        let alone = units().filter(|(_, unit)| unit.copies == 1);
        Self {
            offer,
            alone: alone
                .map(|(place, unit)| (unit.id.as_str(), place))
                .collect(),
            shared: units()
                .filter(|(_, unit)| is_shared(unit))
                .map(|(place, _)| place)
                .collect(),
        }
    }

    fn find(&self, id: &str) -> Option<Place> {
        if let Some(place) = self.alone.get(id) {
            return Some((*place, 0));
        }
        let copy = |place: &usize| Some((*place, number(self.offer.units.get(*place)?, id)?));
        self.shared.iter().find_map(copy)
    }

    fn healthy(&self, id: &str) -> Option<Place> {
        let place = self.find(id)?;
        let unit = self.offer.units.get(place.0)?;
        unit.health.is_healthy().then_some(place)
    }

    fn numa_node(&self, id: &str) -> Option<u32> {
        numa_node(self.offer, self.find(id)?)
    }
}

/// Which copy of a unit has this name.
fn number(unit: &Unit, id: &str) -> Option<u32> {
    let digits = id.strip_prefix(unit.id.as_str())?;
    let number: u32 = digits.parse().ok()?;
    let is_own = number < unit.copies && number.to_string() == digits;
    is_own.then_some(number)
}
