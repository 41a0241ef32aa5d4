//! Rules of services.

use std::collections::BTreeSet;

use serde_json::Value;

use super::names::{LABEL, is_dns_label};
use super::{in_range, items, metadata, needs, one_of, text};
use crate::failure::Cause;

/// Adds what is wrong with a service.
pub(super) fn check(service: &Value, found: &mut Vec<Cause>) {
    let spec = &service["spec"];
    let kinds = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
    one_of(spec, "spec", "type", &kinds, found);
    one_of(
        spec,
        "spec",
        "sessionAffinity",
        &["ClientIP", "None"],
        found,
    );
    metadata::labels(&spec["selector"], "spec.selector", found);
    let ports = items(spec, "spec", "ports");
    let is_external = text(spec, "type") == "ExternalName";
    if ports.is_empty() && !is_external && text(spec, "clusterIP") != "None" {
        found.push(Cause::required("spec.ports", ""));
    }
    if is_external {
        needs(spec, "spec", "externalName", found);
    }
    let mut names = BTreeSet::new();
    let mut numbers = BTreeSet::new();
    for (path, port) in &ports {
        in_range(port, path, "port", (1, 65535), found);
        in_range(port, path, "targetPort", (1, 65535), found);
        in_range(port, path, "nodePort", (0, 65535), found);
        one_of(port, path, "protocol", &["SCTP", "TCP", "UDP"], found);
        let name = text(port, "name");
        if name.is_empty() {
            if ports.len() > 1 {
                found.push(Cause::required(&format!("{path}.name"), ""));
            }
        } else if !is_dns_label(name) {
            found.push(Cause::invalid(
                &format!("{path}.name"),
                &port["name"],
                LABEL,
            ));
        } else if !names.insert(name) {
            found.push(Cause::duplicate(&format!("{path}.name"), &port["name"]));
        }
        if !numbers.insert((port["port"].as_i64(), text(port, "protocol"))) {
            found.push(Cause::duplicate(path, port));
        }
    }
}
