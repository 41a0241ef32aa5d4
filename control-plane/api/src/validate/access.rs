//! Probes and access credentials.

use super::Findings;
use super::firmware::absolute;
use crate::access_credentials::{
    AccessCredential, CredentialSource, PasswordPropagation, SshPropagation,
};
use crate::field::FieldPath;
use crate::probes::{Probe, ProbePort};
use crate::vmi::VmiSpec;

pub(super) fn check(spec: &VmiSpec, findings: &mut Findings) {
    if let Some(probe) = &spec.liveness_probe {
        let path = FieldPath::new("spec.livenessProbe");
        check_probe(probe, spec, &path, findings);
        if probe.success_threshold.is_some_and(|count| count > 1) {
            findings.add(
                path.child("successThreshold"),
                "a liveness probe is good after one success: use 1 or leave it out",
            );
        }
    }
    if let Some(probe) = &spec.readiness_probe {
        check_probe(
            probe,
            spec,
            &FieldPath::new("spec.readinessProbe"),
            findings,
        );
    }
    for (index, credential) in spec.access_credentials.iter().enumerate() {
        let path = FieldPath::new("spec.accessCredentials").index(index);
        check_credential(credential, spec, &path, findings);
    }
}

fn check_probe(probe: &Probe, spec: &VmiSpec, path: &FieldPath, findings: &mut Findings) {
    match probe.actions().as_slice() {
        [] => findings.add(
            path.clone(),
            "no action is set: add exec, guestAgentPing, httpGet or tcpSocket",
        ),
        [action] => check_action(probe, spec, &path.child(action), findings),
        several => findings.add(
            path.clone(),
            format!(
                "{} exclude each other: keep one action",
                several.join(" and ")
            ),
        ),
    }
    for (field, number) in [
        ("initialDelaySeconds", probe.initial_delay_seconds),
        ("timeoutSeconds", probe.timeout_seconds),
        ("periodSeconds", probe.period_seconds),
        ("successThreshold", probe.success_threshold),
        ("failureThreshold", probe.failure_threshold),
    ] {
        if number.is_some_and(|number| number < 0) {
            findings.add(path.child(field), "is negative: give zero or more");
        }
    }
}

fn check_action(probe: &Probe, spec: &VmiSpec, path: &FieldPath, findings: &mut Findings) {
    let port = if let Some(exec) = &probe.exec {
        if exec.command.first().is_none_or(String::is_empty) {
            findings.required(
                path.child("command"),
                "required: name a program of the guest and its arguments",
            );
        }
        return;
    } else if let Some(get) = &probe.http_get {
        absolute(findings, path.child("path"), &get.path);
        findings.one_of(path.child("scheme"), &get.scheme, &["HTTP", "HTTPS"]);
        &get.port
    } else if let Some(tcp) = &probe.tcp_socket {
        &tcp.port
    } else {
        return;
    };
    check_port(port.as_ref(), path.child("port"), findings);
    if !has_pod_network(spec) {
        findings.add(
            path.clone(),
            "needs the pod network, which the machine isn't attached to: add it or use exec or guestAgentPing",
        );
    }
}

fn check_port(port: Option<&ProbePort>, path: FieldPath, findings: &mut Findings) {
    let valid = match port {
        None => false,
        Some(ProbePort::Number(number)) => (1..=65535).contains(number),
        Some(ProbePort::Name(name)) => is_port_name(name),
    };
    if !valid {
        findings.add(path, "use a number from 1 to 65535, or the name of a port");
    }
}

/// Whether a text can name a port (RFC 6335 §5.1).
fn is_port_name(name: &str) -> bool {
    name.len() <= 15
        && super::identity::is_dns_label(name)
        && name.bytes().any(|byte| byte.is_ascii_lowercase())
        && !name.contains("--")
}

/// Whether the pod network is attached, be it by default.
fn has_pod_network(spec: &VmiSpec) -> bool {
    let is_default = spec.networks.is_empty()
        && spec.domain.devices.interfaces.is_empty()
        && spec.domain.devices.autoattach_pod_interface != Some(false);
    is_default || spec.networks.iter().any(|network| network.pod.is_some())
}

fn check_credential(
    credential: &AccessCredential,
    spec: &VmiSpec,
    path: &FieldPath,
    findings: &mut Findings,
) {
    match (&credential.ssh_public_key, &credential.user_password) {
        (Some(ssh), None) => {
            let path = path.child("sshPublicKey");
            check_source(&ssh.source, &path, findings);
            check_ssh_propagation(&ssh.propagation_method, spec, &path, findings);
        }
        (None, Some(password)) => {
            let path = path.child("userPassword");
            check_source(&password.source, &path, findings);
            check_password_propagation(&password.propagation_method, &path, findings);
        }
        (None, None) => findings.add(
            path.clone(),
            "no credential is set: add sshPublicKey or userPassword",
        ),
        (Some(_), Some(_)) => findings.add(
            path.clone(),
            "sshPublicKey and userPassword exclude each other: make two entries of them",
        ),
    }
}

fn check_source(source: &CredentialSource, path: &FieldPath, findings: &mut Findings) {
    let named = source
        .secret
        .as_ref()
        .is_some_and(|secret| !secret.secret_name.is_empty());
    if !named {
        findings.required(
            path.child("source.secret.secretName"),
            "required: name a secret",
        );
    }
}

fn check_ssh_propagation(
    method: &SshPropagation,
    spec: &VmiSpec,
    path: &FieldPath,
    findings: &mut Findings,
) {
    let path = path.child("propagationMethod");
    let set = [
        ("configDrive", method.config_drive.is_some()),
        ("noCloud", method.no_cloud.is_some()),
        ("qemuGuestAgent", method.qemu_guest_agent.is_some()),
    ];
    let set: Vec<&str> = set
        .into_iter()
        .filter_map(|(name, set)| set.then_some(name))
        .collect();
    if set.len() != 1 {
        return findings.add(path, "set one of configDrive, noCloud and qemuGuestAgent");
    }
    let mut volumes = spec.volumes.iter();
    if method.config_drive.is_some() && volumes.all(|v| v.cloud_init_config_drive.is_none()) {
        findings.add(
            path.child("configDrive"),
            "there is no cloudInitConfigDrive volume that could carry it: add one",
        );
    } else if method.no_cloud.is_some() && volumes.all(|v| v.cloud_init_no_cloud.is_none()) {
        findings.add(
            path.child("noCloud"),
            "there is no cloudInitNoCloud volume that could carry it: add one",
        );
    } else if let Some(agent) = &method.qemu_guest_agent
        && (agent.users.is_empty() || agent.users.iter().any(String::is_empty))
    {
        findings.required(
            path.child("qemuGuestAgent.users"),
            "required: name the users that get the keys",
        );
    }
}

fn check_password_propagation(
    method: &PasswordPropagation,
    path: &FieldPath,
    findings: &mut Findings,
) {
    if method.qemu_guest_agent.is_none() {
        findings.required(
            path.child("propagationMethod.qemuGuestAgent"),
            "required: passwords go by the guest agent only, write `qemuGuestAgent: {}`",
        );
    }
}
