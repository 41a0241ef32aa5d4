//! JSON of any shape, cut to a size that the guest does not decide.

use std::cell::Cell;
use std::fmt;

use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Number, Value};

use super::{Text, TextVisitor};

/// Most bytes of the JSON text of an answer: fourteen of them and a machine's counters fit the 4 MiB that a gRPC client
/// takes at once.
pub(in crate::agent) const MAX_FIGURE_BYTES: usize = 256 << 10;
/// Deepest nesting; the agent's answers have four levels.
const MAX_DEPTH: usize = 8;
/// Most bytes of a fraction as text, and of `null` and `false`, with what separates them.
const FRACTION_BYTES: usize = 25;
const WORD_BYTES: usize = 6;
/// Brackets, and what separates them.
const BRACKETS_BYTES: usize = 3;

/// JSON whose text has at most [`MAX_FIGURE_BYTES`]: an entry that is beyond is left out with all that follow.
#[derive(Debug, Default, PartialEq)]
pub(in crate::agent) struct Cut(pub(in crate::agent) Value);

impl<'de> Deserialize<'de> for Cut {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let left = Cell::new(MAX_FIGURE_BYTES);
        let limited = Limited {
            left: &left,
            depth: MAX_DEPTH,
        };
        limited.deserialize(deserializer).map(Self)
    }
}

/// Reads a value of which so much may be kept.
#[derive(Clone, Copy)]
struct Limited<'a> {
    /// Bytes that are left for all of the answer.
    left: &'a Cell<usize>,
    depth: usize,
}

impl Limited<'_> {
    fn below(self) -> Self {
        Self {
            depth: self.depth.saturating_sub(1),
            ..self
        }
    }

    fn spend(self, bytes: usize) {
        self.left.set(self.left.get().saturating_sub(bytes));
    }

    /// Pays for a text, its quotes and what separates it.
    fn spend_text(self, text: &str) {
        let escaped = text.bytes().map(|byte| match byte {
            0..=0x1f => 6,
            b'"' | b'\\' => 2,
            _ => 1,
        });
        self.spend(escaped.sum::<usize>() + 3);
    }

    fn is_spent(self) -> bool {
        self.left.get() == 0
    }
}

impl<'de> DeserializeSeed<'de> for Limited<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Limited<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        self.spend(WORD_BYTES);
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        self.spend(WORD_BYTES);
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        self.spend(value.to_string().len() + 1);
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        self.spend(value.to_string().len() + 1);
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        self.spend(FRACTION_BYTES);
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Value, E> {
        let Text(text) = TextVisitor.visit_str::<E>(text)?;
        self.spend_text(&text);
        Ok(text.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut kept = Vec::new();
        self.spend(BRACKETS_BYTES);
        while self.depth > 0
            && !self.is_spent()
            && let Some(entry) = entries.next_element_seed(self.below())?
        {
            if !self.is_spent() {
                kept.push(entry);
            }
        }
        while entries.next_element::<IgnoredAny>()?.is_some() {}
        Ok(kept.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut kept = Map::new();
        self.spend(BRACKETS_BYTES);
        while self.depth > 0
            && !self.is_spent()
            && let Some(Text(key)) = entries.next_key()?
        {
            self.spend_text(&key);
            let value = entries.next_value_seed(self.below())?;
            if !self.is_spent() {
                kept.insert(key, value);
            }
        }
        while entries.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(kept.into())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{Cut, MAX_FIGURE_BYTES};

    fn cut(text: &str) -> Value {
        serde_json::from_str::<Cut>(text).unwrap().0
    }

    #[test]
    fn what_is_small_stays_as_it_is() {
        let small =
            json!([{"name": "vda", "stats": {"ios": 7, "load": 0.5, "up": true}}, -1, null]);
        assert_eq!(cut(&small.to_string()), small);
        assert_eq!(cut("12"), json!(12));
    }

    #[test]
    fn entries_beyond_the_limit_are_left_out_whole() {
        let block = json!({"phys-index": 1, "online": true, "name": "\u{1}".repeat(40)});
        let blocks = cut(&json!(vec![block.clone(); 10_000]).to_string());
        let kept = blocks.as_array().unwrap();
        assert!(kept.len() > 500 && kept.iter().all(|kept| *kept == block));
        assert!(blocks.to_string().len() <= MAX_FIGURE_BYTES);

        let keys: Vec<String> = (0..100_000).map(|n| format!("\"k{n}\": [[]]")).collect();
        let map = cut(&format!("{{{}}}", keys.join(",")));
        assert!(map.to_string().len() <= MAX_FIGURE_BYTES);
        assert!(
            map.as_object()
                .unwrap()
                .values()
                .all(|value| *value == json!([[]]))
        );
    }

    #[test]
    fn long_texts_and_deep_lists_are_cut() {
        assert_eq!(
            cut(&json!("ö".repeat(5000)).to_string()),
            json!("ö".repeat(512))
        );
        let deep = format!("{}{}", "[".repeat(100), "]".repeat(100));
        assert_eq!(cut(&deep).to_string(), "[[[[[[[[[]]]]]]]]]");
    }
}
