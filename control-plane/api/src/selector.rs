//! Choice of objects by their labels (`metav1.LabelSelector`).

use std::collections::BTreeMap;

use crate::object::object;

object! {
    /// Which objects are meant; all of them when nothing is set.
    pub struct LabelSelector {
        /// Labels that must be there with these values.
        pub match_labels: BTreeMap<String, String>,
        /// Further conditions, all of which must hold.
        pub match_expressions: Vec<LabelRequirement>,
    }

    /// A condition on one label.
    pub struct LabelRequirement {
        /// Name of the label.
        pub key: String,
        /// `In`, `NotIn`, `Exists` or `DoesNotExist`.
        pub operator: String,
        /// Values for `In` and `NotIn`.
        pub values: Vec<String>,
    }
}

impl LabelSelector {
    /// Whether an object with these labels is meant.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        let mut wanted = self.match_labels.iter();
        wanted.all(|(key, value)| labels.get(key) == Some(value))
            && self.match_expressions.iter().all(|e| e.matches(labels))
    }
}

impl LabelRequirement {
    /// Whether the condition holds for these labels; one with an unknown operator never does.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        let value = labels.get(&self.key);
        let listed = value.is_some_and(|value| self.values.contains(value));
        match self.operator.as_str() {
            "In" => listed,
            "NotIn" => !listed,
            "Exists" => value.is_some(),
            "DoesNotExist" => value.is_none(),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::{Value, json};

    use super::LabelSelector;

    #[track_caller]
    fn check(selector: Value, expected: bool) {
        let selector: LabelSelector = serde_json::from_value(selector).unwrap();
        let labels = BTreeMap::from([("zone".to_owned(), "a".to_owned())]);
        assert_eq!(selector.matches(&labels), expected);
    }

    #[test]
    fn an_empty_selector_means_everything() {
        check(json!({}), true);
        check(json!({"matchLabels": null, "matchExpressions": null}), true);
    }

    #[test]
    fn labels_must_have_the_value() {
        check(json!({"matchLabels": {"zone": "a"}}), true);
        check(json!({"matchLabels": {"zone": "b"}}), false);
        check(json!({"matchLabels": {"rack": "a"}}), false);
    }

    #[test]
    fn all_expressions_must_hold() {
        let check = |key: &str, operator: &str, values: Value, expected| {
            let expression = json!({"key": key, "operator": operator, "values": values});
            check(json!({"matchExpressions": [expression]}), expected);
        };
        check("zone", "In", json!(["a", "b"]), true);
        check("zone", "In", json!(["b"]), false);
        check("rack", "In", json!(["a"]), false);
        check("zone", "NotIn", json!(["a"]), false);
        check("rack", "NotIn", json!(["a"]), true);
        check("zone", "Exists", json!(null), true);
        check("rack", "Exists", json!([]), false);
        check("rack", "DoesNotExist", json!([]), true);
        check("zone", "DoesNotExist", json!([]), false);
        check("zone", "Resembles", json!(["a"]), false);
    }
}
