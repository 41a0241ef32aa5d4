//! Devices other than disks and interfaces, probes' and threads' settings, dynamic resource claims.

use std::collections::BTreeMap;

use super::{Cluster, gate_text};
use crate::devices::Gpu;
use crate::features::gate;
use crate::field::FieldPath;
use crate::validate::Findings;
use crate::validate::identity::{LABEL_RULE, SUBDOMAIN_RULE, is_dns_label, is_dns_subdomain};
use crate::vmi::VmiSpec;

pub(super) fn check(spec: &VmiSpec, cluster: &Cluster<'_>, findings: &mut Findings) {
    let path = FieldPath::new("spec.domain.devices");
    check_simple(spec, &path, findings);
    check_gates(spec, cluster, &path, findings);
    check_graphics(spec, &path, findings);
    check_io_threads(spec, findings);
    check_claims(spec, findings);
    check_host_devices(spec, cluster, &path, findings);
}

fn check_simple(spec: &VmiSpec, path: &FieldPath, findings: &mut Findings) {
    let devices = &spec.domain.devices;
    for (index, input) in devices.inputs.iter().enumerate() {
        let path = path.child("inputs").index(index);
        findings.one_of(path.child("bus"), &input.bus, &["virtio", "usb"]);
        match input.input_type.as_str() {
            "" => findings.required(path.child("type"), "required: use tablet"),
            kind => findings.one_of(path.child("type"), kind, &["tablet"]),
        }
    }
    if let Some(sound) = &devices.sound {
        let path = path.child("sound");
        if sound.name.is_empty() {
            findings.required(path.child("name"), "required: give it a name");
        }
        findings.one_of(path.child("model"), &sound.model, &["ich9", "ac97"]);
    }
    if let Some(watchdog) = &devices.watchdog {
        let path = path.child("watchdog");
        if watchdog.diag288.is_some() {
            findings.one_of_text(path.child("diag288"), "is of other machines: use i6300esb");
        }
        let action = watchdog.i6300esb.as_ref().map_or("", |of| &of.action);
        let actions = ["reset", "poweroff", "shutdown"];
        findings.one_of(path.child("i6300esb.action"), action, &actions);
    }
    for (index, device) in devices.panic_devices.iter().enumerate() {
        let path = path.child("panicDevices").index(index).child("model");
        let model = device.model.as_deref().unwrap_or_default();
        findings.one_of(path, model, &["isa", "hyperv", "pvpanic"]);
    }
}

fn check_gates(spec: &VmiSpec, cluster: &Cluster<'_>, path: &FieldPath, findings: &mut Findings) {
    let devices = &spec.domain.devices;
    for (field, is_set, gate) in [
        (
            "autoattachVSOCK",
            devices.autoattach_vsock == Some(true),
            gate::VSOCK,
        ),
        (
            "downwardMetrics",
            devices.downward_metrics.is_some(),
            gate::DOWNWARD_METRICS,
        ),
        (
            "hostDevices",
            !devices.host_devices.is_empty(),
            gate::HOST_DEVICES,
        ),
    ] {
        if is_set && !cluster.is_on(gate) {
            findings.forbidden(path.child(field), gate_text(gate));
        }
    }
}

fn check_graphics(spec: &VmiSpec, path: &FieldPath, findings: &mut Findings) {
    let devices = &spec.domain.devices;
    if let Some(video) = &devices.video {
        let path = path.child("video");
        let models = ["vga", "cirrus", "virtio", "ramfb", "bochs"];
        findings.one_of(path.child("type"), &video.video_type, &models);
        if devices.autoattach_graphics_device == Some(false) {
            findings.add(
                path,
                "makes no sense with autoattachGraphicsDevice: false: remove one",
            );
        }
    }
    let has_ram_fb = |gpu: &Gpu| {
        let options = gpu.virtual_gpu_options.as_ref();
        options
            .and_then(|options| options.display.as_ref())
            .is_some_and(|display| {
                let ram_fb = display.ram_fb.as_ref().and_then(|of| of.enabled);
                display.enabled != Some(false) && ram_fb != Some(false)
            })
    };
    let mut with_ram_fb = devices
        .gpus
        .iter()
        .enumerate()
        .filter(|(_, gpu)| has_ram_fb(gpu));
    if let (Some((first, _)), Some((second, _))) = (with_ram_fb.next(), with_ram_fb.next()) {
        let text = format!("gpus[{first}] shows the early display already: switch ramFB off here");
        let path = path
            .child("gpus")
            .index(second)
            .child("virtualGPUOptions.display.ramFB");
        findings.add(path, text);
    }
}

