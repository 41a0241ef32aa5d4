//! What was filled into an object of our types, filled into the object as it came.
//!
//! Types of ours do not know all fields, and API objects are not written back from them: only fields that differ
//! before and after are taken over.

use serde::Serialize;
use serde_json::{Map, Value};

/// Sets in `object` what `after` has and `before` has not.
pub(super) fn overlay<T: Serialize>(object: &mut Value, before: &T, after: &T) {
    let json = |typed: &T| serde_json::to_value(typed).unwrap_or_default();
    take_over(object, &json(before), &json(after));
}

fn take_over(object: &mut Value, before: &Value, after: &Value) {
    if before == after {
        return;
    }
    match (before, after) {
        (Value::Null | Value::Object(_), Value::Object(after)) => {
            if !object.is_object() {
                *object = Value::Object(Map::new());
            }
            for (field, after) in after {
                take_over(&mut object[field], &before[field], after);
            }
            // What was not touched has not come into being either.
            if let (Some(object), Some(before)) = (object.as_object_mut(), before.as_object()) {
                object.retain(|field, value| !value.is_null() || !after.contains_key(field));
                object.retain(|field, _| after.contains_key(field) || !before.contains_key(field));
            }
        }
        (Value::Array(before), Value::Array(after))
            if before.len() == after.len() && is_list(object, after.len()) =>
        {
            for (index, after) in after.iter().enumerate() {
                take_over(&mut object[index], &before[index], after);
            }
        }
        (_, after) => *object = after.clone(),
    }
}

fn is_list(object: &Value, len: usize) -> bool {
    object.as_array().is_some_and(|list| list.len() == len)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::overlay;

    #[track_caller]
    fn check(mut object: Value, before: Value, after: Value, expected: Value) {
        overlay(&mut object, &before, &after);
        assert_eq!(object, expected);
    }

    #[test]
    fn fields_that_nobody_knows_stay_beside_those_that_are_filled_in() {
        check(
            json!({"devices": {"new": 1}, "cpu": {"other": true}}),
            json!({"cpu": {}}),
            json!({"cpu": {"cores": 1}, "devices": {"rng": {}}}),
            json!({"devices": {"new": 1, "rng": {}}, "cpu": {"other": true, "cores": 1}}),
        );
    }

    #[test]
    fn elements_of_lists_are_filled_in_one_by_one() {
        check(
            json!({"disks": [{"name": "a", "new": 1}, {"name": "b"}]}),
            json!({"disks": [{"name": "a"}, {"name": "b"}]}),
            json!({"disks": [{"name": "a", "bus": "sata"}, {"name": "b"}]}),
            json!({"disks": [{"name": "a", "bus": "sata", "new": 1}, {"name": "b"}]}),
        );
    }

    #[test]
    fn what_came_in_another_writing_stays_as_it_came() {
        check(
            json!({"memory": "1024Mi", "nothing": null}),
            json!({"memory": "1Gi"}),
            json!({"memory": "1Gi", "cores": 1}),
            json!({"memory": "1024Mi", "nothing": null, "cores": 1}),
        );
    }

    #[test]
    fn lists_that_grow_and_fields_that_go_are_taken_over() {
        check(
            json!({"list": [1], "old": 1, "other": 2}),
            json!({"list": [1], "old": 1}),
            json!({"list": [1, 2]}),
            json!({"list": [1, 2], "other": 2}),
        );
    }
}
