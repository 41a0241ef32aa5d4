//! What a client and a program tell each other, whatever carries it.

use axum::body::Bytes;
use serde_json::{Value, json};
use tokio::sync::mpsc;

/// Messages that wait on either side.
const QUEUE_MAX: usize = 16;

/// From the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Input {
    /// What the program reads.
    Stdin(Bytes),
    /// There is no more to read.
    StdinEnd,
    /// The terminal has this many columns and rows.
    Resize(u16, u16),
}

/// From the program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Output {
    Stdout(Bytes),
    Stderr(Bytes),
    /// How it ended; the last message.
    End(Value),
}

/// The program's side.
pub(super) struct Session {
    pub(super) inputs: mpsc::Receiver<Input>,
    pub(super) outputs: mpsc::Sender<Output>,
}

/// The client's side, kept by what carries the messages.
pub(super) struct Client {
    pub(super) inputs: mpsc::Sender<Input>,
    pub(super) outputs: mpsc::Receiver<Output>,
}

/// Returns both sides of a session.
pub(super) fn pair() -> (Session, Client) {
    let (to_program, inputs) = mpsc::channel(QUEUE_MAX);
    let (outputs, from_program) = mpsc::channel(QUEUE_MAX);
    let client = Client {
        inputs: to_program,
        outputs: from_program,
    };
    (Session { inputs, outputs }, client)
}

/// Returns the `Status` of a program that ended.
pub(super) fn ended(code: i32) -> Value {
    if code == 0 {
        return json!({"metadata": {}, "status": "Success"});
    }
    json!({
        "metadata": {}, "status": "Failure", "reason": "NonZeroExitCode",
        "message": format!("command terminated with non-zero exit code: exit status {code}"),
        "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]},
    })
}

/// Returns the `Status` of a program that could not be run.
pub(super) fn failed(reason: &str) -> Value {
    json!({
        "metadata": {}, "status": "Failure", "reason": "InternalError", "code": 500,
        "message": format!("Internal error occurred: {reason}"),
    })
}

/// Reads the size of a terminal as clients send it: `{"Width":80,"Height":24}`. Clients without a window send zeroes.
pub(super) fn size(text: &[u8]) -> Option<Input> {
    let size: Value = serde_json::from_slice(text).ok()?;
    let side = |name: &str| {
        u16::try_from(size[name].as_u64()?)
            .ok()
            .filter(|it| *it > 0)
    };
    Some(Input::Resize(side("Width")?, side("Height")?))
}
