//! What people see: progress on standard error, sizes, ages, tables.

use std::io::{IsTerminal, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;

use crate::images::progress::{Part, Progress, Report};

/// Time between two updates of a line.
const REFRESH: Duration = Duration::from_millis(100);
/// Goes to the start of the line and clears it (ECMA-48).
const CLEAR: &str = "\r\x1b[K";

/// Progress that is shown: in one line that changes on a terminal, else in a line for each step.
pub(super) struct Shown {
    line: Arc<Mutex<Line>>,
}

struct Line {
    is_terminal: bool,
    shown_at: Option<Instant>,
    step: Option<(&'static str, usize)>,
}

impl Shown {
    pub(super) fn new() -> Self {
        let line = Line {
            is_terminal: std::io::stderr().is_terminal(),
            shown_at: None,
            step: None,
        };
        Self {
            line: Arc::new(Mutex::new(line)),
        }
    }

    pub(super) fn report(&self) -> Report {
        let line = Arc::clone(&self.line);
        Arc::new(move |progress| {
            let mut line = line.lock().unwrap_or_else(PoisonError::into_inner);
            line.tell(progress);
        })
    }

    /// Clears the line.
    pub(super) fn end(&self) {
        let line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
        if line.is_terminal && line.shown_at.is_some() {
            write(CLEAR);
        }
    }
}

impl Line {
    fn tell(&mut self, progress: &Progress) {
        match progress {
            Progress::Image { reference } => self.say(&format!("image {reference}")),
            Progress::Present => self.say("its layers are there already"),
            Progress::Fetch(part) => self.part("fetching", *part),
            Progress::Unpack(part) => self.part("unpacking", *part),
        }
    }

    fn say(&mut self, text: &str) {
        let clear = if self.is_terminal { CLEAR } else { "" };
        write(&format!("{clear}{text}\n"));
        self.step = None;
    }

    fn part(&mut self, what: &'static str, part: Part) {
        let is_new = self.step != Some((what, part.layer));
        self.step = Some((what, part.layer));
        if !self.is_terminal {
            if is_new {
                write(&format!("{}\n", begun(what, part)));
            }
            return;
        }
        let is_due = self.shown_at.is_none_or(|it| it.elapsed() >= REFRESH);
        if is_new || is_due {
            self.shown_at = Some(Instant::now());
            write(&format!("{CLEAR}{}", going(what, part)));
        }
    }
}

fn begun(what: &str, part: Part) -> String {
    let Part { layer, layers, .. } = part;
    match part.total_bytes {
        0 => format!("{what} layer {layer} of {layers}"),
        total => format!("{what} layer {layer} of {layers}, {}", size(total)),
    }
}

fn going(what: &str, part: Part) -> String {
    let Part { layer, layers, .. } = part;
    let done = size(part.done_bytes);
    match part
        .done_bytes
        .saturating_mul(100)
        .checked_div(part.total_bytes)
    {
        None => format!("{what} layer {layer} of {layers}: {done}"),
        Some(percent) => {
            let total = size(part.total_bytes);
            format!(
                "{what} layer {layer} of {layers}: {} % of {total}",
                percent.min(100)
            )
        }
    }
}

fn write(text: &str) {
    let _nobody_looks = std::io::stderr().write_all(text.as_bytes());
}

/// Returns a number of bytes as people read it.
pub(super) fn size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut tenths = bytes.saturating_mul(10) / 1024;
    let mut unit = 0;
    while tenths >= 10 * 1024 && unit + 1 < UNITS.len() {
        tenths /= 1024;
        unit += 1;
    }
    format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit])
}

/// Returns how long ago something was, as kubectl does.
pub(super) fn age(at: Timestamp, now: Timestamp) -> String {
    let seconds = now.duration_since(at).as_secs().max(0);
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
    match () {
        () if days >= 730 => format!("{}y", days / 365),
        () if days >= 2 => format!("{days}d"),
        () if hours >= 2 => format!("{hours}h"),
        () if minutes >= 2 => format!("{minutes}m"),
        () => format!("{seconds}s"),
    }
}

/// Returns rows with their columns below each other.
pub(super) fn columns(rows: &[[String; 4]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let widths = [0, 1, 2].map(|column| width(column).unwrap_or_default());
    let mut text = String::new();
    for row in rows {
        for (cell, width) in row.iter().zip(widths) {
            text += &format!("{cell:width$}   ");
        }
        text += &row[3];
        text.push('\n');
    }
    text
}
