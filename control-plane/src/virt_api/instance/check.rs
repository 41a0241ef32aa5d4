//! Whether an instance is in a state for a request, decided from its object alone.

use http::StatusCode;
use serde_json::Value;

use crate::virt_api::answer::Refusal;
use crate::virt_api::objects::{Kind, condition, text};

/// Decides whether an instance is in a state for a request.
pub(super) type Check = fn(&Value) -> Result<(), Refusal>;

const NOT_RUNNING: &str = "VMI is not running";
const PAUSED: &str = "Paused";
const AGENT_CONNECTED: &str = "AgentConnected";

fn conflict(vmi: &Value, why: &str) -> Refusal {
    Refusal::conflict(Kind::Instance, text(vmi, "/metadata/name"), why)
}

fn running(vmi: &Value) -> Result<(), Refusal> {
    match text(vmi, "/status/phase") {
        "Running" => Ok(()),
        _ => Err(conflict(vmi, NOT_RUNNING)),
    }
}

pub(super) fn pause(vmi: &Value) -> Result<(), Refusal> {
    running(vmi)?;
    let probe = &vmi["spec"]["livenessProbe"];
    if probe.is_object() && !probe["guestAgentPing"].is_object() {
        let why = "Pausing VMIs with a non-GuestAgentPing LivenessProbe is not supported";
        let name = text(vmi, "/metadata/name");
        return Err(Refusal::forbidden(Kind::Instance, name, why));
    }
    Ok(())
}

pub(super) fn unpause(vmi: &Value) -> Result<(), Refusal> {
    running(vmi)
}

/// Decides, from what is known here, whether a request would be carried out. When it is to be, the node decides: the
/// object may not know yet what a request a moment ago has done.
pub(super) fn rehearse(vmi: &Value, action: &str) -> Result<(), Refusal> {
    let is_paused = condition(vmi, PAUSED) == Some("True");
    match action {
        "pause" if is_paused => Err(conflict(vmi, "VMI is already paused")),
        "unpause" if !is_paused => Err(conflict(vmi, "VMI is not paused")),
        _ => Ok(()),
    }
}

pub(super) fn freeze(vmi: &Value) -> Result<(), Refusal> {
    running(vmi)
}

pub(super) fn unfreeze(vmi: &Value) -> Result<(), Refusal> {
    running(vmi)
}

pub(super) fn reset(vmi: &Value) -> Result<(), Refusal> {
    let phase = text(vmi, "/status/phase");
    if phase == "Running" {
        return Ok(());
    }
    let why = format!("Failed to reset non-running VMI with phase {phase}: {NOT_RUNNING}");
    Err(conflict(vmi, &why))
}

pub(super) fn soft_reboot(vmi: &Value) -> Result<(), Refusal> {
    running(vmi)?;
    let acpi = vmi.pointer("/spec/domain/features/acpi/enabled");
    let has_acpi = acpi.and_then(Value::as_bool) != Some(false);
    if !has_acpi && condition(vmi, AGENT_CONNECTED) != Some("True") {
        let why = "VMI neither have the agent connected nor the ACPI feature enabled";
        return Err(conflict(vmi, why));
    }
    Ok(())
}

/// For questions that a guest's agent answers.
pub(super) fn agent(vmi: &Value) -> Result<(), Refusal> {
    running(vmi)?;
    match condition(vmi, AGENT_CONNECTED) {
        Some("True") => Ok(()),
        _ => Err(conflict(vmi, "VMI does not have guest agent connected")),
    }
}

pub(super) fn console(vmi: &Value) -> Result<(), Refusal> {
    if is_off(vmi, "autoattachSerialConsole") {
        return Err(Refusal::bad_request("No serial consoles are present."));
    }
    match text(vmi, "/status/phase") {
        "Failed" => Err(conflict(vmi, "VMI is in failed status")),
        "Running" => Ok(()),
        _ => Err(Refusal::bad_request(NOT_RUNNING)),
    }
}

pub(super) fn display(vmi: &Value) -> Result<(), Refusal> {
    if is_off(vmi, "autoattachGraphicsDevice") {
        return Err(Refusal::bad_request("No graphics devices are present."));
    }
    match text(vmi, "/status/phase") {
        "Running" => Ok(()),
        _ => Err(Refusal::bad_request(NOT_RUNNING)),
    }
}

fn is_off(vmi: &Value, device: &str) -> bool {
    vmi["spec"]["domain"]["devices"][device] == false
}

/// Returns the node of an instance.
pub(super) fn node(vmi: &Value) -> Result<&str, Refusal> {
    let phase = text(vmi, "/status/phase");
    match text(vmi, "/status/nodeName") {
        node if !node.is_empty() && matches!(phase, "Running" | "Scheduled") => Ok(node),
        _ => {
            let phase = if phase.is_empty() { "Pending" } else { phase };
            let message = format!(
                "Unable to connect to VirtualMachineInstance because phase is {phase} instead of Running or Scheduled"
            );
            Err(Refusal::new(StatusCode::BAD_REQUEST, message))
        }
    }
}
