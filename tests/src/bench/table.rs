//! The table, in Markdown so that it can be pasted.

use std::fmt;

/// One figure and its peers.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// What was measured, with its unit.
    pub figure: String,
    /// Our value.
    pub ours: f64,
    /// The peer's value.
    pub peer: Option<f64>,
    /// The host's own value.
    pub native: Option<f64>,
    /// What was promised.
    pub goal: &'static str,
}

impl Row {
    /// The lines above the rows.
    pub const HEADER: &str = "| figure | Ferrovirt | QEMU | host | ratio to QEMU | ratio to host | goal |\n\
                              | --- | ---: | ---: | ---: | ---: | ---: | --- |";

    /// A figure with no peer.
    #[must_use]
    pub fn alone(figure: &str, ours: f64, goal: &'static str) -> Self {
        Self {
            figure: figure.to_owned(),
            ours,
            peer: None,
            native: None,
            goal,
        }
    }
}

impl fmt::Display for Row {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = |value: Option<f64>| match value {
            None => "–".to_owned(),
            Some(value) if value >= 100.0 => format!("{value:.0}"),
            Some(value) => format!("{value:.2}"),
        };
        let ratio = |to: Option<f64>| number(to.filter(|to| *to > 0.0).map(|to| self.ours / to));
        write!(
            formatter,
            "| {} | {} | {} | {} | {} | {} | {} |",
            self.figure,
            number(Some(self.ours)),
            number(self.peer),
            number(self.native),
            ratio(self.peer),
            ratio(self.native),
            self.goal
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_ours_to_theirs_and_an_absent_peer_is_a_dash() {
        let row = Row {
            figure: "boot, s".to_owned(),
            ours: 4.0,
            peer: Some(2.0),
            native: None,
            goal: "at most 3",
        };
        assert_eq!(
            row.to_string(),
            "| boot, s | 4.00 | 2.00 | – | 2.00 | – | at most 3 |"
        );
    }
}
