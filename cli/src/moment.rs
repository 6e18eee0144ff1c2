//! `--at`: a moment of the copy. A tick is exact; a time is looked up in the times that records were made at, which
//! are for people.

use std::str::FromStr;
use std::time::Duration;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// A moment as a person names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// After the commit of this number.
    Tick(u64),
    /// A time, in seconds since 1970.
    Time(i64),
    /// So long before now.
    Ago(Duration),
}

/// A text that names no moment.
#[derive(Debug, thiserror::Error)]
#[error("write a tick (4711), a time in UTC (2026-11-24, 2026-11-24T12:30:00Z) or how long ago (90s, 15m, 2h, 3d)")]
pub struct NoMoment;

impl FromStr for Moment {
    type Err = NoMoment;

    fn from_str(text: &str) -> Result<Moment, NoMoment> {
        if let Ok(tick) = text.parse() {
            return Ok(Moment::Tick(tick));
        }
        for (unit, seconds) in [("s", 1), ("m", 60), ("h", 3600), ("d", 86_400)] {
            let number = text.strip_suffix(unit).and_then(|number| number.parse::<u64>().ok());
            if let Some(seconds) = number.and_then(|number| number.checked_mul(seconds)) {
                return Ok(Moment::Ago(Duration::from_secs(seconds)));
            }
        }
        let whole =
            if text.len() == "2026-11-24".len() { format!("{text}T00:00:00Z") } else { text.replacen(' ', "T", 1) };
        let zoned = [whole.clone(), format!("{whole}Z"), format!("{whole}:00Z")];
        let time = zoned.iter().find_map(|text| OffsetDateTime::parse(text, &Rfc3339).ok()).ok_or(NoMoment)?;
        Ok(Moment::Time(time.unix_timestamp()))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_moment_is_a_tick_a_time_or_an_age() {
        let noon = 1_795_521_600;
        let rows = [
            ("4711", Moment::Tick(4711)),
            ("90s", Moment::Ago(Duration::from_secs(90))),
            ("15m", Moment::Ago(Duration::from_secs(900))),
            ("2h", Moment::Ago(Duration::from_secs(7200))),
            ("3d", Moment::Ago(Duration::from_secs(259_200))),
            ("2026-11-24T12:00:00Z", Moment::Time(noon)),
            ("2026-11-24T13:00:00+01:00", Moment::Time(noon)),
            ("2026-11-24 12:00:00", Moment::Time(noon)),
            ("2026-11-24 12:00", Moment::Time(noon)),
            ("2026-11-24", Moment::Time(noon - 43_200)),
        ];
        for (text, moment) in rows {
            assert_eq!(text.parse::<Moment>().unwrap(), moment, "{text}");
        }
        for text in ["", "yesterday", "2026-13-01", "-5", "3w", "1.5h"] {
            assert!(text.parse::<Moment>().is_err(), "{text:?}");
        }
    }
}
