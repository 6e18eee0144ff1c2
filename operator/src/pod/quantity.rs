//! Quantities as Kubernetes writes them, exact in thousandths: as much of them as adding needs.

use std::fmt;
use std::str::FromStr;

/// An amount of a resource, in thousandths of its unit (cores, bytes).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Quantity(i128);

/// A text that is no quantity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no quantity: write it like 250m, 0.5, 64Mi or 1G")]
pub struct BadQuantity(String);

const SUFFIXES: [(&str, i128); 14] = [
    ("Ki", 1 << 10),
    ("Mi", 1 << 20),
    ("Gi", 1 << 30),
    ("Ti", 1 << 40),
    ("Pi", 1 << 50),
    ("Ei", 1 << 60),
    ("k", 1_000),
    ("M", 1_000_000),
    ("G", 1_000_000_000),
    ("T", 1_000_000_000_000),
    ("P", 1_000_000_000_000_000),
    ("E", 1_000_000_000_000_000_000),
    ("e3", 1_000),
    ("e6", 1_000_000),
];

impl Quantity {
    /// The sum.
    pub fn plus(self, other: Quantity) -> Quantity {
        Quantity(self.0 + other.0)
    }

    /// The difference, never below nothing.
    pub fn minus(self, other: Quantity) -> Quantity {
        Quantity((self.0 - other.0).max(0))
    }
}

impl FromStr for Quantity {
    type Err = BadQuantity;

    fn from_str(text: &str) -> Result<Quantity, BadQuantity> {
        let bad = || BadQuantity(text.to_owned());
        if let Some(thousandths) = text.strip_suffix('m') {
            return thousandths.parse().map(Quantity).ok().filter(|it| it.0 >= 0).ok_or_else(bad);
        }
        let (number, unit) =
            SUFFIXES.iter().find_map(|(suffix, unit)| Some((text.strip_suffix(suffix)?, *unit))).unwrap_or((text, 1));
        let (whole, part) = number.split_once('.').unwrap_or((number, ""));
        let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        if (whole.is_empty() && part.is_empty()) || !digits(whole) || !digits(part) || whole.len() + part.len() > 18 {
            return Err(bad());
        }
        let scale = 10_i128.pow(u32::try_from(part.len()).map_err(|_| bad())?);
        let all: i128 = format!("{whole}{part}").parse().map_err(|_| bad())?;
        Ok(Quantity(all * unit * 1000 / scale))
    }
}

/// The shortest usual form.
impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let thousandths = self.0;
        if thousandths % 1000 != 0 {
            return write!(f, "{thousandths}m");
        }
        let whole = thousandths / 1000;
        for (suffix, unit) in [("Gi", 1_i128 << 30), ("Mi", 1 << 20), ("Ki", 1 << 10)] {
            if whole != 0 && whole % unit == 0 {
                return write!(f, "{}{suffix}", whole / unit);
            }
        }
        write!(f, "{whole}")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::Quantity;

    #[test]
    fn quantities_add_in_whatever_form_they_are_written() {
        for (one, other, sum) in [
            ("100m", "0.5", "600m"),
            ("1", "500m", "1500m"),
            ("1.5", "500m", "2"),
            ("64Mi", "1Gi", "1088Mi"),
            ("128974848", "0", "123Mi"),
            ("1G", "24", "1000000024"),
            ("0.5Gi", "512Mi", "1Gi"),
            ("1e3", "0", "1000"),
        ] {
            let (one, other): (Quantity, Quantity) = (one.parse().unwrap(), other.parse().unwrap());
            assert_eq!(one.plus(other).to_string(), sum);
            assert_eq!(one.plus(other).minus(other), one);
        }
        for text in ["", "m", ".", "-1", "1 Mi", "Mi", "1.2.3", "one"] {
            assert!(text.parse::<Quantity>().is_err(), "{text:?}");
        }
    }
}
