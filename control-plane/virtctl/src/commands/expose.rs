//! `virtctl expose`: a service in front of machines.

mod service;

use clap::{Args, ValueEnum};

use self::service::{Exposed, service};
use super::Session;
use crate::argument;
use crate::cluster::Cluster;
use crate::failure::Failure;
use crate::report;

/// Expose a virtual machine, an instance or a replica set as a new service.
///
/// Without --port the ports of the interface in the pod network are taken.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  # Expose SSH of a virtual machine called 'myvm' on each node:
  virtctl expose vm myvm --port=22 --name=myvm-ssh --type=NodePort

  # Expose all ports that the instances of a replica set list:
  virtctl expose vmirs myvmirs --name=vmirs-service

  # Serve port 8080 of the guest as port 80:
  virtctl expose vmi myvmi --port=80 --target-port=8080 --name=web")]
pub(crate) struct Expose {
    /// vm, vmi or vmirs
    #[arg(value_name = "TYPE", value_parser = exposed)]
    kind: Exposed,
    /// Name of the object
    #[arg(value_name = "NAME", value_parser = argument::name)]
    object: String,
    #[command(flatten)]
    service: ServiceFlags,
}

/// What a service is to be.
#[derive(Debug, Args)]
struct ServiceFlags {
    /// Name of the service
    #[arg(long, value_parser = argument::name)]
    name: String,
    /// Port of the service
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,
    /// Port of the guest, number or name [default: the port of the service]
    #[arg(long, value_name = "PORT")]
    target_port: Option<String>,
    /// Name of the port
    #[arg(long, value_name = "NAME")]
    port_name: Option<String>,
    /// Protocol of the port
    #[arg(long, value_enum, ignore_case = true, default_value = "TCP")]
    protocol: Protocol,
    /// How the service is reached
    #[arg(
        long = "type",
        value_name = "TYPE",
        value_enum,
        ignore_case = true,
        default_value = "ClusterIP"
    )]
    service_type: ServiceType,
    /// Address of the service inside of the cluster; None makes one without an address
    #[arg(long, value_name = "IP")]
    cluster_ip: Option<String>,
    /// Address outside of the cluster that is routed to a node; may be repeated
    #[arg(long, value_name = "IP")]
    external_ip: Vec<std::net::IpAddr>,
    /// IPv4, IPv6, or both in the order of preference
    #[arg(
        long,
        value_name = "FAMILY,...",
        value_enum,
        ignore_case = true,
        value_delimiter = ','
    )]
    ip_family: Vec<IpFamily>,
    /// Whether both IP families must be there
    #[arg(long, value_name = "POLICY", value_enum, ignore_case = true)]
    ip_family_policy: Option<IpFamilyPolicy>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
#[value(rename_all = "verbatim")]
enum Protocol {
    #[value(name = "TCP")]
    Tcp,
    #[value(name = "UDP")]
    Udp,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ServiceType {
    #[value(name = "ClusterIP")]
    ClusterIp,
    #[value(name = "NodePort")]
    NodePort,
    #[value(name = "LoadBalancer")]
    LoadBalancer,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum IpFamily {
    #[value(name = "IPv4")]
    V4,
    #[value(name = "IPv6")]
    V6,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum IpFamilyPolicy {
    #[value(name = "SingleStack")]
    Single,
    #[value(name = "PreferDualStack")]
    PreferDual,
    #[value(name = "RequireDualStack")]
    RequireDual,
}

/// Returns the name of a value in objects.
fn word(value: &impl ValueEnum) -> String {
    let value = value.to_possible_value();
    value
        .map(|value| value.get_name().to_owned())
        .unwrap_or_default()
}

fn exposed(text: &str) -> Result<Exposed, String> {
    match text.to_ascii_lowercase().as_str() {
        "vmirs"
        | "vmirss"
        | "virtualmachineinstancereplicaset"
        | "virtualmachineinstancereplicasets" => Ok(Exposed::ReplicaSet),
        _ => argument::kind(text)
            .map(Exposed::Object)
            .map_err(|_| format!("unsupported resource type {text:?}: use vm, vmi or vmirs")),
    }
}

impl Expose {
    /// Makes the service.
    pub(super) async fn run(&self, session: &Session) -> Result<(), Failure> {
        let cluster = session.cluster().await?;
        let object = self.read(&cluster).await?;
        let service = service(self.kind, &object, &cluster.namespace, &self.service)
            .map_err(Failure::Argument)?;
        let path = format!("/api/v1/namespaces/{}/services", cluster.namespace);
        let answer = cluster.post(&path, &service).await;
        answer.map_err(|refusal| refusal.of("service creation failed:"))?;
        report::line(&format!(
            "Service {} successfully created for {} {}",
            self.service.name,
            self.kind.short(),
            self.object
        ))
    }

    async fn read(&self, cluster: &Cluster) -> Result<serde_json::Value, Failure> {
        let path = format!("{}/{}", cluster.objects(self.kind.plural()), self.object);
        let object = cluster.get(&path).await;
        object.map_err(|refusal| refusal.of(format!("error fetching {}:", self.kind.word())))
    }
}
