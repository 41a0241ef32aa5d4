//! Devices as a table.

use std::collections::BTreeMap;

use device_plugins::report::{Report, ResourceReport, UnitReport};
use device_plugins::runner::Registration;
use device_plugins::unit::Health;

use crate::key::VmiKey;

/// What stands where nothing is to be said.
const NONE: &str = "-";
/// Names of the columns; the last but [`WIDE_COLUMNS`] are those of the narrow table.
const COLUMNS: [&str; 7] = [
    "RESOURCE",
    "UNIT",
    "NODES",
    "HEALTH",
    "NUMA",
    "ALLOCATED TO",
    "REASON",
];
/// Columns that the wide table has before the reason.
const WIDE_COLUMNS: [&str; 2] = ["ADDRESSES", "KUBELET"];
/// Holders of one unit that the narrow table names.
const HOLDERS_MAX: usize = 2;

/// How a table is made.
pub(super) struct Look<'a> {
    /// Whether everything is shown.
    pub(super) is_wide: bool,
    /// Instances by the uids of their pods.
    pub(super) pods: &'a BTreeMap<String, VmiKey>,
}

/// Returns a report as a table with what is wrong below it. Pure.
pub(super) fn table(report: &Report, look: &Look<'_>) -> String {
    let mut rows = vec![header(look.is_wide)];
    for resource in &report.resources {
        rows.extend(resource_rows(resource, look));
    }
    let mut text = if report.resources.is_empty() {
        "This node offers no devices.\n".to_owned()
    } else {
        aligned(&rows)
    };
    let notes = notes(report);
    if !notes.is_empty() {
        text.push('\n');
        text.push_str(&notes.join("\n"));
        text.push('\n');
    }
    text
}

fn header(is_wide: bool) -> Vec<String> {
    let (reason, others) = COLUMNS.split_last().expect("there are columns");
    let wide = WIDE_COLUMNS.iter().filter(|_| is_wide);
    let names = others.iter().chain(wide).chain([reason]);
    names.map(|name| (*name).to_owned()).collect()
}

fn resource_rows(resource: &ResourceReport, look: &Look<'_>) -> Vec<Vec<String>> {
    let mut rows: Vec<_> = resource
        .units
        .iter()
        .map(|unit| unit_row(resource, unit, look))
        .collect();
    let left_out = resource.left_out.iter();
    rows.extend(left_out.map(|it| bare_row(resource, &it.device, "left out", &it.reason, look)));
    if rows.is_empty() {
        let reason = "no such device is plugged in";
        rows.push(bare_row(resource, NONE, "none", reason, look));
    }
    rows
}

fn unit_row(resource: &ResourceReport, unit: &UnitReport, look: &Look<'_>) -> Vec<String> {
    let nodes: Vec<_> = unit
        .nodes
        .iter()
        .map(|it| it.display().to_string())
        .collect();
    let (health, reason) = match &unit.health {
        Health::Healthy => ("healthy", ""),
        Health::Unhealthy(reason) => ("unhealthy", reason.as_str()),
    };
    let unit_name = match unit.copies {
        1 => unit.id.clone(),
        copies => format!("{} (x{copies})", unit.id),
    };
    let numa = unit
        .numa_node
        .map_or(String::new(), |node| node.to_string());
    let mut row = vec![
        resource.resource.to_string(),
        unit_name,
        nodes.join(","),
        health.to_owned(),
        numa,
        holders(unit, look),
    ];
    if look.is_wide {
        row.extend([unit.addresses.join(","), kubelet(resource)]);
    }
    row.push(reason.to_owned());
    row
}

fn bare_row(
    resource: &ResourceReport,
    unit: &str,
    health: &str,
    reason: &str,
    look: &Look<'_>,
) -> Vec<String> {
    let mut row = vec![
        resource.resource.to_string(),
        unit.to_owned(),
        String::new(),
        health.to_owned(),
        String::new(),
        String::new(),
    ];
    if look.is_wide {
        row.extend([String::new(), kubelet(resource)]);
    }
    row.push(reason.to_owned());
    row
}

/// Says who has a unit; of many who share it the narrow table has the number.
fn holders(unit: &UnitReport, look: &Look<'_>) -> String {
    if !look.is_wide && unit.holders.len() > HOLDERS_MAX {
        return format!("{} of {}", unit.holders.len(), unit.copies);
    }
    let names = unit.holders.iter().map(|holder| {
        let pod = match look.pods.get(&holder.pod_uid) {
            Some(key) => key.to_string(),
            None => holder.pod_uid.clone(),
        };
        format!("{pod}/{}", holder.container)
    });
    names.collect::<Vec<_>>().join(",")
}

fn kubelet(resource: &ResourceReport) -> String {
    let state = match &resource.registration {
        Registration::Waiting => "waiting",
        Registration::Registered => "registered",
        Registration::Failed(_) => "failed",
    };
    state.to_owned()
}

/// Returns what concerns no single device.
fn notes(report: &Report) -> Vec<String> {
    let registrations = report.resources.iter().filter_map(|it| {
        let why = match &it.registration {
            Registration::Registered => return None,
            Registration::Waiting => "waiting for the kubelet",
            Registration::Failed(reason) => reason,
        };
        Some(format!("{} is not registered: {}", it.resource, plain(why)))
    });
    let problems = report.problems.iter().map(|it| plain(it));
    registrations.chain(problems).collect()
}

fn aligned(rows: &[Vec<String>]) -> String {
    let cell = |text: &String| match text.as_str() {
        "" => NONE.to_owned(),
        text => plain(text),
    };
    let rows: Vec<Vec<String>> = rows
        .iter()
        .map(|row| row.iter().map(cell).collect())
        .collect();
    let width = |column: usize| {
        let widths = rows.iter().map(|row| row[column].chars().count());
        widths.max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..rows[0].len()).map(width).collect();
    let mut text = String::new();
    for row in &rows {
        let padded = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:width$}"));
        text.push_str(padded.collect::<Vec<_>>().join("   ").trim_end());
        text.push('\n');
    }
    text
}

/// Returns a text without characters that a terminal acts upon: devices choose some of what they are called.
pub(super) fn plain(text: &str) -> String {
    text.replace(char::is_control, "?")
}
