//! Probes of the container with the machine: HTTP and TCP go to the guest through the pod's network as they are, the others
//! through the launcher (KubeVirt §1.10).

use api::Vmi;
use api::probes::Probe;
use serde_json::{Value, json};

use super::volumes::in_run;

/// Seconds that a machine's start takes beyond a container's; a probe's first try is that much later.
const START_SECONDS: i32 = 10;
/// Seconds that the way to the guest may take beyond the guest's own.
const WAY_SECONDS: i32 = 1;

/// Returns the probe of the container for a probe of the instance.
pub(super) fn render(probe: &Probe, vmi: &Vmi) -> Value {
    let mut rendered = serde_json::to_value(probe).unwrap_or_default();
    let fields = rendered.as_object_mut();
    let is_ours = probe.exec.is_some() || probe.guest_agent_ping.is_some();
    if let Some(fields) = fields {
        fields.remove("guestAgentPing");
        fields.remove("exec");
    }
    let timeout = probe.timeout_seconds.unwrap_or(1).max(1);
    if is_ours {
        rendered["exec"] = json!({ "command": command(probe, vmi, timeout) });
        rendered["timeoutSeconds"] = json!(timeout.saturating_add(WAY_SECONDS));
    }
    let delay = probe.initial_delay_seconds.unwrap_or(0);
    rendered["initialDelaySeconds"] = json!(delay.saturating_add(START_SECONDS));
    rendered
}

fn command(probe: &Probe, vmi: &Vmi, timeout: i32) -> Vec<String> {
    let namespace = vmi.metadata.namespace_or_default();
    let mut command: Vec<String> = [
        "/usr/bin/virt-probe",
        "--socket",
        &in_run(api::paths::COMMAND_SOCKET),
        "--domainName",
        &format!("{namespace}_{}", vmi.metadata.name),
        "--timeoutSeconds",
        &timeout.to_string(),
    ]
    .map(str::to_owned)
    .into();
    let Some(exec) = &probe.exec else {
        command.push("--guestAgentPing".to_owned());
        return command;
    };
    let (program, arguments) = exec
        .command
        .split_first()
        .map_or((String::new(), &[][..]), |(program, arguments)| {
            (program.clone(), arguments)
        });
    command.extend(["--command".to_owned(), program, "--".to_owned()]);
    command.extend(arguments.iter().cloned());
    command
}
