//! Where the pod may run, and its name service.

use std::net::IpAddr;

use serde_json::Value;

use crate::field::FieldPath;
use crate::validate::Findings;
use crate::validate::identity::is_dns_subdomain;
use crate::vmi::VmiSpec;

const POLICIES: [&str; 4] = ["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"];
const MAX_NAMESERVERS: usize = 3;
/// Search domains and their characters, spaces between them included (Kubernetes' own bounds).
const MAX_SEARCHES: usize = 6;
const MAX_SEARCH_LEN: usize = 256;
const NODE_OPERATORS: [&str; 6] = ["In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"];
const LABEL_OPERATORS: [&str; 4] = ["In", "NotIn", "Exists", "DoesNotExist"];
const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";

pub(super) fn check(spec: &VmiSpec, findings: &mut Findings) {
    check_dns(spec, findings);
    if let Some(affinity) = &spec.affinity {
        let path = FieldPath::new("spec.affinity");
        if let Some(nodes) = affinity.get("nodeAffinity") {
            check_node_affinity(nodes, &path.child("nodeAffinity"), findings);
        }
        for field in ["podAffinity", "podAntiAffinity"] {
            if let Some(pods) = affinity.get(field) {
                check_pod_affinity(pods, &path.child(field), findings);
            }
        }
    }
    check_spread(&spec.topology_spread_constraints, findings);
}

fn check_dns(spec: &VmiSpec, findings: &mut Findings) {
    let policy = spec.dns_policy.as_deref().unwrap_or_default();
    findings.one_of(FieldPath::new("spec.dnsPolicy"), policy, &POLICIES);
    let path = FieldPath::new("spec.dnsConfig");
    let config = spec.dns_config.as_ref();
    let texts = |field: &str| -> Vec<&str> {
        let items = config
            .map(|config| items(config, field))
            .unwrap_or_default();
        items
            .iter()
            .map(|item| item.as_str().unwrap_or(""))
            .collect()
    };
    let servers = texts("nameservers");
    if policy == "None" && servers.is_empty() {
        findings.required(
            path.child("nameservers"),
            "required with dnsPolicy None: give at least one address",
        );
    }
    if servers.len() > MAX_NAMESERVERS {
        let text = format!(
            "{} name servers: at most {MAX_NAMESERVERS} are asked",
            servers.len()
        );
        findings.add(path.child("nameservers"), text);
    }
    for (index, server) in servers.iter().enumerate() {
        if server.parse::<IpAddr>().is_err() {
            let text = format!("{server:?} is no IP address: write it as 192.0.2.1");
            findings.add(path.child("nameservers").index(index), text);
        }
    }
    let searches = texts("searches");
    if searches.len() > MAX_SEARCHES || searches.join(" ").len() > MAX_SEARCH_LEN {
        let text = format!(
            "at most {MAX_SEARCHES} domains of {MAX_SEARCH_LEN} characters together are searched: remove some"
        );
        findings.add(path.child("searches"), text);
    }
    for (index, domain) in searches.iter().enumerate() {
        if !is_dns_subdomain(domain.trim_end_matches('.')) {
            let text = format!("{domain:?} is no domain: write it as example.org");
            findings.add(path.child("searches").index(index), text);
        }
    }
    let options = config
        .map(|config| items(config, "options"))
        .unwrap_or_default();
    for (index, option) in options.iter().enumerate() {
        if option["name"].as_str().unwrap_or("").is_empty() {
            let path = path.child("options").index(index).child("name");
            findings.required(path, "required: name a resolver option");
        }
    }
}

fn items<'v>(value: &'v Value, field: &str) -> &'v [Value] {
    value[field].as_array().map_or(&[], Vec::as_slice)
}

fn check_node_affinity(affinity: &Value, path: &FieldPath, findings: &mut Findings) {
    if let Some(required) = affinity.get(REQUIRED).filter(|value| !value.is_null()) {
        let path = path.child(REQUIRED).child("nodeSelectorTerms");
        let terms = items(required, "nodeSelectorTerms");
        if terms.is_empty() {
            findings.required(path.clone(), "required: give at least one term");
        }
        for (index, term) in terms.iter().enumerate() {
            check_node_term(term, &path.index(index), findings);
        }
    }
    for (index, preferred) in items(affinity, PREFERRED).iter().enumerate() {
        let path = path.child(PREFERRED).index(index);
        check_weight(preferred, &path, findings);
        check_node_term(
            &preferred["preference"],
            &path.child("preference"),
            findings,
        );
    }
}

