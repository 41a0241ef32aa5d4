//! What `kubectl get` shows of services, and of kinds that make pods.

use jiff::Timestamp;
use serde_json::Value;

use super::age;
use super::cells::{condition, list, number, or_none, plain, text};

/// Number of one field and of another: `1/2`.
pub(super) fn of(object: &Value, some: &str, all: &str) -> Value {
    format!("{}/{}", number(object, some), number(object, all)).into()
}

/// Names of the containers of a template.
pub(super) fn containers(object: &Value, _: Timestamp) -> Value {
    in_template(object, "/name")
}

/// Images of the containers of a template.
pub(super) fn images(object: &Value, _: Timestamp) -> Value {
    in_template(object, "/image")
}

fn in_template(object: &Value, field: &str) -> Value {
    let plain = list(object, "/spec/template/spec/containers");
    let nested = list(object, "/spec/jobTemplate/spec/template/spec/containers");
    let texts: Vec<_> = plain
        .iter()
        .chain(nested)
        .map(|it| text(it, field))
        .collect();
    or_none(&texts.join(","))
}

/// Addresses under which a service is reached from elsewhere.
pub(super) fn external_ip(service: &Value, _: Timestamp) -> Value {
    let addresses = list(service, "/spec/externalIPs").iter().map(plain);
    let balancers = list(service, "/status/loadBalancer/ingress")
        .iter()
        .map(|it| {
            let ip = text(it, "/ip");
            if ip.is_empty() {
                text(it, "/hostname")
            } else {
                ip
            }
            .to_owned()
        });
    let all: Vec<_> = balancers.chain(addresses).collect();
    match text(service, "/spec/type") {
        "ExternalName" => or_none(text(service, "/spec/externalName")),
        "LoadBalancer" if all.is_empty() => "<pending>".into(),
        _ => or_none(&all.join(",")),
    }
}

/// Ports of a service: `80:30080/TCP`.
pub(super) fn ports(service: &Value, _: Timestamp) -> Value {
    let ports = list(service, "/spec/ports").iter().map(|it| {
        let (port, node) = (number(it, "/port"), number(it, "/nodePort"));
        let protocol = text(it, "/protocol");
        match node {
            0 => format!("{port}/{protocol}"),
            _ => format!("{port}:{node}/{protocol}"),
        }
    });
    or_none(&ports.collect::<Vec<_>>().join(","))
}

/// Addresses and ports of endpoints, the first three.
pub(super) fn endpoints(endpoints: &Value, _: Timestamp) -> Value {
    let mut all = Vec::new();
    for subset in list(endpoints, "/subsets") {
        for address in list(subset, "/addresses") {
            for port in list(subset, "/ports") {
                all.push(format!(
                    "{}:{}",
                    text(address, "/ip"),
                    number(port, "/port")
                ));
            }
        }
    }
    first_three(&all)
}

/// Returns texts, of more than three the first ones.
pub(super) fn first_three(all: &[String]) -> Value {
    match all {
        [one, two, three, rest @ ..] if !rest.is_empty() => {
            format!("{one},{two},{three} + {} more...", rest.len()).into()
        }
        _ => or_none(&all.join(",")),
    }
}

/// `Complete`, `Failed`, `Suspended`, `Running`.
pub(super) fn job_status(job: &Value, _: Timestamp) -> Value {
    let is = |kind| condition(job, kind).is_some_and(|it| it["status"] == "True");
    let ends = [
        ("Complete", "Complete"),
        ("Failed", "Failed"),
        ("Suspended", "Suspended"),
        ("FailureTarget", "FailureTarget"),
        ("SuccessCriteriaMet", "SuccessCriteriaMet"),
    ];
    if let Some((_, status)) = ends.iter().find(|(kind, _)| is(*kind)) {
        return (*status).into();
    }
    let is_deleted = !job["metadata"]["deletionTimestamp"].is_null();
    if is_deleted { "Terminating" } else { "Running" }.into()
}

/// `1/1`.
pub(super) fn job_completions(job: &Value, _: Timestamp) -> Value {
    let done = number(job, "/status/succeeded");
    match (
        job["spec"]["completions"].as_i64(),
        number(job, "/spec/parallelism"),
    ) {
        (Some(wanted), _) => format!("{done}/{wanted}").into(),
        (None, many @ 2..) => format!("{done}/1 of {many}").into(),
        (None, _) => format!("{done}/1").into(),
    }
}

/// How long a job ran, or runs.
pub(super) fn job_duration(job: &Value, now: Timestamp) -> Value {
    let time = |pointer| text(job, pointer).parse::<Timestamp>().ok();
    let Some(start) = time("/status/startTime") else {
        return "".into();
    };
    let end = time("/status/completionTime").unwrap_or(now);
    age::duration(end.as_second() - start.as_second()).into()
}
