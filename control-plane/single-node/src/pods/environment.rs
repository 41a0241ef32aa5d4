//! A container's environment and arguments, with what they refer to.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, EnvVar, EnvVarSource, Pod, ResourceFieldSelector};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::cluster::Cluster;

/// Most variables of a container.
const VARIABLES_MAX: usize = 10_000;

/// Why an environment cannot be made.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct EnvironmentError(pub(crate) String);

/// What fields of pods refer to beside the pod.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Surroundings<'a> {
    pub(crate) node: &'a str,
    pub(crate) host_ip: Option<&'a str>,
}

/// Returns a container's variables; later ones of the same name have replaced earlier ones.
pub(crate) async fn variables(
    pod: &Pod,
    container: &Container,
    image: &[String],
    cluster: &dyn Cluster,
    around: Surroundings<'_>,
) -> Result<Vec<(String, String)>, EnvironmentError> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or("default");
    let mut found: Vec<(String, String)> = Vec::new();
    let pairs = image.iter().filter_map(|pair| pair.split_once('='));
    found.extend(pairs.map(|(name, value)| (name.to_owned(), value.to_owned())));
    for source in container.env_from.iter().flatten() {
        let prefix = source.prefix.as_deref().unwrap_or_default();
        let mut values = BTreeMap::new();
        if let Some(wanted) = &source.config_map_ref {
            values.extend(config_map(cluster, namespace, &wanted.name, wanted.optional).await?);
        }
        if let Some(wanted) = &source.secret_ref {
            values.extend(secret(cluster, namespace, &wanted.name, wanted.optional).await?);
        }
        found.extend(
            values
                .into_iter()
                .map(|(name, value)| (format!("{prefix}{name}"), value)),
        );
    }
    for variable in container.env.iter().flatten() {
        if let Some(value) = value(pod, container, variable, cluster, around, &found).await? {
            found.push((variable.name.clone(), value));
        }
        if found.len() > VARIABLES_MAX {
            return Err(EnvironmentError(format!(
                "env: more than {VARIABLES_MAX} variables"
            )));
        }
    }
    Ok(last_of_each(found))
}

fn last_of_each(found: Vec<(String, String)>) -> Vec<(String, String)> {
    let last: BTreeMap<String, usize> = found
        .iter()
        .enumerate()
        .map(|(at, (name, _))| (name.clone(), at))
        .collect();
    let kept = found
        .into_iter()
        .enumerate()
        .filter(|(at, (name, _))| last[name] == *at);
    kept.map(|(_, pair)| pair).collect()
}

async fn value(
    pod: &Pod,
    container: &Container,
    variable: &EnvVar,
    cluster: &dyn Cluster,
    around: Surroundings<'_>,
    known: &[(String, String)],
) -> Result<Option<String>, EnvironmentError> {
    if let Some(source) = &variable.value_from {
        return referred(pod, container, source, cluster, around).await;
    }
    let known = |name: &str| {
        known
            .iter()
            .rev()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.clone())
    };
    Ok(Some(expand(
        variable.value.as_deref().unwrap_or_default(),
        known,
    )))
}

async fn referred(
    pod: &Pod,
    container: &Container,
    source: &EnvVarSource,
    cluster: &dyn Cluster,
    around: Surroundings<'_>,
) -> Result<Option<String>, EnvironmentError> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or("default");
    if let Some(selected) = &source.field_ref {
        return field(pod, &selected.field_path, around).map(Some);
    }
    if let Some(selected) = &source.resource_field_ref {
        return resource(container, selected).map(Some);
    }
    let (values, key, optional, what) = if let Some(wanted) = &source.config_map_key_ref {
        let values = config_map(cluster, namespace, &wanted.name, wanted.optional).await?;
        (
            values,
            &wanted.key,
            wanted.optional,
            format!("config map {}", wanted.name),
        )
    } else if let Some(wanted) = &source.secret_key_ref {
        let values = secret(cluster, namespace, &wanted.name, wanted.optional).await?;
        (
            values,
            &wanted.key,
            wanted.optional,
            format!("secret {}", wanted.name),
        )
    } else {
        return Ok(None);
    };
    match values.get(key) {
        Some(value) => Ok(Some(value.clone())),
        None if optional == Some(true) => Ok(None),
        None => Err(EnvironmentError(format!(
            "couldn't find key {key} in {what} of namespace {namespace}"
        ))),
    }
}

