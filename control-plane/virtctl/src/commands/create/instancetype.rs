//! `virtctl create instancetype` and `virtctl create preference`.

use api::Quantity;
use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use super::super::Session;
use super::parameters::Parameters;
use super::vm::suffix;
use crate::failure::Failure;
use crate::{argument, report, yaml};

const API_VERSION: &str = "instancetype.kubevirt.io/v1beta1";

/// Create a VirtualMachineInstancetype or VirtualMachineClusterInstancetype manifest.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  # An instance type for all namespaces:
  virtctl create instancetype --name=small --cpu=2 --memory=2Gi | kubectl create -f -

  # One of a namespace, with a device:
  virtctl create instancetype --namespaced --cpu=4 --memory=8Gi --hostdevice=name:nic,devicename:example.org/nic")]
pub(crate) struct CreateInstancetype {
    #[command(flatten)]
    place: Place,
    /// Number of processors
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    cpu: u32,
    /// Memory
    #[arg(long, value_name = "SIZE")]
    memory: Quantity,
    /// Virtual GPU, name:NAME,devicename:RESOURCE; may be repeated
    #[arg(long, value_name = "PARAMS")]
    gpu: Vec<String>,
    /// Device of the host, name:NAME,devicename:RESOURCE; may be repeated
    #[arg(long, value_name = "PARAMS")]
    hostdevice: Vec<String>,
    /// How disks share threads
    #[arg(long, value_name = "POLICY", value_enum)]
    iothreadspolicy: Option<ThreadsPolicy>,
}

/// Create a VirtualMachinePreference or VirtualMachineClusterPreference manifest.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  # A preference for all namespaces:
  virtctl create preference --name=server --cpu-topology=sockets | kubectl create -f -")]
pub(crate) struct CreatePreference {
    #[command(flatten)]
    place: Place,
    /// As what processors show up in the guest
    #[arg(long, value_name = "TOPOLOGY", value_enum)]
    cpu_topology: Option<Topology>,
    /// Machine type
    #[arg(long, value_name = "TYPE")]
    machine_type: Option<String>,
    /// Storage class of volumes
    #[arg(long, value_name = "CLASS")]
    volume_storage_class: Option<String>,
}

/// Name and namespace.
#[derive(Debug, Args)]
struct Place {
    /// Name of the object [default: a random one]
    #[arg(long, value_parser = argument::name)]
    name: Option<String>,
    /// For one namespace instead of all; --namespace says so, too
    #[arg(long, num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true", hide_default_value = true, value_name = "BOOL")]
    namespaced: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ThreadsPolicy {
    Auto,
    Shared,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Topology {
    Sockets,
    Cores,
    Threads,
    Spread,
    Any,
}

impl Place {
    /// Returns an object without a specification; `word` is that of the kind.
    fn object(&self, namespace: Option<&str>, word: &str, suffix: impl Fn() -> String) -> Value {
        let is_namespaced = self.namespaced || namespace.is_some();
        let scope = if is_namespaced { "" } else { "Cluster" };
        let made_up = || format!("{scope}{word}-{}", suffix()).to_lowercase();
        let mut metadata = json!({"name": self.name.clone().unwrap_or_else(made_up)});
        if let Some(namespace) = namespace {
            metadata["namespace"] = json!(namespace);
        }
        json!({
            "apiVersion": API_VERSION, "kind": format!("VirtualMachine{scope}{word}"),
            "metadata": metadata, "spec": {},
        })
    }
}

impl CreateInstancetype {
    /// Prints the manifest.
    pub(super) fn run(&self, session: &Session) -> Result<(), Failure> {
        let namespace = session.connection.namespace.as_deref();
        let object = self.object(namespace, suffix).map_err(Failure::Argument)?;
        report::text(&yaml::text(&object)?)
    }

    fn object(
        &self,
        namespace: Option<&str>,
        suffix: impl Fn() -> String,
    ) -> Result<Value, String> {
        let mut object = self.place.object(namespace, "Instancetype", suffix);
        let spec = &mut object["spec"];
        spec["cpu"] = json!({"guest": self.cpu});
        spec["memory"] = json!({"guest": self.memory});
        for (flag, field, devices) in [
            ("gpu", "gpus", &self.gpu),
            ("hostdevice", "hostDevices", &self.hostdevice),
        ] {
            let devices: Vec<Value> = devices
                .iter()
                .map(|text| device(flag, text))
                .collect::<Result<_, _>>()?;
            if !devices.is_empty() {
                spec[field] = devices.into();
            }
        }
        if let Some(policy) = self.iothreadspolicy {
            spec["ioThreadsPolicy"] = json!(word(&policy));
        }
        Ok(object)
    }
}

impl CreatePreference {
    /// Prints the manifest.
    pub(super) fn run(&self, session: &Session) -> Result<(), Failure> {
        let namespace = session.connection.namespace.as_deref();
        report::text(&yaml::text(&self.object(namespace, suffix))?)
    }

    fn object(&self, namespace: Option<&str>, suffix: impl Fn() -> String) -> Value {
        let mut object = self.place.object(namespace, "Preference", suffix);
        let spec = &mut object["spec"];
        if let Some(topology) = self.cpu_topology {
            spec["cpu"] = json!({"preferredCPUTopology": word(&topology)});
        }
        if let Some(machine) = &self.machine_type {
            spec["machine"] = json!({"preferredMachineType": machine});
        }
        if let Some(class) = &self.volume_storage_class {
            spec["volumes"] = json!({"preferredStorageClassName": class});
        }
        object
    }
}

fn device(flag: &'static str, text: &str) -> Result<Value, String> {
    let parameters = Parameters::parse(flag, text)?;
    parameters.check(&["name", "devicename"])?;
    let name = parameters.required("name")?;
    Ok(json!({"name": name, "deviceName": parameters.required("devicename")?}))
}

/// Returns the name of a value in objects.
fn word(value: &impl ValueEnum) -> String {
    let value = value.to_possible_value();
    value
        .map(|value| value.get_name().to_owned())
        .unwrap_or_default()
}
