//! Lines and their JSON.

use serde::Deserialize;
use serde::de::{DeserializeOwned, Error as _, IgnoredAny};
use serde_json::{Value, json};

use super::answers::{self, Text};

/// Longest line taken from a guest: 3 MiB of a program's output in base64.
pub(super) const MAX_LINE_BYTES: usize = 4 << 20;
/// Room that is kept for lines; a long line comes seldom.
const KEPT_CAPACITY: usize = 64 << 10;
/// Never part of JSON; both sides start anew when it comes.
const DELIMITER: u8 = 0xff;

/// Why an answer is no result.
#[derive(Debug, thiserror::Error)]
pub(super) enum AnswerError {
    #[error("decode the answer")]
    Malformed(#[from] serde_json::Error),
    #[error("{class}: {description}")]
    Refused { class: String, description: String },
}

/// What stands between two ends of lines.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// A line, without its end.
    Whole(Vec<u8>),
    /// A line longer than [`MAX_LINE_BYTES`]; told before its end has come, which is then passed over.
    TooLong,
}

/// Returns the line that asks for a command.
pub(super) fn request(command: &str, arguments: Option<&Value>) -> Vec<u8> {
    let request = match arguments {
        None => json!({ "execute": command }),
        Some(arguments) => json!({"execute": command, "arguments": arguments}),
    };
    let mut line = request.to_string().into_bytes();
    line.push(b'\n');
    line
}

/// Returns the bytes that make an agent forget what it was reading and send `id` back.
pub(super) fn sync(id: u32) -> Vec<u8> {
    let mut line = vec![DELIMITER];
    line.extend(request("guest-sync-delimited", Some(&json!({ "id": id }))));
    line
}

/// Returns whether a line brings `id` back; whatever stands before the delimiter is of an earlier conversation.
pub(super) fn is_synced(line: &[u8], id: u32) -> bool {
    let delimiter = line.iter().rposition(|byte| *byte == DELIMITER);
    delimiter.is_some_and(|at| answer::<u32>(&line[at + 1..]).is_ok_and(|answered| answered == id))
}

#[derive(Deserialize)]
struct Envelope<T> {
    #[serde(rename = "return", default = "Option::default")]
    result: Option<T>,
    error: Option<Fault>,
}

#[derive(Deserialize)]
struct Fault {
    #[serde(default)]
    class: Text,
    #[serde(default)]
    desc: Text,
}

/// Decodes an answer.
pub(super) fn answer<T: DeserializeOwned>(line: &[u8]) -> Result<T, AnswerError> {
    let envelope: Envelope<T> = serde_json::from_slice(line)?;
    match (envelope.result, envelope.error) {
        (_, Some(fault)) => Err(AnswerError::Refused {
            class: fault.class.0,
            description: fault.desc.0,
        }),
        (Some(result), None) => Ok(result),
        (None, None) => Err(serde_json::Error::missing_field("return").into()),
    }
}

/// Returns whether a line is an answer at all.
pub(super) fn is_answer(line: &[u8]) -> bool {
    !matches!(answer::<IgnoredAny>(line), Err(AnswerError::Malformed(_)))
}

/// Bytes on their way to becoming lines.
#[derive(Debug, Default)]
pub(super) struct Lines {
    buffer: Vec<u8>,
    /// Where the first line that was not handed out starts.
    start: usize,
    /// Up to where no line ends.
    searched: usize,
    /// The line is too long: what is left of it is thrown away.
    passing_over: bool,
}

impl Lines {
    /// Adds what was read.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.buffer.drain(..self.start);
        self.searched -= self.start;
        self.start = 0;
        if self.buffer.is_empty() && self.buffer.capacity() > KEPT_CAPACITY {
            self.buffer = Vec::new();
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// Takes the next line.
    pub(super) fn next(&mut self) -> Option<Line> {
        loop {
            let unsearched = self.buffer[self.searched..].iter();
            let end = unsearched.copied().position(|byte| byte == b'\n');
            let Some(end) = end.map(|at| self.searched + at) else {
                return self.rest();
            };
            let line = self.start..end;
            (self.start, self.searched) = (end + 1, end + 1);
            if std::mem::take(&mut self.passing_over) {
                continue;
            }
            if line.len() > MAX_LINE_BYTES {
                return Some(Line::TooLong);
            }
            return Some(Line::Whole(self.buffer[line].to_vec()));
        }
    }

    /// Keeps the start of a line, unless it is too long already.
    fn rest(&mut self) -> Option<Line> {
        self.searched = self.buffer.len();
        let too_long = self.buffer.len() - self.start > MAX_LINE_BYTES;
        if self.passing_over || too_long {
            self.start = self.buffer.len();
        }
        if too_long && !self.passing_over {
            self.passing_over = true;
            return Some(Line::TooLong);
        }
        None
    }
}

/// Decodes a line as everything that an agent may answer, for a fuzzer: nothing may panic or grow without bound.
pub fn fuzz_line(input: &[u8]) {
    let mut lines = Lines::default();
    for piece in input.chunks(7) {
        lines.push(piece);
        while let Some(Line::Whole(line)) = lines.next() {
            let _whatever = is_synced(&line, 1) || is_answer(&line);
            answers::fuzz(&line);
        }
    }
    answers::fuzz(input);
}
