//! What each resource offers, given what there is and who has what.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use crate::report::Holder;
use crate::resource::ResourceName;
use crate::unit::{Health, LeftOut, Offer, Unit, VariablePrefix};

use super::checkpoint::InUse;
use super::ledger::Entry;

/// What is offered, by resource.
pub(crate) type Offers = BTreeMap<ResourceName, Arc<Offer>>;

/// A unit that somebody has, and that nobody else can have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Held {
    /// The resource.
    pub(crate) resource: ResourceName,
    /// The unit.
    pub(crate) id: String,
    /// The devices that it consists of.
    pub(crate) parts: Vec<String>,
    /// Who has it, as far as is known.
    pub(crate) holders: Vec<Holder>,
}

/// Brings together what the kubelet's record and the ledger say of units that only one container can have.
///
/// The parts of a unit that is only in the kubelet's record are those that were found or offered under its name. A unit of
/// a resource that is not ours is taken to be named for its device, as SR-IOV's plugin does.
pub(crate) fn held(
    in_use: &[InUse],
    given: &[Entry],
    found: &[Vec<Offer>],
    previous: &Offers,
) -> Vec<Held> {
    let mut held: BTreeMap<(&ResourceName, &str), Held> = BTreeMap::new();
    for entry in given.iter().filter(|entry| !entry.parts.is_empty()) {
        let one = Held {
            resource: entry.resource.clone(),
            id: entry.id.clone(),
            parts: entry.parts.clone(),
            holders: Vec::new(),
        };
        held.insert((&entry.resource, &entry.id), one);
    }
    let known = known(found, previous);
    for one in in_use {
        let key = (&one.resource, one.id.as_str());
        let Some(parts) = parts(&known, one) else {
            continue;
        };
        let entry = held.entry(key).or_insert_with(|| Held {
            resource: one.resource.clone(),
            id: one.id.clone(),
            parts,
            holders: Vec::new(),
        });
        entry.holders.push(one.holder.clone());
    }
    held.into_values().collect()
}

/// Units by resource, those that were found first.
type Known<'a> = HashMap<&'a ResourceName, Vec<&'a Unit>>;

fn known<'a>(found: &'a [Vec<Offer>], previous: &'a Offers) -> Known<'a> {
    let offers = found.iter().flatten();
    let offers = offers.chain(previous.values().map(Arc::as_ref));
    let mut known = Known::new();
    for offer in offers {
        known
            .entry(&offer.resource)
            .or_default()
            .extend(&offer.units);
    }
    known
}

/// The parts of what is in use; none where it can be shared.
fn parts(known: &Known<'_>, one: &InUse) -> Option<Vec<String>> {
    let Some(units) = known.get(&one.resource) else {
        return Some(vec![one.id.clone()]);
    };
    if units.iter().any(|unit| unit.copies > 1) {
        return None;
    }
    let unit = units.iter().find(|unit| unit.id == one.id);
    Some(unit.map(|unit| unit.parts.clone()).unwrap_or_default())
}

/// Decides what each resource offers. `found` is what each source found, the sources in order.
///
/// A device is offered once. Who has it keeps it; else the first in order gets it, and the others say why they do not offer
/// it. A unit that somebody has stays listed when its device is gone, since the kubelet still counts with it.
pub(crate) fn plan(found: &[Vec<Offer>], held: &[Held], previous: &Offers) -> Offers {
    let mut plan = Plan {
        held: by_part(held),
        ..Plan::default()
    };
    for offer in found.iter().flatten() {
        plan.take(offer);
    }
    for one in held {
        plan.keep(one, previous);
    }
    let mut offers = plan.offers;
    offers.values_mut().for_each(tidy);
    let keep_same = |(resource, offer): (ResourceName, Offer)| {
        let same = previous.get(&resource).filter(|same| ***same == offer);
        let offer = same.cloned().unwrap_or_else(|| Arc::new(offer));
        (resource, offer)
    };
    offers.into_iter().map(keep_same).collect()
}

#[derive(Default)]
struct Plan<'a> {
    held: HashMap<&'a str, &'a Held>,
    claimed: HashMap<&'a str, (&'a ResourceName, &'a str)>,
    named: HashSet<(&'a ResourceName, &'a str)>,
    offers: BTreeMap<ResourceName, Offer>,
}

fn by_part(held: &[Held]) -> HashMap<&str, &Held> {
    let parts = held
        .iter()
        .flat_map(|one| one.parts.iter().map(move |part| (part.as_str(), one)));
    parts.collect()
}

