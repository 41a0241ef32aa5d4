//! Decides what is offered of the functions that were found, and says why the others are not.

use std::collections::BTreeMap;

use super::function::{Function, Role};
use super::group::{Group, Member};
use super::{PciDevices, PciSelector};
use crate::resource::ResourceName;
use crate::unit::{LeftOut, Offer, Unit, VariablePrefix};
use crate::vfio;

/// Most group members that a reason names; the first few lead on.
const NAMED_MAX: usize = 4;

/// A function that can be given.
struct Ready<'a> {
    function: &'a Function,
    /// The selector that it belongs to.
    rank: usize,
    group: u32,
}

/// The offers of all resources that are asked for, in the order in which they first are. `functions` are in the order of
/// their addresses, `groups` are those that they are in.
pub(super) fn offers(
    asked: &PciDevices,
    functions: &[Function],
    groups: &BTreeMap<u32, Group>,
) -> Vec<Offer> {
    let mut offers = Offers::new(&asked.selectors);
    let mut ready: BTreeMap<u32, Vec<Ready<'_>>> = BTreeMap::new();
    for function in functions {
        let Some(rank) = offers.claim(&asked.selectors, function) else {
            continue;
        };
        match group_of(function, groups, asked.bind_vfio) {
            Ok(group) => ready.entry(group).or_default().push(Ready {
                function,
                rank,
                group,
            }),
            Err(reason) => offers.leave_out(&asked.selectors[rank].resource, function, reason),
        }
    }
    let mut ready: Vec<Vec<Ready<'_>>> = ready.into_values().collect();
    ready.sort_by_key(|members| members.first().map(|first| first.function.address));
    for members in &ready {
        offers.add_group(&asked.selectors, groups, members);
    }
    offers.finish()
}

/// The offers while they come together.
struct Offers(Vec<Offer>);

impl Offers {
    fn new(selectors: &[PciSelector]) -> Self {
        let mut offers: Vec<Offer> = Vec::new();
        for selector in selectors {
            if !offers
                .iter()
                .any(|offer| offer.resource == selector.resource)
            {
                offers.push(Offer {
                    resource: selector.resource.clone(),
                    variable: Some(VariablePrefix::Pci),
                    units: Vec::new(),
                    left_out: Vec::new(),
                });
            }
        }
        Self(offers)
    }

    /// The first selector that a function fits. Other resources that ask for it are told.
    fn claim(&mut self, selectors: &[PciSelector], function: &Function) -> Option<usize> {
        let rank = selectors.iter().position(|one| one.fits(function.ids))?;
        let first = &selectors[rank].resource;
        for other in &selectors[rank + 1..] {
            if other.fits(function.ids) && other.resource != *first {
                let reason = format!("belongs to {first}, whose selector for it comes first");
                self.leave_out(&other.resource, function, reason);
            }
        }
        Some(rank)
    }

