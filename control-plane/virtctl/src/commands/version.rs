//! `virtctl version`.

use clap::Args;
use serde_json::Value;

use super::Session;
use crate::failure::Failure;
use crate::report;

/// Print the versions of this program and of the installation in the cluster.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  # Print both versions:
  virtctl version

  # Print that of this program, without a cluster:
  virtctl version --client")]
pub(crate) struct Version {
    /// Only the version of this program
    #[arg(short, long, num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true", hide_default_value = true, value_name = "BOOL")]
    client: bool,
}

impl Version {
    /// Prints the versions.
    pub(super) async fn run(&self, session: &Session) -> Result<(), Failure> {
        report::line(&format!("Client Version: {}", info(&api::version::info())))?;
        if self.client {
            return Ok(());
        }
        let cluster = session.cluster().await?;
        let server = cluster
            .get("/apis/subresources.kubevirt.io/v1/version")
            .await;
        let server = server.map_err(|refusal| refusal.of("failed to get server version:"))?;
        report::line(&format!("Server Version: {}", info(&server)))
    }
}

/// Returns a version in the form that scripts look for, `GitVersion:"v1.2.3"`.
fn info(version: &Value) -> String {
    const FIELDS: [(&str, &str); 7] = [
        ("GitVersion", "gitVersion"),
        ("GitCommit", "gitCommit"),
        ("GitTreeState", "gitTreeState"),
        ("BuildDate", "buildDate"),
        ("GoVersion", "goVersion"),
        ("Compiler", "compiler"),
        ("Platform", "platform"),
    ];
    let field = |(name, key): &(&str, &str)| {
        format!("{name}:{:?}", version[*key].as_str().unwrap_or_default())
    };
    let fields: Vec<String> = FIELDS.iter().map(field).collect();
    format!("version.Info{{{}}}", fields.join(", "))
}
