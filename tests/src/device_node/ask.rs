//! What tests ask a node for, in their own words.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::DeviceNode;
use super::protocol::{Answer, Given, Offers, Owner, Request};
use crate::guests::repository;

/// Time for a change to reach the kubelet. It takes a fraction of a second; this is for hosts that do much else.
const PATIENCE: Duration = Duration::from_secs(30);
/// Container to which devices are given.
const CONTAINER: &str = "compute";
/// Where PCI drivers are asked to look at a device.
const PROBE: &str = "/sys/bus/pci/drivers_probe";

impl DeviceNode {
    /// Runs a program in the node and returns what it printed.
    ///
    /// # Panics
    ///
    /// When it fails.
    pub fn run(&mut self, command: &[&str]) -> String {
        let command = command.iter().map(|&word| word.to_owned()).collect();
        text(&self.ask(&Request::Run { command }))
    }

    /// Reads a file of the node without the white space around it.
    ///
    /// # Panics
    ///
    /// When it cannot be read.
    pub fn read(&mut self, path: &str) -> String {
        let path = path.into();
        text(&self.ask(&Request::Read { path })).trim().to_owned()
    }

    /// Writes to a file of the node.
    ///
    /// # Panics
    ///
    /// When it does not take it.
    pub fn write(&mut self, path: &str, text: &str) {
        let (path, text) = (path.into(), text.to_owned());
        self.ask(&Request::Write { path, text });
    }

    /// The last part of where a link leads: the address of a virtual function for `virtfn0`, the name of a driver for `driver`.
    ///
    /// # Panics
    ///
    /// When there is no such link.
    pub fn link_name(&mut self, path: &str) -> String {
        let path = path.into();
        let target = text(&self.ask(&Request::Link { path }));
        let name = target.rsplit('/').next();
        name.unwrap_or_default().to_owned()
    }

    /// Whose a device node is.
    ///
    /// # Panics
    ///
    /// When there is no such file.
    pub fn owner(&mut self, path: &str) -> Owner {
        let path = path.into();
        told(self.ask(&Request::Owner { path }))
    }

    /// Binds a PCI device, a folder or link of sysfs, to a driver; it has none now.
    ///
    /// # Panics
    ///
    /// When the driver does not take it.
    pub fn bind(&mut self, device: &str, driver: &str) {
        let address = self.link_name(device);
        self.write(&format!("{device}/driver_override"), driver);
        self.write(PROBE, &address);
        assert_eq!(self.link_name(&format!("{device}/driver")), driver);
    }

    /// Takes a PCI device from its driver, and leaves none asked for.
    ///
    /// # Panics
    ///
    /// When it has no driver.
    pub fn unbind(&mut self, device: &str) {
        let address = self.link_name(device);
        self.write(&format!("{device}/driver/unbind"), &address);
        self.write(&format!("{device}/driver_override"), "\n");
    }

    /// What the kubelet is offered.
    ///
    /// # Panics
    ///
    /// When the agent does not tell.
    pub fn offers(&mut self) -> Offers {
        told(self.ask(&Request::Offers))
    }

    /// Waits until the kubelet has so many units of a resource, all of them and those that can be given.
    ///
    /// # Panics
    ///
    /// When it has not in time; the message has the table of devices and what the node agent logged.
    pub fn wait_for(&mut self, resource: &str, capacity: usize, allocatable: usize) {
        let request = Request::Await {
            resource: resource.to_owned(),
            capacity,
            allocatable,
            patience: PATIENCE,
        };
        if let Err(reason) = self.try_ask(&request) {
            self.fail(&reason);
        }
    }

    /// Waits until what the kubelet is offered is as wanted; `what` names that in the failure.
    ///
    /// # Panics
    ///
    /// As [`Self::wait_for`].
    pub fn wait_until(&mut self, what: &str, is_so: impl Fn(&Offers) -> bool) {
        let mut last = Offers::new();
        let is_so = self.until(|node| {
            last = node.offers();
            is_so(&last)
        });
        if !is_so {
            self.fail(&format!("not so that {what}: {last:#?}"));
        }
    }

