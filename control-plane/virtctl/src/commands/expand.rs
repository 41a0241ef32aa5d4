//! `virtctl expand`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use serde_json::Value;

use super::Session;
use crate::argument;
use crate::cluster::Kind;
use crate::failure::{Failure, Refusal};
use crate::{local_file, report, yaml};

/// Print a virtual machine with its instance type and preference written out.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  # Expand a virtual machine called 'myvm':
  virtctl expand --vm myvm

  # Expand the one in a file, or from standard input:
  virtctl expand --file myvm.yaml
  virtctl create vm --instancetype=small | virtctl expand --file -")]
pub(crate) struct Expand {
    #[command(flatten)]
    source: Source,
    /// Format of the output
    #[arg(short, long, value_enum, default_value = "yaml")]
    output: Format,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Source {
    /// Virtual machine in the cluster
    #[arg(long, value_parser = argument::machine)]
    vm: Option<String>,
    /// File with a virtual machine, - for standard input
    #[arg(short, long)]
    file: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    Yaml,
    Json,
}

impl Expand {
    /// Prints the machine.
    pub(super) async fn run(&self, session: &Session) -> Result<(), Failure> {
        let cluster = session.cluster().await?;
        let namespace = &cluster.namespace;
        let failed = |name: &str, refusal: Refusal| {
            refusal.of(format!(
                "error expanding VirtualMachine - {name} in namespace - {namespace}:"
            ))
        };
        let expanded = match (&self.source.vm, &self.source.file) {
            (Some(name), _) => {
                let answer = cluster
                    .get(&cluster.action(Kind::Machine, name, "expand-spec"))
                    .await;
                answer.map_err(|refusal| failed(name, refusal))?
            }
            (None, Some(path)) => {
                let vm = machine(&local_file::read_text(path)?)?;
                let name = vm["metadata"]["name"].as_str().unwrap_or_default();
                let answer = cluster.put(&cluster.expansion(), &vm).await;
                answer.map_err(|refusal| failed(name, refusal))?
            }
            (None, None) => return Err(Failure::Argument("name --vm or --file".to_owned())),
        };
        match self.output {
            Format::Json => super::print_json(&expanded),
            Format::Yaml => report::text(&yaml::text(&expanded)?),
        }
    }
}

/// Reads the one virtual machine of a manifest.
fn machine(text: &str) -> Result<Value, Failure> {
    let documents = api::manifest::documents(text);
    let documents = documents
        .map_err(|error| Failure::Argument(format!("error decoding VirtualMachine: {error}")))?;
    let mut machines = documents
        .into_iter()
        .filter(|document| document["kind"] == "VirtualMachine");
    match (machines.next(), machines.next()) {
        (Some(machine), None) => Ok(machine),
        (None, _) => Err(Failure::Argument(
            "error decoding VirtualMachine: the file holds none (kind: VirtualMachine)".to_owned(),
        )),
        (Some(_), Some(_)) => Err(Failure::Argument(
            "error decoding VirtualMachine: the file holds several, expand takes one".to_owned(),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::machine;

    #[test]
    fn the_one_machine_of_a_manifest_is_taken() {
        let one = "kind: Secret\n---\nkind: VirtualMachine\nmetadata: {name: a}\n";
        assert_eq!(machine(one).unwrap()["metadata"]["name"], "a");
        assert!(machine("kind: Secret\n").is_err());
        assert!(machine(&format!("{one}---\nkind: VirtualMachine\n")).is_err());
        assert!(machine("a: [").is_err());
    }
}