impl<'a> Plan<'a> {
    fn take(&mut self, found: &'a Offer) {
        let resource = &found.resource;
        let variable = self.offer(found).variable;
        for unit in &found.units {
            let obstacle = self.obstacle(resource, unit, variable == found.variable);
            let offer = self.offer(found);
            match obstacle {
                Some(reason) => offer.left_out.push(LeftOut {
                    device: device(unit),
                    reason,
                }),
                None => {
                    offer.units.push(unit.clone());
                    self.claim(resource, unit);
                }
            }
        }
        let left_out = found.left_out.iter().cloned();
        self.offer(found).left_out.extend(left_out);
    }

    fn offer(&mut self, found: &Offer) -> &mut Offer {
        let (resource, variable) = (&found.resource, found.variable);
        self.offers
            .entry(resource.clone())
            .or_insert_with(|| empty(resource, variable))
    }

    fn claim(&mut self, resource: &'a ResourceName, unit: &'a Unit) {
        self.named.insert((resource, &unit.id));
        for part in &unit.parts {
            self.claimed.insert(part, (resource, &unit.id));
        }
    }

    /// Why a unit cannot be offered.
    fn obstacle(&self, resource: &ResourceName, unit: &Unit, is_same_kind: bool) -> Option<String> {
        if !is_same_kind {
            return Some(format!(
                "{resource} already stands for devices of another kind; give each kind a resource of its own"
            ));
        }
        for part in &unit.parts {
            let holder = self.held.get(part.as_str());
            if let Some(one) = holder.filter(|one| !is_named(one, resource, unit)) {
                return Some(in_use_elsewhere(one));
            }
            if let Some((other, id)) = self.claimed.get(part.as_str()) {
                return Some(format!(
                    "already offered as {id} of {other}, which asks for it first"
                ));
            }
        }
        let is_twice = self.named.contains(&(resource, unit.id.as_str()));
        is_twice.then(|| format!("{resource} already has a unit {}", unit.id))
    }

    /// Keeps a unit listed that somebody has and whose device is gone.
    fn keep(&mut self, one: &'a Held, previous: &Offers) {
        let Some(offer) = self.offers.get_mut(&one.resource) else {
            return;
        };
        if !self.named.insert((&one.resource, &one.id)) {
            return;
        }
        let mut left_out = offer.left_out.iter();
        let left = left_out.position(|left| one.parts.contains(&left.device));
        let reason = left.map(|left| offer.left_out.remove(left).reason);
        offer
            .units
            .push(gone(one, reason, previous.get(&one.resource)));
    }
}

fn is_named(one: &Held, resource: &ResourceName, unit: &Unit) -> bool {
    one.resource == *resource && one.id == unit.id
}

/// The offer of a resource that has nothing.
fn empty(resource: &ResourceName, variable: Option<VariablePrefix>) -> Offer {
    Offer {
        resource: resource.clone(),
        variable,
        units: Vec::new(),
        left_out: Vec::new(),
    }
}

fn device(unit: &Unit) -> String {
    if unit.parts.is_empty() {
        return unit.id.clone();
    }
    unit.parts.join(", ")
}

fn in_use_elsewhere(one: &Held) -> String {
    let (id, resource) = (&one.id, &one.resource);
    let who = holders(&one.holders);
    format!("in use as {id} of {resource} by {who}; offered here when it is free")
}

/// Who has it, in words.
pub(crate) fn holders(holders: &[Holder]) -> String {
    match holders {
        [] => "a container that is just starting".to_owned(),
        [one] => format!("container {} of pod {}", one.container, one.pod_uid),
        [one, more @ ..] => {
            let first = self::holders(std::slice::from_ref(one));
            format!("{first} and {} more", more.len())
        }
    }
}

fn gone(one: &Held, reason: Option<String>, previous: Option<&Arc<Offer>>) -> Unit {
    let units = previous.into_iter().flat_map(|offer| &offer.units);
    let known = units.into_iter().find(|unit| unit.id == one.id);
    let who = holders(&one.holders);
    let reason = match reason {
        Some(reason) => format!("{reason} ({who} has it)"),
        None => format!(
            "the device is gone while {who} has it; plug it into the same port again, or restart the machine without it"
        ),
    };
    Unit {
        id: one.id.clone(),
        copies: 1,
        parts: one.parts.clone(),
        health: Health::Unhealthy(reason),
        numa_node: known.and_then(|unit| unit.numa_node),
        nodes: known.map(|unit| unit.nodes.clone()).unwrap_or_default(),
        addresses: known.map(|unit| unit.addresses.clone()).unwrap_or_default(),
    }
}

/// Says everything once, in the order in which it was first said.
fn tidy(offer: &mut Offer) {
    let mut said = BTreeSet::new();
    offer.left_out.retain(|left| said.insert(left.clone()));
}

#[cfg(test)]
mod tests;