    /// Asks until something is so; false when it is not in time.
    pub fn until(&mut self, mut is_so: impl FnMut(&mut Self) -> bool) -> bool {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if is_so(self) {
                return true;
            }
            if Instant::now() > deadline {
                return false;
            }
        }
    }

    /// Ends the test, with the table of devices and what the node agent logged.
    ///
    /// # Panics
    ///
    /// Always.
    pub fn fail(&mut self, reason: &str) -> ! {
        let (log, table) = (self.handler_log(), self.table());
        panic!("{reason}\n{table}\nhandler:\n{log}");
    }

    /// Gives devices to the container of a pod; a pod that has them gets the same.
    ///
    /// # Panics
    ///
    /// When the kubelet or the plugin refuses.
    pub fn allocate(&mut self, pod: &str, resource: &str, count: usize) -> Given {
        let answer = self.try_allocate(pod, resource, count);
        let given = answer.unwrap_or_else(|reason| self.fail(&reason));
        told(given)
    }

    /// Asks for devices for the container of a pod.
    ///
    /// # Errors
    ///
    /// Why the kubelet or the plugin refuses.
    pub fn try_allocate(&mut self, pod: &str, resource: &str, count: usize) -> Answer {
        self.try_ask(&Request::Allocate {
            pod: pod.to_owned(),
            container: CONTAINER.to_owned(),
            resource: resource.to_owned(),
            count,
        })
    }

    /// Ends a pod.
    ///
    /// # Panics
    ///
    /// When there is none.
    pub fn remove_pod(&mut self, pod: &str) {
        let pod = pod.to_owned();
        self.ask(&Request::RemovePod { pod });
    }

    /// The table that an operator sees.
    ///
    /// # Panics
    ///
    /// When the node agent has left no report.
    pub fn table(&mut self) -> String {
        self.run(&["/node/virt-handler", "devices"])
    }

    /// The table once it has a text.
    ///
    /// # Panics
    ///
    /// When it has not in time.
    pub fn table_with(&mut self, wanted: &str) -> String {
        let mut table = String::new();
        let has = self.until(|node| {
            table = node.table();
            table.contains(wanted)
        });
        if !has {
            self.fail(&format!("the table does not say {wanted:?}"));
        }
        table
    }

    /// Writes what sysfs shows to a fixture of the device plugins, where `FERROVIRT_RECORD=1` asks for it. The comment at its
    /// top is kept.
    ///
    /// # Panics
    ///
    /// When it cannot be written.
    pub fn record(&mut self, fixture: &str) {
        if std::env::var_os("FERROVIRT_RECORD").is_none_or(|value| value != "1") {
            return;
        }
        let path: PathBuf = repository().join("device-plugins/fixtures").join(fixture);
        let path = path.with_extension("tree");
        let old = std::fs::read_to_string(&path).unwrap_or_default();
        let comment = old.split_inclusive('\n');
        let comment: String = comment.take_while(|line| line.starts_with('#')).collect();
        let lines = text(&self.ask(&Request::Record));
        std::fs::write(path, comment + &lines).expect("write the fixture");
    }
}

/// The rows of a table about a resource.
#[must_use]
pub fn rows<'a>(table: &'a str, resource: &str) -> Vec<&'a str> {
    let of_it = |row: &&str| row.split_whitespace().next() == Some(resource);
    table.lines().filter(of_it).collect()
}

/// The row of a table about a device of a resource.
///
/// # Panics
///
/// When there is none.
#[must_use]
pub fn row<'a>(table: &'a str, resource: &str, device: &str) -> &'a str {
    let mut rows = rows(table, resource).into_iter();
    let found = rows.find(|row| row.contains(device));
    found.unwrap_or_else(|| panic!("no {device} of {resource} in\n{table}"))
}

/// How many units of a resource can be given.
#[must_use]
pub fn healthy(offers: &Offers, resource: &str) -> usize {
    let units = offers.get(resource).into_iter().flatten();
    units.filter(|(_, unit)| unit.is_healthy).count()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn told<T: DeserializeOwned>(answer: Value) -> T {
    serde_json::from_value(answer).expect("the agent keeps to the protocol")
}
