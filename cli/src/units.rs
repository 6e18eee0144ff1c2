//! Numbers as people read them.

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Bytes with three digits that mean something: `0 B`, `1023 B`, `1.00 KiB`, `12.3 MiB`, `1.50 TiB`.
pub(crate) fn bytes(len: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if len < 1024 {
        return format!("{len} B");
    }
    let mut value = len as f64 / 1024.0;
    let mut unit = 0;
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let digits = if value < 9.995 { 2 } else { usize::from(value < 99.95) };
    format!("{value:.digits$} {}", UNITS[unit])
}

/// A count with its thousands apart: `1 234 567`.
pub(crate) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

/// `one` or `many`, with its count.
pub(crate) fn counted(number: u64, one: &str, many: &str) -> String {
    format!("{} {}", count(number), if number == 1 { one } else { many })
}

/// A share in percent; 100 % only when nothing is missing, 0 % only when nothing is there.
pub(crate) fn percent(part: u64, whole: u64) -> String {
    if whole == 0 || part >= whole {
        return "100 %".into();
    }
    let tenths = (u128::from(part) * 1000 / u128::from(whole)) as u64;
    match tenths {
        0 if part > 0 => "0.1 %".into(),
        0 => "0 %".into(),
        tenths => format!("{}.{} %", tenths / 10, tenths % 10),
    }
}

/// A time in UTC: `2026-11-24 12:00:00`; `-` for none.
pub(crate) fn time(unix: i64) -> String {
    match timestamp(unix) {
        Some(text) => text.replace('T', " ").trim_end_matches('Z').to_owned(),
        None => "-".into(),
    }
}

/// A time for machines: `2026-11-24T12:00:00Z`.
pub(crate) fn timestamp(unix: i64) -> Option<String> {
    if unix <= 0 {
        return None;
    }
    OffsetDateTime::from_unix_timestamp(unix).ok()?.format(&Rfc3339).ok()
}

/// How long ago: `12 s ago`, `3 min ago`, `5 h ago`, `2 d ago`.
pub(crate) fn ago(unix: i64, now: i64) -> String {
    let seconds = now.saturating_sub(unix).max(0);
    let (number, unit) = match seconds {
        0..=119 => (seconds, "s"),
        120..=7199 => (seconds / 60, "min"),
        7200..=172_799 => (seconds / 3600, "h"),
        _ => (seconds / 86_400, "d"),
    };
    format!("{number} {unit} ago")
}

/// Now, in seconds since 1970.
#[expect(clippy::disallowed_methods, reason = "people say `2h ago` and read ages; nothing is ordered by it")]
pub(crate) fn now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs().cast_signed())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_have_three_digits_that_mean_something() {
        for (len, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.00 KiB"),
            (128 << 10, "128 KiB"),
            (12_897_485, "12.3 MiB"),
            ((1 << 20) - 1, "1.00 MiB"),
            (1536 << 30, "1.50 TiB"),
            (u64::MAX, "16.0 EiB"),
        ] {
            assert_eq!(bytes(len), text, "{len}");
        }
    }

    #[test]
    fn a_share_is_whole_only_when_nothing_is_missing() {
        for (part, whole, text) in [
            (0, 0, "100 %"),
            (5, 5, "100 %"),
            (0, 5, "0 %"),
            (1, 1_000_000, "0.1 %"),
            (999_999, 1_000_000, "99.9 %"),
            (1, 3, "33.3 %"),
        ] {
            assert_eq!(percent(part, whole), text, "{part}/{whole}");
        }
    }

    #[test]
    fn counts_times_and_ages_read_well() {
        assert_eq!(count(0), "0");
        assert_eq!(count(999), "999");
        assert_eq!(count(1_234_567), "1 234 567");
        assert_eq!(counted(1, "gap", "gaps"), "1 gap");
        assert_eq!(counted(0, "gap", "gaps"), "0 gaps");
        assert_eq!(time(1_795_521_600), "2026-11-24 12:00:00");
        assert_eq!(time(0), "-");
        for (seconds, text) in
            [(0, "0 s ago"), (119, "119 s ago"), (120, "2 min ago"), (7200, "2 h ago"), (180_000, "2 d ago")]
        {
            assert_eq!(ago(1_000_000, 1_000_000 + seconds), text);
        }
    }
}
