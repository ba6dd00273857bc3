//! Durations and sizes as scripts write them: `"1m30s"`, `"64MiB"`.

use std::time::Duration;

/// Parses `"250ms"`, `"15s"`, `"1.5h"`, `"1d12h"`. Every number needs its unit: ms, s, m, h or d.
///
/// # Errors
/// One line that says what was expected.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("expected a duration such as \"15s\" or \"1m30s\", got {}", super::args::quoted(text));
    let mut rest = text.trim();
    let mut total = Duration::ZERO;
    if rest.is_empty() {
        return Err(wrong());
    }
    while !rest.is_empty() {
        let (number, after) = split_number(rest).ok_or_else(wrong)?;
        let end = after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len());
        let seconds = match &after[..end] {
            "ms" => number / 1000.0,
            "s" => number,
            "m" => number * 60.0,
            "h" => number * 3600.0,
            "d" => number * 86_400.0,
            _ => return Err(wrong()),
        };
        let part = Duration::try_from_secs_f64(seconds).map_err(|_| wrong())?;
        total = total.checked_add(part).ok_or_else(wrong)?;
        rest = &after[end..];
    }
    Ok(total)
}

/// Parses `"512B"`, `"64KiB"`, `"1.5GB"` into bytes. Units: B, KB, MB, GB, TB (thousands) and KiB … TiB (1024).
///
/// # Errors
/// One line that says what was expected.
pub(crate) fn parse_size(text: &str) -> Result<u64, String> {
    let wrong = || format!("expected a size such as \"64MiB\", got {}", super::args::quoted(text));
    let (number, unit) = split_number(text.trim()).ok_or_else(wrong)?;
    let factor = match unit.trim_start() {
        "B" => 1.0,
        "KB" | "kB" => 1e3,
        "MB" => 1e6,
        "GB" => 1e9,
        "TB" => 1e12,
        "KiB" => 1024.0,
        "MiB" => 1024.0 * 1024.0,
        "GiB" => 1024.0 * 1024.0 * 1024.0,
        "TiB" => 1024.0 * 1024.0 * 1024.0 * 1024.0,
        _ => return Err(wrong()),
    };
    let bytes = (number * factor).round();
    // 2^63: far beyond anything that exists, and exact as a float.
    if bytes < 9_223_372_036_854_775_808.0 { Ok(bytes as u64) } else { Err(wrong()) }
}

/// A leading number without sign or exponent, and what follows it.
fn split_number(text: &str) -> Option<(f64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let number: f64 = text[..end].parse().ok()?;
    Some((number, &text[end..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_need_units_and_may_be_compound() {
        for (text, millis) in
            [("250ms", 250), ("15s", 15_000), ("1m30s", 90_000), ("1.5h", 5_400_000), ("1d12h", 129_600_000)]
        {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "15", "s", "-1s", "1 s", "1e3s", "1.2.3s", "5x", "99999999999999999999d"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_know_thousands_and_powers_of_two() {
        for (text, bytes) in [("0B", 0), ("512 B", 512), ("64KiB", 65_536), ("1.5MB", 1_500_000), ("1GiB", 1 << 30)] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for text in ["", "64", "64 M", "MiB", "-1B", "1e30GiB", "99999999999999999999TiB"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }
}
