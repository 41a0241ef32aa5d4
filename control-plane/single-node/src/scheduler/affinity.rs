//! Node selectors, node affinity, taints.

use serde_json::Value;

/// Whether a pod's selector and required affinity select a node.
pub(super) fn selects(pod: &Value, node: &Value) -> bool {
    let labels = &node["metadata"]["labels"];
    let selector = pod["spec"]["nodeSelector"].as_object();
    let has_labels = selector
        .into_iter()
        .flatten()
        .all(|(key, value)| labels[key] == *value);
    let required =
        &pod["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"];
    let terms = required["nodeSelectorTerms"].as_array();
    has_labels && terms.is_none_or(|terms| terms.iter().any(|term| is_term(term, node)))
}

fn is_term(term: &Value, node: &Value) -> bool {
    let list = |name: &str| term[name].as_array().cloned().unwrap_or_default();
    let (labels, fields) = (list("matchExpressions"), list("matchFields"));
    let of_label = |it: &Value| {
        node["metadata"]["labels"][text(&it["key"])]
            .as_str()
            .map(str::to_owned)
    };
    let of_field = |it: &Value| match text(&it["key"]) {
        "metadata.name" => node["metadata"]["name"].as_str().map(str::to_owned),
        _ => None,
    };
    // A term without conditions selects nothing.
    !(labels.is_empty() && fields.is_empty())
        && labels.iter().all(|it| is_met(it, of_label(it).as_deref()))
        && fields.iter().all(|it| is_met(it, of_field(it).as_deref()))
}

fn is_met(condition: &Value, value: Option<&str>) -> bool {
    let values = condition["values"].as_array();
    let mut listed = values.into_iter().flatten().filter_map(Value::as_str);
    let number = |text: &str| text.parse::<i64>().ok();
    match text(&condition["operator"]) {
        "In" => value.is_some_and(|value| listed.any(|it| it == value)),
        "NotIn" => value.is_none_or(|value| !listed.any(|it| it == value)),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => value.and_then(number) > listed.next().and_then(number),
        "Lt" => {
            matches!((value.and_then(number), listed.next().and_then(number)), (Some(a), Some(b)) if a < b)
        }
        _ => false,
    }
}

/// Returns the first taint of a node that keeps a pod away, as the scheduler writes it.
pub(super) fn untolerated(pod: &Value, node: &Value) -> Option<String> {
    let taints = node["spec"]["taints"].as_array().into_iter().flatten();
    let mut keeping = taints.filter(|it| matches!(text(&it["effect"]), "NoSchedule" | "NoExecute"));
    let taint = keeping.find(|it| !tolerates(pod, it))?;
    Some(format!(
        "{{{}: {}}}",
        text(&taint["key"]),
        text(&taint["value"])
    ))
}

/// Whether a pod tolerates a taint.
pub(super) fn tolerates(pod: &Value, taint: &Value) -> bool {
    let tolerations = pod["spec"]["tolerations"].as_array();
    tolerations.into_iter().flatten().any(|it| {
        let effect = text(&it["effect"]);
        let is_effect = effect.is_empty() || effect == text(&taint["effect"]);
        let key = text(&it["key"]);
        let is_value = match text(&it["operator"]) {
            "Exists" => key.is_empty() || key == text(&taint["key"]),
            _ => key == text(&taint["key"]) && text(&it["value"]) == text(&taint["value"]),
        };
        is_effect && is_value
    })
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
