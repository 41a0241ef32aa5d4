use std::sync::Arc;

use super::{DEVICES, PciAddress, PciBus, PciError};
use crate::bus::{MmioBus, PortBus};
use crate::fuzz::Sink;
use crate::pci::PciFunction;
use crate::pvpanic::PvpanicPci;

fn function() -> Arc<dyn PciFunction> {
    Arc::new(PvpanicPci::new(Arc::new(Sink)))
}

#[test]
fn places_are_taken_once_and_run_out() {
    let bus = PciBus::new(&Arc::new(PortBus::new()), &Arc::new(MmioBus::new()));
    let at = PciAddress::new(1, 0).unwrap();
    bus.add(at, function()).unwrap();
    assert_eq!(bus.add(at, function()), Err(PciError::Taken { at }));
    for device in 2..DEVICES {
        assert_eq!(
            bus.add_anywhere(&function()),
            Ok(PciAddress::new(device, 0).unwrap())
        );
    }
    assert_eq!(bus.add_anywhere(&function()), Err(PciError::Full));
    assert_eq!(bus.functions().len(), 31);
    assert_eq!(at.to_string(), "00:01.0");
}

#[test]
fn addresses_outside_the_bus_do_not_exist() {
    assert_eq!(PciAddress::new(32, 0), None);
    assert_eq!(PciAddress::new(0, 8), None);
}
