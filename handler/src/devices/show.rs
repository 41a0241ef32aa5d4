//! `virt-handler devices`: shows what the handler of this node reports.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use device_plugins::report::{FILE_NAME, Report, ReportError};
use serde_json::json;

use super::table::{Look, table};
use crate::key::VmiKey;
use crate::launchers::pods_on_record;

/// How devices are shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// A table
    #[default]
    Table,
    /// A table with addresses, every holder, and how the kubelet took the plugins
    Wide,
    /// The whole report, for programs
    Json,
}

/// Why there is nothing to show.
#[derive(Debug, thiserror::Error)]
pub enum ShowError {
    /// No handler runs.
    #[error(
        "there is no report of devices at {}: start virt-handler on this node, or name its folder with --kubevirt-private-dir",
        path.display()
    )]
    Absent {
        /// Where it would be.
        path: PathBuf,
    },
    /// The report cannot be read.
    #[error(
        "show devices: be root, as virt-handler is; a report that makes no sense is written anew when it is restarted"
    )]
    Unreadable(#[source] ReportError),
}

/// Returns the devices of this node as the handler with this folder reports them. Blocks.
///
/// # Errors
///
/// Fails where no handler runs, or its report cannot be read.
pub fn show(private_dir: &Path, format: Format) -> Result<String, ShowError> {
    let report = Report::read(&private_dir.join(FILE_NAME)).map_err(|error| match error {
        ReportError::Missing { path } => ShowError::Absent { path },
        error => ShowError::Unreadable(error),
    })?;
    Ok(text(&report, &pods_on_record(private_dir), format))
}

fn text(report: &Report, pods: &BTreeMap<String, VmiKey>, format: Format) -> String {
    if format == Format::Json {
        let names = pods.iter().map(|(uid, key)| (uid, key.to_string()));
        let names: BTreeMap<_, _> = names.collect();
        let mut value = json!(report);
        value["pods"] = json!(names);
        return format!("{value:#}\n");
    }
    let look = Look {
        is_wide: format == Format::Wide,
        pods,
    };
    table(report, &look)
}