async fn config_map(
    cluster: &dyn Cluster,
    namespace: &str,
    name: &str,
    optional: Option<bool>,
) -> Result<BTreeMap<String, String>, EnvironmentError> {
    let read = cluster.config_map(namespace, name).await;
    match read.map_err(|error| EnvironmentError(error.to_string()))? {
        Some(map) => Ok(map.data.unwrap_or_default()),
        None if optional == Some(true) => Ok(BTreeMap::new()),
        None => Err(EnvironmentError(format!("configmap \"{name}\" not found"))),
    }
}

async fn secret(
    cluster: &dyn Cluster,
    namespace: &str,
    name: &str,
    optional: Option<bool>,
) -> Result<BTreeMap<String, String>, EnvironmentError> {
    let read = cluster.secret(namespace, name).await;
    let data = match read.map_err(|error| EnvironmentError(error.to_string()))? {
        Some(secret) => secret.data.unwrap_or_default(),
        None if optional == Some(true) => BTreeMap::new(),
        None => return Err(EnvironmentError(format!("secret \"{name}\" not found"))),
    };
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Ok(data
        .into_iter()
        .map(|(key, value)| (key, text(value.0)))
        .collect())
}

/// Returns a field of the pod (downward API).
pub(crate) fn field(
    pod: &Pod,
    path: &str,
    around: Surroundings<'_>,
) -> Result<String, EnvironmentError> {
    let metadata = &pod.metadata;
    let spec = pod.spec.as_ref();
    let text = |value: Option<&str>| value.unwrap_or_default().to_owned();
    if let Some(key) = subscript(path, "metadata.annotations") {
        return Ok(text(
            metadata
                .annotations
                .as_ref()
                .and_then(|all| all.get(key))
                .map(String::as_str),
        ));
    }
    if let Some(key) = subscript(path, "metadata.labels") {
        return Ok(text(
            metadata
                .labels
                .as_ref()
                .and_then(|all| all.get(key))
                .map(String::as_str),
        ));
    }
    Ok(match path {
        "metadata.name" => text(metadata.name.as_deref()),
        "metadata.namespace" => text(metadata.namespace.as_deref()),
        "metadata.uid" => text(metadata.uid.as_deref()),
        "metadata.annotations" => listed(metadata.annotations.as_ref()),
        "metadata.labels" => listed(metadata.labels.as_ref()),
        "spec.nodeName" => around.node.to_owned(),
        "spec.serviceAccountName" => {
            text(spec.and_then(|spec| spec.service_account_name.as_deref()))
        }
        "status.hostIP" | "status.hostIPs" => text(around.host_ip),
        "status.podIP" | "status.podIPs" => text(
            pod.status
                .as_ref()
                .and_then(|status| status.pod_ip.as_deref()),
        ),
        _ => {
            return Err(EnvironmentError(format!(
                "fieldPath {path:?} is no field that can be read"
            )));
        }
    })
}

fn subscript<'a>(path: &'a str, map: &str) -> Option<&'a str> {
    path.strip_prefix(map)?
        .strip_prefix("['")?
        .strip_suffix("']")
}

fn listed(all: Option<&BTreeMap<String, String>>) -> String {
    let lines = all
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={value:?}"));
    lines.collect::<Vec<_>>().join("\n")
}

/// Returns an amount of a container's resources, in units of the divisor, rounded up.
pub(crate) fn resource(
    container: &Container,
    selected: &ResourceFieldSelector,
) -> Result<String, EnvironmentError> {
    let path = &selected.resource;
    let (kind, name) = path.split_once('.').unwrap_or(("", path));
    let resources = container.resources.as_ref();
    let limits = resources.and_then(|resources| resources.limits.as_ref());
    let amounts = match kind {
        "limits" => limits,
        "requests" => resources
            .and_then(|resources| resources.requests.as_ref())
            .or(limits),
        _ => {
            return Err(EnvironmentError(format!(
                "resource {path:?} is neither limits.* nor requests.*"
            )));
        }
    };
    let amount = amounts.and_then(|amounts| amounts.get(name));
    let divisor = selected.divisor.as_ref().map_or(1000, milli).max(1);
    let divisor = if divisor == 0 { 1000 } else { divisor };
    Ok(amount.map_or(0, milli).div_ceil(divisor).to_string())
}

