//! What containers are offered, and why something is not.

use std::collections::{BTreeSet, HashMap};

use super::bus::Device;
use super::place::unit_id;
use super::share::Shares;
use super::{UsbMatch, UsbSelector};
use crate::resource::ResourceName;
use crate::unit::{Health, LeftOut, Node, Offer, Unit, VariablePrefix};
use crate::usb_list;

/// Most devices of a resource whose absence is told one by one.
const LEFT_OUT_MAX: usize = 64;
/// Most devices that one reason names.
const NAMED_MAX: usize = 4;

/// One offer for each resource, in the order in which they are asked for first.
pub(super) fn offers(selectors: &[UsbSelector], devices: &[Device], shares: &Shares) -> Vec<Offer> {
    let mut resources: Vec<(&ResourceName, Vec<usize>)> = Vec::new();
    let mut places: HashMap<&ResourceName, usize> = HashMap::new();
    for (index, selector) in selectors.iter().enumerate() {
        let place = *places.entry(&selector.resource).or_insert(resources.len());
        if place == resources.len() {
            resources.push((&selector.resource, Vec::new()));
        }
        resources[place].1.push(index);
    }
    let view = View {
        selectors,
        devices,
        shares,
    };
    let offer = |(resource, asking): &(&ResourceName, Vec<usize>)| view.offer(resource, asking);
    resources.iter().map(offer).collect()
}

struct View<'a> {
    selectors: &'a [UsbSelector],
    devices: &'a [Device],
    shares: &'a Shares,
}

impl View<'_> {
    fn offer(&self, resource: &ResourceName, asking: &[usize]) -> Offer {
        let units = asking.iter().flat_map(|&index| &self.shares.units[index]);
        Offer {
            resource: resource.clone(),
            variable: Some(VariablePrefix::Usb),
            units: units.map(|unit| self.unit(unit)).collect(),
            left_out: self.left_out(asking),
        }
    }

    fn unit(&self, unit: &[usize]) -> Unit {
        let devices: Vec<&Device> = unit.iter().map(|&index| &self.devices[index]).collect();
        let parts: Vec<String> = devices.iter().map(|device| device.place.part()).collect();
        Unit {
            id: unit_id(&parts),
            copies: 1,
            parts,
            health: health(&devices),
            numa_node: numa_node(&devices),
            nodes: devices.iter().map(|device| node(device)).collect(),
            addresses: devices
                .iter()
                .map(|device| format!("{}:{}", device.bus, device.number))
                .collect(),
        }
    }

    fn left_out(&self, asking: &[usize]) -> Vec<LeftOut> {
        let mut told = BTreeSet::new();
        let mut untold = 0;
        for &index in asking {
            let selector = &self.selectors[index];
            for left_out in selector
                .matches
                .iter()
                .flat_map(|asked| self.missed(index, asked))
            {
                if told.len() < LEFT_OUT_MAX {
                    told.insert(left_out);
                } else if !told.contains(&left_out) {
                    untold += 1;
                }
            }
        }
        let mut told: Vec<LeftOut> = told.into_iter().collect();
        if untold > 0 {
            told.push(LeftOut {
                device: format!("{untold} more"),
                reason: "left out for reasons like these".to_owned(),
            });
        }
        told
    }

    /// What fits one match of a selector and is not the selector's resource's, or that there is none.
    fn missed(&self, index: usize, asked: &UsbMatch) -> Vec<LeftOut> {
        let mut fitting = (0..self.devices.len())
            .filter(|&device| self.devices[device].fits(asked))
            .peekable();
        if fitting.peek().is_none() {
            let reason = self.absent(&self.selectors[index].resource, asked);
            let device = asked.to_string();
            return vec![LeftOut { device, reason }];
        }
        let missed = |device: usize| {
            let reason = self.reason(index, device)?;
            let device = self.devices[device].name.clone();
            Some(LeftOut { device, reason })
        };
        fitting.filter_map(missed).collect()
    }

    /// Why a selector has not got a device that fits it; none if its resource has.
    fn reason(&self, index: usize, device: usize) -> Option<String> {
        let selector = &self.selectors[index];
        if let Some(lack) = &self.devices[device].lack {
            return Some(lack.clone());
        }
        let Some(owner) = self.shares.owners[device] else {
            return Some(self.incomplete(selector));
        };
        let other = &self.selectors[owner.selector].resource;
        if *other == selector.resource {
            return None;
        }
        Some(match owner.is_held {
            true => format!("a container has it through {other}; it is free again when that ends"),
            false => format!(
                "{other} has it, which asks for it first; ask for it under one resource only, or for each by serial or port"
            ),
        })
    }

    /// Why a device is left although nobody has it: others that would make a unit with it are not there.
    fn incomplete(&self, selector: &UsbSelector) -> String {
        let is_free = |index: usize| {
            self.shares.owners[index].is_none() && self.devices[index].lack.is_none()
        };
        let is_short = |asked: &&UsbMatch| {
            !(0..self.devices.len()).any(|index| is_free(index) && self.devices[index].fits(asked))
        };
        let short = selector.matches.iter().filter(is_short);
        let short: BTreeSet<String> = short.map(UsbMatch::to_string).collect();
        let all: Vec<String> = selector.matches.iter().map(UsbMatch::to_string).collect();
        let lacking = match short.is_empty() {
            true => "enough of them".to_owned(),
            false => short.into_iter().collect::<Vec<_>>().join(" and "),
        };
        format!(
            "a unit of {} is {}, and for one more {lacking} is missing: plug it in",
            selector.resource,
            all.join(" with ")
        )
    }

    /// Why nothing fits a match, and what to do.
    fn absent(&self, resource: &ResourceName, asked: &UsbMatch) -> String {
        let of_make = |make| {
            let devices = self
                .devices
                .iter()
                .filter(move |device| device.make == make);
            devices.collect::<Vec<&Device>>()
        };
        let same = of_make((asked.vendor, asked.product));
        if !same.is_empty() {
            return elsewhere(asked, &same);
        }
        let mut swapped = of_make((asked.product, asked.vendor));
        swapped.retain(|device| device.lack.is_none());
        if !swapped.is_empty() {
            return turned(resource, asked, &swapped);
        }
        "no such device is plugged in here".to_owned()
    }
}