fn check_node_term(term: &Value, path: &FieldPath, findings: &mut Findings) {
    for field in ["matchExpressions", "matchFields"] {
        for (index, expression) in items(term, field).iter().enumerate() {
            let path = path.child(field).index(index);
            check_expression(expression, &NODE_OPERATORS, &path, findings);
        }
    }
}

fn check_expression(
    expression: &Value,
    operators: &[&str],
    path: &FieldPath,
    findings: &mut Findings,
) {
    if expression["key"].as_str().unwrap_or("").is_empty() {
        findings.required(path.child("key"), "required: name a label");
    }
    let count = items(expression, "values").len();
    let operator = expression["operator"].as_str().unwrap_or("");
    let values = path.child("values");
    match operator {
        "" => findings.required(
            path.child("operator"),
            "required: use In, NotIn, Exists or DoesNotExist",
        ),
        "In" | "NotIn" if count == 0 => {
            findings.required(
                values,
                "required with In and NotIn: give at least one value",
            );
        }
        "Exists" | "DoesNotExist" if count > 0 => {
            findings.forbidden(
                values,
                "Exists and DoesNotExist have no values: remove them",
            );
        }
        "Gt" | "Lt" if operators.contains(&operator) && count != 1 => {
            findings.required(values, "required with Gt and Lt: give one value");
        }
        _ => findings.one_of(path.child("operator"), operator, operators),
    }
}

fn check_weight(preferred: &Value, path: &FieldPath, findings: &mut Findings) {
    let weight = preferred["weight"].as_i64().unwrap_or(0);
    if !(1..=100).contains(&weight) {
        findings.add(
            path.child("weight"),
            format!("{weight} is out of range: use 1 to 100"),
        );
    }
}

fn check_pod_affinity(affinity: &Value, path: &FieldPath, findings: &mut Findings) {
    for (index, term) in items(affinity, REQUIRED).iter().enumerate() {
        check_pod_term(term, &path.child(REQUIRED).index(index), findings);
    }
    for (index, preferred) in items(affinity, PREFERRED).iter().enumerate() {
        let path = path.child(PREFERRED).index(index);
        check_weight(preferred, &path, findings);
        check_pod_term(
            &preferred["podAffinityTerm"],
            &path.child("podAffinityTerm"),
            findings,
        );
    }
}

fn check_pod_term(term: &Value, path: &FieldPath, findings: &mut Findings) {
    if term["topologyKey"].as_str().unwrap_or("").is_empty() {
        let text = "required: name a label of nodes, such as kubernetes.io/hostname";
        findings.required(path.child("topologyKey"), text);
    }
    for field in ["labelSelector", "namespaceSelector"] {
        check_selector(&term[field], &path.child(field), findings);
    }
}

/// Checks the expressions of a label selector (untyped).
pub(super) fn check_selector(selector: &Value, path: &FieldPath, findings: &mut Findings) {
    for (index, expression) in items(selector, "matchExpressions").iter().enumerate() {
        let path = path.child("matchExpressions").index(index);
        check_expression(expression, &LABEL_OPERATORS, &path, findings);
    }
}

fn check_spread(constraints: &[Value], findings: &mut Findings) {
    let mut seen = Vec::new();
    for (index, constraint) in constraints.iter().enumerate() {
        let path = FieldPath::new("spec.topologySpreadConstraints").index(index);
        if constraint["maxSkew"].as_i64().unwrap_or(0) <= 0 {
            findings.add(path.child("maxSkew"), "use 1 or more");
        }
        let key = constraint["topologyKey"].as_str().unwrap_or("");
        if key.is_empty() {
            findings.required(path.child("topologyKey"), "required: name a label of nodes");
        }
        let when = constraint["whenUnsatisfiable"].as_str().unwrap_or("");
        let field = path.child("whenUnsatisfiable");
        match when {
            "" => findings.required(field, "required: use DoNotSchedule or ScheduleAnyway"),
            _ => findings.one_of(field, when, &["DoNotSchedule", "ScheduleAnyway"]),
        }
        let domains = &constraint["minDomains"];
        if !domains.is_null() {
            if domains.as_i64().unwrap_or(0) <= 0 {
                findings.add(path.child("minDomains"), "use 1 or more");
            }
            if when == "ScheduleAnyway" {
                findings.add(
                    path.child("minDomains"),
                    "only with DoNotSchedule: remove it",
                );
            }
        }
        check_selector(
            &constraint["labelSelector"],
            &path.child("labelSelector"),
            findings,
        );
        if seen.contains(&(key, when)) {
            findings.duplicate(
                path,
                "the same topologyKey and whenUnsatisfiable are there already: join them",
            );
        }
        seen.push((key, when));
    }
}