fn check_io_threads(spec: &VmiSpec, findings: &mut Findings) {
    let policy = spec.domain.io_threads_policy.as_deref().unwrap_or_default();
    let path = FieldPath::new("spec.domain");
    let policies = ["shared", "auto", "supplementalPool"];
    findings.one_of(path.child("ioThreadsPolicy"), policy, &policies);
    let threads = spec.domain.io_threads.as_ref();
    let count = threads.and_then(|threads| threads.supplemental_pool_thread_count);
    if policy == "supplementalPool" && count.unwrap_or(0) == 0 {
        findings.required(
            path.child("ioThreads.supplementalPoolThreadCount"),
            "required with the policy supplementalPool: give 1 or more",
        );
    }
}

fn check_claims(spec: &VmiSpec, findings: &mut Findings) {
    let mut names = BTreeMap::new();
    for (index, claim) in spec.resource_claims.iter().enumerate() {
        let path = FieldPath::new("spec.resourceClaims").index(index);
        findings.unique_name(&path.child("name"), &claim.name, &mut names);
        let sources = [
            ("resourceClaimName", &claim.resource_claim_name),
            (
                "resourceClaimTemplateName",
                &claim.resource_claim_template_name,
            ),
        ];
        if sources.iter().filter(|(_, name)| name.is_some()).count() != 1 {
            let text = "set exactly one of resourceClaimName and resourceClaimTemplateName";
            findings.add(path.clone(), text);
        }
        for (field, name) in sources {
            if let Some(name) = name
                && !is_dns_subdomain(name)
            {
                let text = format!("{name:?} is no valid name: {SUBDOMAIN_RULE}");
                findings.add(path.child(field), text);
            }
        }
    }
}

/// Devices of the host are named by the resource of a device plugin, or by a claim and its request.
fn check_host_devices(
    spec: &VmiSpec,
    cluster: &Cluster<'_>,
    path: &FieldPath,
    findings: &mut Findings,
) {
    let devices = &spec.domain.devices;
    let gpus = devices.gpus.iter().enumerate().map(|(index, gpu)| {
        let path = path.child("gpus").index(index);
        (
            path,
            gate::GPUS_WITH_DRA,
            &gpu.name,
            &gpu.device_name,
            &gpu.claim_name,
            &gpu.request_name,
        )
    });
    let others = devices.host_devices.iter().enumerate().map(|(index, of)| {
        let path = path.child("hostDevices").index(index);
        (
            path,
            gate::HOST_DEVICES_WITH_DRA,
            &of.name,
            &of.device_name,
            &of.claim_name,
            &of.request_name,
        )
    });
    let mut requests = BTreeMap::new();
    for (path, gate, name, device, claim, request) in gpus.chain(others) {
        if name.is_empty() {
            findings.required(path.child("name"), "required: give it a name");
        } else if !is_dns_label(name) {
            findings.add(
                path.child("name"),
                format!("{name:?} is no valid name: {LABEL_RULE}"),
            );
        }
        match (device.is_empty(), claim.is_empty() && request.is_empty()) {
            (false, true) => {}
            (false, false) => findings.add(
                path,
                "deviceName and claimName exclude each other: keep one",
            ),
            (true, true) => findings.required(
                path.child("deviceName"),
                "required: name a resource of permittedHostDevices, or a claim by claimName",
            ),
            (true, false) if !cluster.is_on(gate) => {
                findings.forbidden(path.child("claimName"), gate_text(gate));
            }
            (true, false) => {
                for (field, value) in [("claimName", claim), ("requestName", request)] {
                    if value.is_empty() {
                        findings.required(
                            path.child(field),
                            "required: name the claim and its request",
                        );
                    }
                }
                if !spec
                    .resource_claims
                    .iter()
                    .any(|known| known.name == *claim)
                {
                    let text =
                        format!("no claim is called {claim:?}: add it to spec.resourceClaims");
                    findings.add(path.child("claimName"), text);
                }
                if let Some(first) = requests.insert((claim, request), path.clone()) {
                    let text = format!("{first} asks for the same device: choose another request");
                    findings.duplicate(path, text);
                }
            }
        }
    }
}
