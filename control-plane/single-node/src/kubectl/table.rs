//! Tables as the API server makes them, as text.

use serde_json::Value;

/// Space between columns.
const GAP: usize = 3;

/// Returns a table as lines; `None` when it has no rows.
pub(super) fn text(table: &Value, is_wide: bool, with_namespace: bool) -> Option<String> {
    let columns = table["columnDefinitions"].as_array()?;
    let is_shown = |column: &Value| is_wide || column["priority"].as_i64().unwrap_or(0) == 0;
    let shown: Vec<usize> = (0..columns.len())
        .filter(|at| is_shown(&columns[*at]))
        .collect();
    let rows = table["rows"].as_array().filter(|rows| !rows.is_empty())?;
    let title = |at: &usize| {
        columns[*at]["name"]
            .as_str()
            .unwrap_or_default()
            .to_uppercase()
    };
    let mut lines = vec![shown.iter().map(title).collect::<Vec<_>>()];
    for row in rows {
        lines.push(shown.iter().map(|at| cell(&row["cells"][*at])).collect());
    }
    if with_namespace {
        lines[0].insert(0, "NAMESPACE".to_owned());
        for (line, row) in lines[1..].iter_mut().zip(rows) {
            line.insert(0, cell(&row["object"]["metadata"]["namespace"]));
        }
    }
    Some(aligned(&lines))
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => "<none>".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn aligned(lines: &[Vec<String>]) -> String {
    let columns = lines.first().map_or(0, Vec::len);
    let width = |at: usize| {
        lines
            .iter()
            .map(|line| line[at].chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let texts = lines.iter().map(|line| {
        let cells = line
            .iter()
            .zip(&widths)
            .map(|(text, width)| format!("{text:<0$}", width + GAP));
        cells.collect::<String>().trim_end().to_owned()
    });
    texts.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::text;

    #[test]
    fn columns_are_aligned_and_wide_ones_left_out() {
        let table = json!({
            "columnDefinitions": [{"name": "Name"}, {"name": "Ready"}, {"name": "IP", "priority": 1}],
            "rows": [
                {"cells": ["a-long-name", true, null], "object": {"metadata": {"namespace": "x"}}},
                {"cells": ["b", false, "10.0.0.1"], "object": {"metadata": {"namespace": "yy"}}},
            ],
        });
        assert_eq!(
            text(&table, false, false).unwrap(),
            "NAME          READY\na-long-name   true\nb             false"
        );
        assert_eq!(
            text(&table, true, true).unwrap().lines().nth(1),
            Some("x           a-long-name   true    <none>")
        );
        assert_eq!(
            text(&json!({"columnDefinitions": [], "rows": []}), false, false),
            None
        );
    }
}
