//! How an API object is written: JSON names in camel case, `null` read as absent, and nothing written
//! for what is unset, as the Kubernetes encoders do.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};

/// Declares API structs whose fields are all optional on the wire.
macro_rules! object {
    ($( $(#[$attr:meta])* pub struct $name:ident {
        $( $(#[$fattr:meta])* pub $field:ident : $ty:ty, )*
    } )*) => { $(
        $(#[$attr])*
        #[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
        #[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
        #[serde(rename_all = "camelCase", default)]
        pub struct $name { $(
            $(#[$fattr])*
            #[serde(
                deserialize_with = "crate::object::null_as_default",
                skip_serializing_if = "crate::object::is_unset"
            )]
            pub $field: $ty,
        )* }

        impl crate::object::Unset for $name {
            fn is_unset(&self) -> bool {
                *self == Self::default()
            }
        }
    )* };
}
pub(crate) use object;

object! {
    /// An object without fields, whose presence is the information (`masquerade: {}`).
    pub struct Presence {}
}

/// Whether a value would be left out of the encoded object.
pub(crate) trait Unset {
    fn is_unset(&self) -> bool;
}

impl<T> Unset for Option<T> {
    fn is_unset(&self) -> bool {
        self.is_none()
    }
}

impl<T> Unset for Vec<T> {
    fn is_unset(&self) -> bool {
        self.is_empty()
    }
}

impl<K, V> Unset for BTreeMap<K, V> {
    fn is_unset(&self) -> bool {
        self.is_empty()
    }
}

impl Unset for String {
    fn is_unset(&self) -> bool {
        self.is_empty()
    }
}

/// A number is always written; one that may be left out is an `Option`.
impl Unset for i64 {
    fn is_unset(&self) -> bool {
        false
    }
}

/// A truth is always written; one that may be left out is an `Option`.
impl Unset for bool {
    fn is_unset(&self) -> bool {
        false
    }
}

pub(crate) fn is_unset<T: Unset>(value: &T) -> bool {
    value.is_unset()
}

pub(crate) fn null_as_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}
