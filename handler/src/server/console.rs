//! The serial console as a WebSocket (subprotocol `plain.kubevirt.io`): binary frames in, binary frames out.
//!
//! A machine has one console. Whoever comes later takes over, and whoever sat there is told. Neither side waits in
//! memory: a guest that floods is held back by a client that is slow, and the other way round. Pings keep the
//! connection open where idle ones are cut (and whoever does not answer them is gone).

mod relay;
mod seats;
mod socket;

use std::time::Duration;

use axum::extract::State;
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::response::Response;
use axum::routing::get;
use http::StatusCode;

use super::answer::Refusal;
use super::requests::{Desk, Named, Present, Route};
pub use seats::{Consoles, Pulse};

/// What clients of KubeVirt ask for.
const SUBPROTOCOL: &str = "plain.kubevirt.io";
/// Bytes of a message of a client that are taken.
const MESSAGE_LEN_MAX_BYTES: usize = 256 << 10;
/// Bytes of frames that wait to be sent.
const WAITING_LEN_BYTES: usize = 16 << 10;
/// Time for the launcher to take a connection.
const CONNECT: Duration = Duration::from_secs(5);

/// Returns who answers which action.
pub(super) fn routes() -> Vec<Route> {
    vec![("console", get(open))]
}

async fn open(
    State(desk): State<Desk>,
    Named(key): Named,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, Refusal> {
    let present = desk.present(&key)?;
    check_console(&present)?;
    let upgrade = upgrade.map_err(|rejection| {
        let message = format!("a console needs a WebSocket: {}", rejection.body_text());
        Refusal::new(rejection.status(), message)
    })?;
    let seat = desk.consoles.take(&key, &present.launcher.uid);
    let guest = socket::connect(&present.launcher, CONNECT).await;
    let guest = guest.map_err(|error| {
        let message = format!("the console of {key} cannot be reached: {error}");
        Refusal::new(StatusCode::SERVICE_UNAVAILABLE, message)
    })?;
    let stop = desk.stop.clone();
    let upgrade = upgrade
        .protocols([SUBPROTOCOL])
        .max_message_size(MESSAGE_LEN_MAX_BYTES)
        .max_frame_size(MESSAGE_LEN_MAX_BYTES)
        .write_buffer_size(WAITING_LEN_BYTES);
    Ok(upgrade.on_upgrade(move |socket| relay::relay(socket, guest, seat, stop)))
}

/// Refuses the console of a machine that was made without one.
fn check_console(present: &Present) -> Result<(), Refusal> {
    let tree = present.stored.raw.tree();
    let wish = &tree["spec"]["domain"]["devices"]["autoattachSerialConsole"];
    if wish.as_bool() == Some(false) {
        let message = "the machine has no serial console: autoattachSerialConsole is false";
        return Err(Refusal::bad_request(message));
    }
    Ok(())
}
