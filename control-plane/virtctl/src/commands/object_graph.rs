//! `virtctl objectgraph`.

use clap::{Args, ValueEnum};
use serde_json::{Map, Value, json};

use super::Session;
use crate::argument::{self, Subject};
use crate::cluster::Kind;
use crate::failure::Failure;
use crate::{report, yaml};

/// Print the objects that belong to a virtual machine: pods, volumes, secrets.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  # The virtual machine is called 'myvm':
  virtctl objectgraph myvm

  # Of an instance, and only what it stores on:
  virtctl objectgraph --vmi myvmi --selector=kubevirt.io/dependency-type=storage")]
pub(crate) struct ObjectGraph {
    /// Virtual machine; vm/NAME, vmi/NAME
    #[arg(value_name = "NAME")]
    object: String,
    /// Name, where the first word is vm or vmi
    #[arg(hide = true)]
    name: Option<String>,
    /// The name is that of an instance
    #[arg(long, num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true", hide_default_value = true, value_name = "BOOL")]
    vmi: bool,
    /// Leave out what it gets on without
    #[arg(long, num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true", hide_default_value = true, value_name = "BOOL")]
    exclude_optional: bool,
    /// Only objects with these labels
    #[arg(long, value_name = "KEY=VALUE,...", value_delimiter = ',', value_parser = argument::label)]
    selector: Vec<(String, String)>,
    /// Format of the output
    #[arg(short, long, value_enum, default_value = "json")]
    output: Format,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    Json,
    Yaml,
}

impl ObjectGraph {
    /// Prints the answer.
    pub(super) async fn run(&self, session: &Session) -> Result<(), Failure> {
        let (kind, name) = self.named()?;
        let cluster = session.cluster().await?;
        let path = cluster.action(kind, &name, "objectgraph");
        let answer = cluster.ask(&path, &self.wish()).await;
        let word = match kind {
            Kind::Machine => "VirtualMachine",
            Kind::Instance => "VirtualMachineInstance",
        };
        let answer = answer.map_err(|refusal| {
            refusal.of(format!("error listing object graph of {word} {name}:"))
        })?;
        match self.output {
            Format::Json => super::print_json(&answer),
            Format::Yaml => report::text(&yaml::text(&answer)?),
        }
    }

    fn named(&self) -> Result<(Kind, String), Failure> {
        if self.name.is_some() || self.object.contains('/') {
            return Subject::new(&self.object, self.name.as_deref()).object();
        }
        let kind = if self.vmi {
            Kind::Instance
        } else {
            Kind::Machine
        };
        let name = argument::name(&self.object).map_err(Failure::Argument)?;
        Ok((kind, name))
    }

    fn wish(&self) -> Value {
        let mut wish = json!({"includeOptionalNodes": !self.exclude_optional});
        let labels = self.selector.iter();
        let labels: Map<String, Value> = labels
            .map(|(key, value)| (key.clone(), json!(value)))
            .collect();
        if !labels.is_empty() {
            wish["labelSelector"] = json!({"matchLabels": labels});
        }
        wish
    }
}
