//! Which devices plugins offer, and who has them.

use std::collections::{BTreeMap, HashSet};

use super::checkpoint::Given;

/// Most devices of a resource that are kept: gRPC's largest message holds no more.
const DEVICES_MAX: usize = 65_536;

/// How many devices of a resource there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// All, for the node's `capacity`.
    pub capacity: u64,
    /// Those that are healthy, for the node's `allocatable`.
    pub allocatable: u64,
}

/// A resource and its devices by id, with whether they are healthy.
#[derive(Clone, Debug, Default)]
struct Offer {
    /// Which registration it is of; a later one replaces it.
    registration: u64,
    devices: BTreeMap<String, bool>,
}

/// All that is known of devices.
#[derive(Clone, Debug, Default)]
pub(super) struct Registry {
    offers: BTreeMap<String, Offer>,
    given: Vec<Given>,
}

/// Why no devices can be chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shortage {
    /// Nobody offers the resource.
    Unknown,
    /// So many are free.
    Free(usize),
}

impl Registry {
    /// Begins with what was given before a restart of this program.
    pub(super) fn with(given: Vec<Given>) -> Self {
        Self {
            given,
            ..Self::default()
        }
    }

    /// Notes that a plugin offers a resource. Its devices come later.
    pub(super) fn register(&mut self, resource: &str, registration: u64) {
        let offer = self.offers.entry(resource.to_owned()).or_default();
        offer.registration = registration;
    }

    /// Notes a resource's devices; false when another registration has replaced this one.
    pub(super) fn offer(
        &mut self,
        resource: &str,
        registration: u64,
        devices: impl Iterator<Item = (String, bool)>,
    ) -> bool {
        let Some(offer) = self.offers.get_mut(resource) else {
            return false;
        };
        let is_current = offer.registration == registration;
        if is_current {
            offer.devices = devices.take(DEVICES_MAX).collect();
        }
        is_current
    }

    /// Notes that nobody looks after a resource's devices any more.
    pub(super) fn withdraw(&mut self, resource: &str, registration: u64) {
        if let Some(offer) = self.offers.get_mut(resource)
            && offer.registration == registration
        {
            offer
                .devices
                .values_mut()
                .for_each(|healthy| *healthy = false);
        }
    }

    pub(super) fn counts(&self) -> BTreeMap<String, Counts> {
        let count = |devices: usize| u64::try_from(devices).unwrap_or(u64::MAX);
        let counts = self.offers.iter().map(|(resource, offer)| {
            let healthy = offer.devices.values().filter(|healthy| **healthy).count();
            let counts = Counts {
                capacity: count(offer.devices.len()),
                allocatable: count(healthy),
            };
            (resource.clone(), counts)
        });
        counts.collect()
    }

    /// What a container has of a resource.
    pub(super) fn given_to(&self, pod: &str, container: &str, resource: &str) -> Option<Given> {
        let is_it = |given: &&Given| {
            given.pod == pod && given.container == container && given.resource == resource
        };
        self.given.iter().find(is_it).cloned()
    }

    /// Returns healthy devices that nobody has, at least so many.
    pub(super) fn free(&self, resource: &str, count: usize) -> Result<Vec<String>, Shortage> {
        let offer = self.offers.get(resource).ok_or(Shortage::Unknown)?;
        let taken: HashSet<_> = self
            .given
            .iter()
            .filter(|given| given.resource == resource)
            .flat_map(|given| &given.ids)
            .collect();
        let free = offer
            .devices
            .iter()
            .filter(|(id, healthy)| **healthy && !taken.contains(id));
        let free: Vec<_> = free.map(|(id, _)| id.clone()).collect();
        if free.len() < count {
            return Err(Shortage::Free(free.len()));
        }
        Ok(free)
    }

    pub(super) fn give(&mut self, given: Given) {
        self.given.push(given);
    }

    /// Takes back what a pod has, and returns whether it had anything.
    pub(super) fn release(&mut self, pod: &str) -> bool {
        let before = self.given.len();
        self.given.retain(|given| given.pod != pod);
        self.given.len() != before
    }

    pub(super) fn given(&self) -> &[Given] {
        &self.given
    }

    /// Returns the healthy devices of each resource.
    pub(super) fn healthy(&self) -> BTreeMap<String, Vec<String>> {
        let healthy = |offer: &Offer| {
            let healthy = offer.devices.iter().filter(|(_, healthy)| **healthy);
            healthy.map(|(id, _)| id.clone()).collect()
        };
        let offers = self.offers.iter();
        offers
            .map(|(resource, offer)| (resource.clone(), healthy(offer)))
            .collect()
    }
}

/// Follows a plugin's preference as far as it names devices that are free; others fill up.
pub(super) fn choose(free: &[String], preferred: &[String], count: usize) -> Vec<String> {
    let mut chosen: Vec<String> = Vec::with_capacity(count);
    for id in preferred.iter().filter(|id| free.contains(id)).chain(free) {
        if chosen.len() < count && !chosen.contains(id) {
            chosen.push(id.clone());
        }
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::{Given, Registry, Shortage, choose};

    fn texts(all: &[&str]) -> Vec<String> {
        all.iter().map(|text| (*text).to_owned()).collect()
    }

    fn registry(devices: &[(&str, bool)]) -> Registry {
        let mut registry = Registry::default();
        registry.register("x/y", 1);
        assert!(
            registry.offer(
                "x/y",
                1,
                devices
                    .iter()
                    .map(|(id, healthy)| ((*id).to_owned(), *healthy))
            )
        );
        registry
    }

    fn given(pod: &str, ids: &[&str]) -> Given {
        let [pod, container, resource] = [pod, "c", "x/y"].map(str::to_owned);
        Given {
            pod,
            container,
            resource,
            ids: texts(ids),
            answer: Vec::new(),
        }
    }

    #[test]
    fn only_healthy_devices_that_nobody_has_are_free() {
        let mut registry = registry(&[("a", true), ("b", false), ("c", true), ("d", true)]);
        registry.give(given("p", &["c"]));
        assert_eq!(registry.free("x/y", 2), Ok(texts(&["a", "d"])));
        assert_eq!(registry.free("x/y", 3), Err(Shortage::Free(2)));
        assert_eq!(registry.free("x/z", 1), Err(Shortage::Unknown));
        assert!(registry.release("p") && !registry.release("p"));
        assert_eq!(registry.free("x/y", 3), Ok(texts(&["a", "c", "d"])));
    }

    #[test]
    fn devices_of_a_plugin_that_is_gone_are_unhealthy() {
        let mut registry = registry(&[("a", true), ("b", true)]);
        registry.withdraw("x/y", 1);
        let counts = registry.counts()["x/y"];
        assert_eq!((counts.capacity, counts.allocatable), (2, 0));
    }

    #[test]
    fn a_later_registration_replaces_an_earlier() {
        let mut registry = registry(&[("a", true)]);
        registry.register("x/y", 2);
        assert!(!registry.offer("x/y", 1, std::iter::empty()));
        registry.withdraw("x/y", 1);
        assert_eq!(registry.counts()["x/y"].allocatable, 1);
    }

    #[test]
    fn preferences_are_followed_as_far_as_they_can_be() {
        let free = texts(&["a", "b", "c"]);
        assert_eq!(
            choose(&free, &texts(&["c", "z", "c"]), 2),
            texts(&["c", "a"])
        );
        assert_eq!(choose(&free, &[], 1), texts(&["a"]));
    }
}
