//! Lists in JSON from a peer that is not trusted.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// The most entries of a list. KVM gives a machine at most this many vCPUs, and nobody gives it as many
/// disks or network interfaces. Without a bound, a message of `{}` after `{}` would grow a hundredfold
/// in memory.
pub(crate) const LIST_LEN_MAX: usize = 4096;

/// Reads a list of at most [`LIST_LEN_MAX`] entries; `null`, which Go writes for a list that was never
/// made, is an empty one.
pub(crate) fn bounded<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    deserializer.deserialize_any(Bounded(PhantomData))
}

struct Bounded<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for Bounded<T> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a list of at most {LIST_LEN_MAX} entries")
    }

    fn visit_unit<E: Error>(self) -> Result<Vec<T>, E> {
        Ok(Vec::new())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<T>, A::Error> {
        let mut list = Vec::new();
        while let Some(entry) = seq.next_element()? {
            if list.len() == LIST_LEN_MAX {
                return Err(A::Error::invalid_length(LIST_LEN_MAX + 1, &self));
            }
            list.push(entry);
        }
        Ok(list)
    }
}
