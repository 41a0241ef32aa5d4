//! The table, in Markdown so that it can be pasted.

use std::fmt;

/// What was promised of a figure.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Goal {
    /// Nothing: the figure is for the reader.
    Printed,
    /// Our value or less, in the figure's unit.
    AtMost(f64),
    /// Our value or more, in the figure's unit.
    AtLeast(f64),
    /// So many times QEMU's value or less.
    AtMostPeers(f64),
}

impl fmt::Display for Goal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Printed => formatter.write_str("printed"),
            Self::AtMost(limit) => write!(formatter, "at most {limit}"),
            Self::AtLeast(limit) => write!(formatter, "at least {limit}"),
            Self::AtMostPeers(times) => write!(formatter, "at most {times} × QEMU"),
        }
    }
}

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
    pub goal: Goal,
}

impl Row {
    /// The lines above the rows.
    pub const HEADER: &str = "| figure | Ferrovirt | QEMU | host | ratio to QEMU | ratio to host | goal |\n\
                              | --- | ---: | ---: | ---: | ---: | ---: | --- |";

    /// A figure with no peer.
    #[must_use]
    pub fn alone(figure: &str, ours: f64, goal: Goal) -> Self {
        Self {
            figure: figure.to_owned(),
            ours,
            peer: None,
            native: None,
            goal,
        }
    }

    /// Tells whether the figure is worse than promised; what has no peer to be held against is not.
    #[must_use]
    pub fn misses_goal(&self) -> bool {
        match self.goal {
            Goal::Printed => false,
            Goal::AtMost(limit) => self.ours > limit,
            Goal::AtLeast(limit) => self.ours < limit,
            Goal::AtMostPeers(times) => self.peer.is_some_and(|peer| self.ours > times * peer),
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
            "| {} | {} | {} | {} | {} | {} | {}{} |",
            self.figure,
            number(Some(self.ours)),
            number(self.peer),
            number(self.native),
            ratio(self.peer),
            ratio(self.native),
            self.goal,
            if self.misses_goal() {
                ": **missed**"
            } else {
                ""
            }
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(ours: f64, peer: Option<f64>, goal: Goal) -> Row {
        let figure = "boot, s".to_owned();
        let native = None;
        Row {
            figure,
            ours,
            peer,
            native,
            goal,
        }
    }

    #[test]
    fn ratios_are_ours_to_theirs_and_an_absent_peer_is_a_dash() {
        assert_eq!(
            row(4.0, Some(2.0), Goal::AtMostPeers(3.0)).to_string(),
            "| boot, s | 4.00 | 2.00 | – | 2.00 | – | at most 3 × QEMU |"
        );
    }

    #[test]
    fn a_figure_worse_than_promised_is_marked() {
        let missed = row(4.0, None, Goal::AtMost(3.5));
        assert!(missed.to_string().ends_with("| at most 3.5: **missed** |"));
        assert!(row(4.0, None, Goal::AtLeast(5.0)).misses_goal());
        assert!(row(7.0, Some(2.0), Goal::AtMostPeers(3.0)).misses_goal());
        assert!(!row(7.0, None, Goal::AtMostPeers(3.0)).misses_goal());
        assert!(!row(7.0, None, Goal::Printed).misses_goal());
    }
}