/// Returns an amount in thousandths, rounded up; one that is none or negative is nothing.
pub(crate) fn milli(amount: &Quantity) -> u64 {
    let text = amount.0.trim();
    if let Some(thousandths) = text
        .strip_suffix('m')
        .and_then(|digits| digits.parse().ok())
    {
        return thousandths;
    }
    let Ok(parsed) = text.parse::<api::Quantity>() else {
        return 0;
    };
    // Fractions of whole units are written with few digits.
    if let Some((whole, fraction)) = text.split_once('.')
        && let (Ok(whole), Ok(fraction)) = (
            whole.parse::<u64>(),
            format!("{fraction:0<3}")[..3].parse::<u64>(),
        )
    {
        return whole.saturating_mul(1000).saturating_add(fraction);
    }
    parsed.units().unwrap_or(0).saturating_mul(1000)
}

/// Returns an amount in whole units, rounded up.
pub(crate) fn units(amount: &Quantity) -> u64 {
    amount
        .0
        .parse::<api::Quantity>()
        .ok()
        .and_then(|parsed| parsed.units())
        .unwrap_or(0)
}

/// Replaces `$(NAME)` by a variable's value; `$$` is `$`, and unknown names stay.
pub(crate) fn expand(text: &str, known: impl Fn(&str) -> Option<String>) -> String {
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        expanded.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(tail) = rest.strip_prefix('$') {
            expanded.push('$');
            rest = tail;
        } else if let Some((name, tail)) = rest
            .strip_prefix('(')
            .and_then(|inner| inner.split_once(')'))
        {
            match known(name) {
                Some(value) => expanded.push_str(&value),
                None => expanded.push_str(&format!("$({name})")),
            }
            rest = tail;
        } else {
            expanded.push('$');
        }
    }
    expanded + rest
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use k8s_openapi::api::core::v1::Pod;
    use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

    use super::{Surroundings, expand, field, milli};

    #[test]
    fn variables_are_put_into_texts() {
        let known = |name: &str| (name == "A").then(|| "1".to_owned());
        for (text, expected) in [
            ("$(A)", "1"),
            ("x$(A)y$(A)", "x1y1"),
            ("$(B)", "$(B)"),
            ("$$(A)", "$(A)"),
            ("$A $( $", "$A $( $"),
            ("", ""),
        ] {
            assert_eq!(expand(text, known), expected, "{text}");
        }
    }

    #[test]
    fn amounts_are_thousandths() {
        for (text, expected) in [
            ("100m", 100),
            ("2", 2000),
            ("0.5", 500),
            ("1.25", 1250),
            ("1Ki", 1_024_000),
            ("x", 0),
            ("-1", 0),
        ] {
            assert_eq!(milli(&Quantity(text.to_owned())), expected, "{text}");
        }
    }

    #[test]
    fn fields_of_the_pod_are_found() {
        let mut pod = Pod::default();
        pod.metadata.name = Some("p".to_owned());
        pod.metadata.labels = Some(BTreeMap::from([("a/b".to_owned(), "c\"d".to_owned())]));
        let around = Surroundings {
            node: "n",
            host_ip: None,
        };
        assert_eq!(field(&pod, "metadata.name", around).unwrap(), "p");
        assert_eq!(field(&pod, "spec.nodeName", around).unwrap(), "n");
        assert_eq!(
            field(&pod, "metadata.labels['a/b']", around).unwrap(),
            "c\"d"
        );
        assert_eq!(
            field(&pod, "metadata.labels", around).unwrap(),
            "a/b=\"c\\\"d\""
        );
        field(&pod, "spec.nothing", around).unwrap_err();
    }
}
