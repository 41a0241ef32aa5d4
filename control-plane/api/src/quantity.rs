//! Amounts as Kubernetes writes them: `256Mi`, `1.5G`, `100m`, `1e3`
//! (apimachinery's `resource.Quantity` grammar).

use std::fmt;
use std::str::FromStr;

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::object::Unset;

/// Decimal places that a quantity keeps; finer fractions are rounded away from zero.
const NANO: i128 = 1_000_000_000;

/// More digits than any amount needs; bounds the arithmetic.
const MAX_TEXT_LEN: usize = 40;

/// What texts of quantities look like, as a regular expression for schemas.
#[cfg(feature = "schema")]
pub(crate) const PATTERN: &str = r"^(\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))(([KMGTPE]i)|[numkMGTPE]|([eE](\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))))?$";

/// An amount: exact to a billionth, kept together with the text it came from.
#[derive(Clone, Debug)]
pub struct Quantity {
    text: String,
    nanos: i128,
}

/// Text that is no quantity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    /// The text doesn't follow the grammar.
    #[error(
        "{0:?} is no quantity: write a number with an optional suffix, such as 512Mi, 2Gi, 1.5G or 100m"
    )]
    Malformed(String),
    /// The amount doesn't fit 63 bits.
    #[error("{0:?} is out of range: the largest quantity is below 2^63")]
    OutOfRange(String),
}

impl Quantity {
    /// Returns a quantity of whole units.
    pub fn from_units(units: u64) -> Self {
        Self {
            text: units.to_string(),
            nanos: i128::from(units) * NANO,
        }
    }

    /// Returns the amount in whole units (bytes, CPUs), rounded up; `None` when it is negative.
    pub fn units(&self) -> Option<u64> {
        u64::try_from(div_away_from_zero(self.nanos, NANO)).ok()
    }

    /// Returns the text that the quantity was read from.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl FromStr for Quantity {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let malformed = || QuantityError::Malformed(text.to_owned());
        if text.len() > MAX_TEXT_LEN {
            return Err(malformed());
        }
        let (negative, unsigned) = match text.as_bytes().first() {
            Some(b'-') => (true, &text[1..]),
            Some(b'+') => (false, &text[1..]),
            _ => (false, text),
        };
        let number_len = unsigned
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(unsigned.len());
        let (number, suffix) = unsigned.split_at(number_len);
        let (digits, places) = parse_number(number).ok_or_else(malformed)?;
        let scale = Scale::parse(suffix).ok_or_else(malformed)?;
        let nanos = scale
            .nanos(digits, places)
            .ok_or_else(|| QuantityError::OutOfRange(text.to_owned()))?;
        Ok(Self {
            text: text.to_owned(),
            nanos: if negative { -nanos } else { nanos },
        })
    }
}

/// The digits of a decimal number as an integer, and how many of them follow the point.
fn parse_number(number: &str) -> Option<(i128, u32)> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let fraction = fraction.trim_end_matches('0');
    let digits = format!("0{whole}{fraction}").parse::<i128>().ok()?;
    Some((digits, u32::try_from(fraction.len()).ok()?))
}

/// A suffix: powers of 1024 or of ten.
enum Scale {
    Binary(u32),
    Decimal(i32),
}

impl Scale {
    fn parse(suffix: &str) -> Option<Self> {
        Some(match suffix {
            "Ki" => Self::Binary(1),
            "Mi" => Self::Binary(2),
            "Gi" => Self::Binary(3),
            "Ti" => Self::Binary(4),
            "Pi" => Self::Binary(5),
            "Ei" => Self::Binary(6),
            "n" => Self::Decimal(-9),
            "u" => Self::Decimal(-6),
            "m" => Self::Decimal(-3),
            "" => Self::Decimal(0),
            "k" => Self::Decimal(3),
            "M" => Self::Decimal(6),
            "G" => Self::Decimal(9),
            "T" => Self::Decimal(12),
            "P" => Self::Decimal(15),
            "E" => Self::Decimal(18),
            _ => {
                let exponent = suffix.strip_prefix(['e', 'E'])?.parse::<i32>().ok()?;
                Self::Decimal(exponent)
            }
        })
    }

    /// The amount `digits / 10^places` in billionths; `None` when it exceeds 63 bits of units.
    fn nanos(&self, digits: i128, places: u32) -> Option<i128> {
        let nanos = match *self {
            Self::Binary(power) => {
                let scaled = digits
                    .checked_mul(1024_i128.pow(power))?
                    .checked_mul(NANO)?;
                div_away_from_zero(scaled, 10_i128.checked_pow(places)?)
            }
            Self::Decimal(exponent) => {
                let shift = exponent.checked_add(9)?.checked_sub_unsigned(places)?;
                match u32::try_from(shift) {
                    Ok(_) if digits == 0 => 0,
                    Ok(up) => digits.checked_mul(10_i128.checked_pow(up)?)?,
                    // A divisor beyond 39 digits leaves nothing but the rounding.
                    Err(_) => match 10_i128.checked_pow(shift.unsigned_abs()) {
                        Some(divisor) => div_away_from_zero(digits, divisor),
                        None => digits.signum(),
                    },
                }
            }
        };
        (nanos <= i128::from(i64::MAX) * NANO).then_some(nanos)
    }
}

fn div_away_from_zero(dividend: i128, divisor: i128) -> i128 {
    let quotient = dividend / divisor;
    if dividend % divisor == 0 {
        quotient
    } else {
        quotient + dividend.signum()
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nanos == other.nanos
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Unset for Quantity {
    fn is_unset(&self) -> bool {
        false
    }
}

impl Serialize for Quantity {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for Quantity {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Quantity;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a quantity such as 512Mi, 2Gi, 1.5G or 100m")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Quantity, E> {
                text.parse().map_err(E::custom)
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Quantity, E> {
                self.visit_str(&number.to_string())
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Quantity, E> {
                self.visit_str(&number.to_string())
            }

            fn visit_f64<E: de::Error>(self, number: f64) -> Result<Quantity, E> {
                self.visit_str(&number.to_string())
            }
        }
        deserializer.deserialize_any(Text)
    }
}

/// The schema's name is enough: `crd` knows what a quantity looks like.
#[cfg(feature = "schema")]
impl schemars::JsonSchema for Quantity {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Quantity".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({"type": "string"})
    }
}

#[cfg(test)]
mod tests;
