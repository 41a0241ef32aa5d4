//! `virtctl create clone`.

use clap::{Args, ValueEnum};
use serde_json::{Map, Value, json};

use super::super::Session;
use super::vm::suffix;
use crate::failure::Failure;
use crate::{argument, report, yaml};

/// Create a VirtualMachineClone manifest.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  # Clone a virtual machine:
  virtctl create clone --source-name=myvm --target-name=mycopy | kubectl create -f -

  # Clone a snapshot, without the labels of a backup tool:
  virtctl create clone --source-name=mysnapshot --source-type=snapshot --label-filter='*' --label-filter='!backup/*'")]
pub(crate) struct CreateClone {
    /// Name of the clone object [default: a random one]
    #[arg(long, value_parser = argument::name)]
    name: Option<String>,
    /// Object to clone
    #[arg(long, value_name = "NAME", value_parser = argument::name)]
    source_name: String,
    /// Kind of that object: vm or snapshot
    #[arg(long, value_name = "TYPE", value_enum, default_value = "vm")]
    source_type: Kind,
    /// Name of the new virtual machine [default: one that the cluster makes up]
    #[arg(long, value_name = "NAME", value_parser = argument::name)]
    target_name: Option<String>,
    /// Kind of the new object: vm
    #[arg(long, value_name = "TYPE", value_enum, default_value = "vm")]
    target_type: TargetKind,
    #[command(flatten)]
    changes: Changes,
}

/// What is not as it was.
#[derive(Debug, Args)]
struct Changes {
    /// Labels to take over, '*' or '!KEY'; may be repeated
    #[arg(long, value_name = "FILTER")]
    label_filter: Vec<String>,
    /// Annotations to take over; may be repeated
    #[arg(long, value_name = "FILTER")]
    annotation_filter: Vec<String>,
    /// Labels of the template to take over; may be repeated
    #[arg(long, value_name = "FILTER")]
    template_label_filter: Vec<String>,
    /// Annotations of the template to take over; may be repeated
    #[arg(long, value_name = "FILTER")]
    template_annotation_filter: Vec<String>,
    /// MAC address of an interface, INTERFACE:ADDRESS; may be repeated
    #[arg(long, value_name = "PAIR", value_parser = mac_address)]
    new_mac_address: Vec<(String, String)>,
    /// Serial number in the SMBIOS tables
    #[arg(long, value_name = "SERIAL")]
    new_smbios_serial: Option<String>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Kind {
    #[value(aliases = ["VM", "VirtualMachine", "virtualmachine"])]
    Vm,
    #[value(aliases = ["vmsnapshot", "VMSnapshot", "VirtualMachineSnapshot"])]
    Snapshot,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum TargetKind {
    #[value(aliases = ["VM", "VirtualMachine", "virtualmachine"])]
    Vm,
}

/// Reads `INTERFACE:ADDRESS`; addresses are written with dashes or colons.
fn mac_address(text: &str) -> Result<(String, String), String> {
    match text.split_once(':') {
        Some((interface, address)) if !interface.is_empty() && !address.is_empty() => {
            Ok((interface.to_owned(), address.to_owned()))
        }
        _ => Err(format!("{text:?}: write INTERFACE:ADDRESS")),
    }
}

impl CreateClone {
    /// Prints the manifest.
    pub(super) fn run(&self, session: &Session) -> Result<(), Failure> {
        report::text(&yaml::text(
            &self.object(session.connection.namespace.as_deref(), suffix),
        )?)
    }

    fn object(&self, namespace: Option<&str>, suffix: impl Fn() -> String) -> Value {
        let made_up = || format!("clone-{}", suffix());
        let mut metadata = json!({"name": self.name.clone().unwrap_or_else(made_up)});
        if let Some(namespace) = namespace {
            metadata["namespace"] = json!(namespace);
        }
        let (group, kind) = match self.source_type {
            Kind::Vm => ("kubevirt.io", "VirtualMachine"),
            Kind::Snapshot => ("snapshot.kubevirt.io", "VirtualMachineSnapshot"),
        };
        let TargetKind::Vm = self.target_type;
        let mut spec = json!({
            "source": {"apiGroup": group, "kind": kind, "name": self.source_name},
            "target": {"apiGroup": "kubevirt.io", "kind": "VirtualMachine",
                "name": self.target_name.clone().unwrap_or_default()},
        });
        self.changes.apply(&mut spec);
        json!({
            "apiVersion": "clone.kubevirt.io/v1beta1", "kind": "VirtualMachineClone",
            "metadata": metadata, "spec": spec,
        })
    }
}

impl Changes {
    fn apply(&self, spec: &mut Value) {
        let own = [
            ("labelFilters", &self.label_filter),
            ("annotationFilters", &self.annotation_filter),
        ];
        for (field, filters) in own {
            if !filters.is_empty() {
                spec[field] = json!(filters);
            }
        }
        let of_template = [
            ("labelFilters", &self.template_label_filter),
            ("annotationFilters", &self.template_annotation_filter),
        ];
        for (field, filters) in of_template {
            if !filters.is_empty() {
                spec["template"][field] = json!(filters);
            }
        }
        if !self.new_mac_address.is_empty() {
            let addresses = self.new_mac_address.iter();
            let addresses: Map<String, Value> = addresses
                .map(|(interface, address)| (interface.clone(), json!(address)))
                .collect();
            spec["newMacAddresses"] = addresses.into();
        }
        if let Some(serial) = &self.new_smbios_serial {
            spec["newSMBiosSerial"] = json!(serial);
        }
    }
}