    /// Offers a group to the resource that asked first, with the functions that this one asked for.
    fn add_group(
        &mut self,
        selectors: &[PciSelector],
        groups: &BTreeMap<u32, Group>,
        ready: &[Ready<'_>],
    ) {
        let Some(first) = ready.iter().min_by_key(|one| one.rank) else {
            return;
        };
        let resource = &selectors[first.rank].resource;
        let (own, others): (Vec<_>, Vec<_>) = ready
            .iter()
            .partition(|one| selectors[one.rank].resource == *resource);
        for other in others {
            let reason = format!(
                "shares IOMMU group {} with {}, which {resource} asked for first and offers: a group is given as a whole",
                other.group, first.function.address
            );
            self.leave_out(&selectors[other.rank].resource, other.function, reason);
        }
        let unit = unit(&groups[&first.group], &own);
        self.of(resource).units.extend(unit);
    }

    fn leave_out(&mut self, resource: &ResourceName, function: &Function, reason: String) {
        let left_out = LeftOut {
            device: function.address.to_string(),
            reason,
        };
        let list = &mut self.of(resource).left_out;
        if !list.contains(&left_out) {
            list.push(left_out);
        }
    }

    fn of(&mut self, resource: &ResourceName) -> &mut Offer {
        let mut offers = self.0.iter_mut();
        offers
            .find(|offer| offer.resource == *resource)
            .expect("every selector's resource has an offer")
    }

    fn finish(mut self) -> Vec<Offer> {
        for offer in &mut self.0 {
            offer.left_out.sort();
        }
        self.0
    }
}

/// The group as a unit, named and addressed by the functions that were asked for, which are in the order of their addresses.
fn unit(group: &Group, functions: &[&Ready<'_>]) -> Option<Unit> {
    let first = functions.first()?;
    let device_nodes = functions.iter().flat_map(|one| one.function.nodes.clone());
    Some(Unit {
        id: first.function.address.unit_id(),
        copies: 1,
        parts: group.parts(),
        health: group.health.clone(),
        numa_node: functions.iter().find_map(|one| one.function.numa_node),
        nodes: vfio::nodes(first.group, device_nodes),
        addresses: functions
            .iter()
            .map(|one| one.function.address.to_string())
            .collect(),
    })
}

/// The group in which a function can be given.
fn group_of(
    function: &Function,
    groups: &BTreeMap<u32, Group>,
    is_binding: bool,
) -> Result<u32, String> {
    check_role(function)?;
    if function.is_bridge() {
        return Err(
            "is a bridge, which no machine can be given: ask for the devices behind it".to_owned(),
        );
    }
    let (number, group) = function
        .group
        .and_then(|number| Some((number, groups.get(&number)?)))
        .ok_or("has no IOMMU group: switch the IOMMU on in the firmware (VT-d, AMD-Vi) and in the kernel (intel_iommu=on)")?;
    if group.is_unprotected {
        return Err(format!(
            "is in IOMMU group {number}, which keeps nothing from the host's memory (enable_unsafe_noiommu_mode): switch a real IOMMU on in the firmware and in the kernel (intel_iommu=on)"
        ));
    }
    if !function.is_vfio {
        return Err(unbound(function, is_binding));
    }
    check_members(function, number, group)?;
    Ok(number)
}

fn unbound(function: &Function, is_binding: bool) -> String {
    let address = function.address;
    let is_kept = function.driver_override.as_deref() == Some("vfio-pci");
    match &function.driver {
        None if is_kept => {
            "has no driver although it is kept for vfio-pci: modprobe vfio-pci, then see the kernel's log for what vfio-pci says of it".to_owned()
        }
        driver => {
            let state = match driver {
                Some(name) => format!("has the driver {name}"),
                None => "has no driver".to_owned(),
            };
            let or = if function.is_virtual() && !is_binding {
                ", or start the node agent with --bind-vfio"
            } else {
                ""
            };
            format!("{state}: bind it to vfio-pci (driverctl set-override {address} vfio-pci){or}")
        }
    }
}

/// Sees to it that neither a card's owner nor its parts are given while the other side is in use.
fn check_role(function: &Function) -> Result<(), String> {
    match &function.role {
        Role::Physical(0)
        | Role::Virtual {
            is_physical_vfio: false,
            ..
        } => Ok(()),
        Role::Physical(count) => Err(format!(
            "has virtual functions ({count}): ask for those, or remove them to offer it as a whole (write 0 to its sriov_numvfs)"
        )),
        Role::Virtual { physical, .. } => Err(format!(
            "is a virtual function of {physical}, which is bound to VFIO itself and would ask for a token: give {physical} its own driver back"
        )),
    }
}

fn check_members(function: &Function, number: u32, group: &Group) -> Result<(), String> {
    let name = function.address.to_string();
    if !group.members.iter().any(|member| member.name == name) {
        return Err(format!(
            "is not listed in its IOMMU group {number}: see /sys/kernel/iommu_groups/{number}/devices"
        ));
    }
    let blockers: Vec<&Member> = group.blockers().collect();
    if blockers.is_empty() {
        return Ok(());
    }
    let named = blockers.iter().take(NAMED_MAX).map(|member| {
        let driver = member.driver.as_deref().unwrap_or("none");
        format!("{} (driver {driver})", member.name)
    });
    let more = match blockers.len().saturating_sub(NAMED_MAX) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let named = named.collect::<Vec<_>>().join(", ");
    Err(format!(
        "shares IOMMU group {number} with {named}{more}: a group is given as a whole, so bind what else is in it to vfio-pci too, or leave it without a driver"
    ))
}
