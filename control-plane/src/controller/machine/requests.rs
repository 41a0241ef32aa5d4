//! Starts and stops that were asked for by the subresources (`status.stateChangeRequests`).

use api::vm::{StateChangeAction, StateChangeRequest, start_request};
use serde::Deserialize;
use serde_json::Value;

use super::strategy::is_final;
use crate::controller::cache::uid;
use crate::controller::change::is_deleted;

/// Returns what is still to be done: a stop is done when its instance is no more, a start when there is an instance that
/// hasn't ended.
pub(super) fn open(machine: &Value, instance: Option<&Value>) -> Vec<StateChangeRequest> {
    let requests = machine.pointer("/status/stateChangeRequests");
    let requests = requests.map(Vec::<StateChangeRequest>::deserialize);
    let mut requests = requests.and_then(Result::ok).unwrap_or_default();
    while let Some(first) = requests.first() {
        let is_done = match first.action {
            StateChangeAction::Stop => !is_for(first, instance),
            StateChangeAction::Start => {
                instance.is_some_and(|instance| !is_final(instance) && !is_deleted(instance))
            }
            StateChangeAction::Unknown => true,
        };
        if !is_done {
            break;
        }
        requests.remove(0);
    }
    requests
}

fn is_for(request: &StateChangeRequest, instance: Option<&Value>) -> bool {
    let named = request.uid.as_deref().unwrap_or_default();
    instance.is_some_and(|instance| uid(instance) == named)
}

/// Whether the instance that is there is to end.
pub(super) fn stops(open: &[StateChangeRequest]) -> bool {
    open.first()
        .is_some_and(|first| first.action == StateChangeAction::Stop)
}

/// Returns the start that is asked for.
pub(super) fn starts(open: &[StateChangeRequest]) -> Option<&StateChangeRequest> {
    open.first()
        .filter(|first| first.action == StateChangeAction::Start)
}

/// Whether the instance is to start with its processors stopped.
pub(super) fn is_paused(start: Option<&StateChangeRequest>) -> bool {
    let value = start.and_then(|start| start.data.get(start_request::PAUSED_KEY));
    value.is_some_and(|value| value == start_request::PAUSED_TRUE)
}

/// Returns the requests by which an instance is restarted.
pub(super) fn restart(instance: &Value) -> Vec<StateChangeRequest> {
    vec![
        StateChangeRequest {
            action: StateChangeAction::Stop,
            uid: Some(uid(instance).to_owned()),
            ..StateChangeRequest::default()
        },
        StateChangeRequest {
            action: StateChangeAction::Start,
            ..StateChangeRequest::default()
        },
    ]
}
