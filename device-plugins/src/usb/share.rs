//! Who gets which device.

use std::collections::HashMap;

use super::UsbSelector;
use super::bus::Device;
use crate::source::HeldUnit;

/// Who gets which device. Selectors and devices are numbered as in the lists that were shared out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Shares {
    /// The units of each selector: a device for each of its matches.
    pub(super) units: Vec<Vec<Vec<usize>>>,
    /// Who has each device.
    pub(super) owners: Vec<Option<Owner>>,
}

/// Who has a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Owner {
    /// The selector.
    pub(super) selector: usize,
    /// Whether a container has it already.
    pub(super) is_held: bool,
}

/// Shares out the devices. First come the units that containers have: what is left of one is nobody else's. Then each
/// selector in order gets as many units as there are devices for.
pub(super) fn share(selectors: &[UsbSelector], held: &[HeldUnit], devices: &[Device]) -> Shares {
    let mut shares = Shares {
        units: vec![Vec::new(); selectors.len()],
        owners: devices.iter().map(|_| None).collect(),
    };
    if !held.is_empty() {
        shares.keep(selectors, held, devices);
    }
    for (index, selector) in selectors.iter().enumerate() {
        shares.take(index, selector, devices);
    }
    for units in &mut shares.units {
        units.sort_unstable();
    }
    shares
}

impl Shares {
    fn keep(&mut self, selectors: &[UsbSelector], held: &[HeldUnit], devices: &[Device]) {
        let by_part: HashMap<String, usize> = (devices.iter().enumerate())
            .map(|(index, device)| (device.place.part(), index))
            .collect();
        for unit in held {
            let found: Vec<Option<usize>> = unit
                .parts
                .iter()
                .map(|part| by_part.get(part).copied())
                .collect();
            let is_its = |selector: &UsbSelector| {
                selector.resource == unit.resource && self.can_be(selector, &found, devices)
            };
            if let Some(selector) = selectors.iter().position(is_its) {
                let is_held = true;
                self.give(Owner { selector, is_held }, &found);
            }
        }
    }

    /// Whether the devices that are left of a unit can be one of the selector's.
    fn can_be(&self, selector: &UsbSelector, found: &[Option<usize>], devices: &[Device]) -> bool {
        let is_fit = |(asked, index): (_, &Option<usize>)| {
            index.is_none_or(|index| self.is_free(index, devices) && devices[index].fits(asked))
        };
        let present: Vec<usize> = found.iter().copied().flatten().collect();
        let is_once = |index: &usize| present.iter().filter(|other| *other == index).count() == 1;
        selector.matches.len() == found.len()
            && present.iter().all(is_once)
            && selector.matches.iter().zip(found).all(is_fit)
    }

    fn is_free(&self, index: usize, devices: &[Device]) -> bool {
        self.owners[index].is_none() && devices[index].lack.is_none()
    }

    fn give(&mut self, owner: Owner, found: &[Option<usize>]) {
        for &index in found.iter().flatten() {
            self.owners[index] = Some(owner);
        }
        if let Some(unit) = found.iter().copied().collect::<Option<Vec<usize>>>() {
            self.units[owner.selector].push(unit);
        }
    }

    fn take(&mut self, index: usize, selector: &UsbSelector, devices: &[Device]) {
        // Matches that few devices fit choose first, so that the others do not take these from them.
        let mut order: Vec<usize> = (0..selector.matches.len()).collect();
        order.sort_by_key(|&index| std::cmp::Reverse(selector.matches[index].strictness()));
        let owner = Owner {
            selector: index,
            is_held: false,
        };
        while let Some(unit) = self.next_unit(selector, &order, devices) {
            self.give(owner, &unit);
        }
    }

    /// A device for every match, if there are.
    fn next_unit(
        &self,
        selector: &UsbSelector,
        order: &[usize],
        devices: &[Device],
    ) -> Option<Vec<Option<usize>>> {
        let mut unit = vec![None; order.len()];
        for &index in order {
            let is_fit = |&device: &usize| {
                self.is_free(device, devices)
                    && !unit.contains(&Some(device))
                    && devices[device].fits(&selector.matches[index])
            };
            unit[index] = Some((0..devices.len()).find(is_fit)?);
        }
        (!unit.is_empty()).then_some(unit)
    }
}