/// Tells that devices of the right make are there, but not with the serial number, bus or port.
fn elsewhere(asked: &UsbMatch, same: &[&Device]) -> String {
    let name = |device: &&Device| match &device.serial {
        Some(serial) => format!("{} (serial {serial:?})", device.name),
        None if asked.serial.is_some() => format!("{} (no serial)", device.name),
        None => device.name.clone(),
    };
    let named: Vec<String> = same.iter().take(NAMED_MAX).map(name).collect();
    let make = UsbMatch {
        vendor: asked.vendor,
        product: asked.product,
        ..UsbMatch::default()
    };
    format!(
        "no such device is plugged in here; of {make} there is {}{}: correct the serial, bus or port, or plug it in there",
        named.join(", "),
        more(same)
    )
}

/// Tells that vendor and product are likely to be the wrong way round.
fn turned(resource: &ResourceName, asked: &UsbMatch, swapped: &[&Device]) -> String {
    let meant = UsbMatch {
        vendor: asked.product,
        product: asked.vendor,
        ..asked.clone()
    };
    let named: Vec<&str> = swapped
        .iter()
        .take(NAMED_MAX)
        .map(|device| device.name.as_str())
        .collect();
    format!(
        "no such device is plugged in here, but {:04x}:{:04x} is ({}{}), so vendor and product seem to be swapped: the order is \
         resource;vendor;product; write {} in the usbList, or vendor \"{:04x}\" and product \"{:04x}\"",
        meant.vendor,
        meant.product,
        named.join(", "),
        more(swapped),
        usb_list::item(resource, &meant),
        meant.vendor,
        meant.product
    )
}

fn more(devices: &[&Device]) -> String {
    match devices.len().saturating_sub(NAMED_MAX) {
        0 => String::new(),
        more => format!(" and {more} more"),
    }
}

fn health(devices: &[&Device]) -> Health {
    let reason = |device: &&Device| match &device.health {
        Health::Healthy => None,
        Health::Unhealthy(reason) => Some(reason.clone()),
    };
    let reasons: Vec<String> = devices.iter().filter_map(reason).collect();
    match reasons.is_empty() {
        true => Health::Healthy,
        false => Health::Unhealthy(reasons.join("; ")),
    }
}

/// The node that all devices are near to.
fn numa_node(devices: &[&Device]) -> Option<u32> {
    let first = devices.first()?.numa_node?;
    devices
        .iter()
        .all(|device| device.numa_node == Some(first))
        .then_some(first)
}

fn node(device: &Device) -> Node {
    Node {
        path: device.node(),
        permissions: "mrw".to_owned(),
        is_owned: true,
    }
}
