//! Durations, sizes and percentages as people write them: `"1m30s"`, `"64MiB"`, `"10%"`.
//!
//! Pure text to numbers; shared by policy tables, the host's configuration and flags. A bare number is an
//! error on purpose: nobody can tell seconds from milliseconds, nor bytes from megabytes.

use std::time::Duration;

/// Why a text is not what it should be. Each message says what was expected, with an example.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UnitError {
    /// A number without a unit.
    #[error("expected a {what} with a unit such as `{example}`, got the bare number `{text}`")]
    NoUnit {
        /// `duration` or `size`.
        what: &'static str,
        /// One that would do.
        example: &'static str,
        /// What came.
        text: String,
    },
    /// A unit that does not exist.
    #[error("unknown unit `{unit}` in `{text}`, expected one of {known}")]
    UnknownUnit {
        /// The unit that came.
        unit: String,
        /// What came.
        text: String,
        /// Those that exist.
        known: &'static str,
    },
    /// Nothing that could be read.
    #[error("expected a {what} such as `{example}`, got `{text}`")]
    Malformed {
        /// `duration`, `size` or `percentage`.
        what: &'static str,
        /// One that would do.
        example: &'static str,
        /// What came.
        text: String,
    },
    /// Beyond what can be held.
    #[error("the {what} `{text}` is too large")]
    TooLarge {
        /// `duration` or `size`.
        what: &'static str,
        /// What came.
        text: String,
    },
}

const DURATION_UNITS: &str = "`ms`, `s`, `m`, `h`, `d`";
const SIZE_UNITS: &str = "`B`, `KiB`, `MiB`, `GiB`, `TiB`, `kB`, `MB`, `GB`, `TB`";

/// The longest duration that a text may give: about a hundred years, so that sums of a few never overflow.
const MAX_DURATION_SECS: f64 = 100.0 * 366.0 * 86_400.0;

/// Reads `"15s"`, `"1m30s"`, `"250ms"`, `"1.5h"`. Units go from large to small and appear once at most.
pub fn parse_duration(text: &str) -> Result<Duration, UnitError> {
    const EXAMPLE: &str = "15s";
    let malformed = || UnitError::Malformed { what: "duration", example: EXAMPLE, text: shown(text) };
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(malformed());
    }
    let mut seconds = 0.0;
    let mut last = f64::INFINITY;
    while !rest.is_empty() {
        let (number, after) = split_number(rest).ok_or_else(malformed)?;
        let end = after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len());
        let (unit, tail) = after.split_at(end);
        let factor = match unit {
            "" if tail.is_empty() => {
                return Err(UnitError::NoUnit { what: "duration", example: EXAMPLE, text: shown(text) });
            }
            "" => return Err(malformed()),
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            "d" => 86_400.0,
            _ => {
                return Err(UnitError::UnknownUnit { unit: shown(unit), text: shown(text), known: DURATION_UNITS });
            }
        };
        if factor >= last {
            return Err(malformed());
        }
        last = factor;
        seconds += number * factor;
        rest = tail;
    }
    if seconds > MAX_DURATION_SECS {
        return Err(UnitError::TooLarge { what: "duration", text: shown(text) });
    }
    // Whole nanoseconds: 0.3 s must be exactly 300 ms.
    Duration::try_from_secs_f64((seconds * 1e9).round() / 1e9)
        .map_err(|_| UnitError::TooLarge { what: "duration", text: shown(text) })
}

/// Reads `"64MiB"`, `"1.5GB"`, `"512 B"` as bytes.
pub fn parse_size(text: &str) -> Result<u64, UnitError> {
    const EXAMPLE: &str = "64MiB";
    let malformed = || UnitError::Malformed { what: "size", example: EXAMPLE, text: shown(text) };
    let (number, unit) = split_number(text.trim()).ok_or_else(malformed)?;
    let factor: u64 = match unit.trim_start() {
        "" => return Err(UnitError::NoUnit { what: "size", example: EXAMPLE, text: shown(text) }),
        "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        "kB" | "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "TB" => 1_000_000_000_000,
        other => {
            return Err(UnitError::UnknownUnit { unit: shown(other), text: shown(text), known: SIZE_UNITS });
        }
    };
    let bytes = (number * factor as f64).round();
    // 2^53 bytes: the largest range in which every count is exact in Lua, too.
    if bytes > 9_007_199_254_740_992.0 {
        return Err(UnitError::TooLarge { what: "size", text: shown(text) });
    }
    Ok(bytes as u64)
}

/// Reads `"10%"` as the fraction 0.1.
pub fn parse_percent(text: &str) -> Result<f64, UnitError> {
    let malformed = || UnitError::Malformed { what: "percentage", example: "10%", text: shown(text) };
    match split_number(text.trim()) {
        Some((number, unit)) if unit.trim_start() == "%" => Ok(number / 100.0),
        _ => Err(malformed()),
    }
}

/// A non-negative decimal number at the start of a text, and what follows it.
fn split_number(text: &str) -> Option<(f64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, rest) = text.split_at(end);
    // `parse` takes "." for an error and "1." for a number; the latter is more likely a slip.
    if number.starts_with('.') || number.ends_with('.') {
        return None;
    }
    let number: f64 = number.parse().ok()?;
    number.is_finite().then_some((number, rest))
}

/// A text short enough for a message.
fn shown(text: &str) -> String {
    if text.chars().count() <= 40 { text.to_owned() } else { text.chars().take(39).chain(['…']).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_need_units_in_descending_order() {
        for (text, millis) in [
            ("15s", 15_000),
            ("1m30s", 90_000),
            ("250ms", 250),
            ("1.5h", 5_400_000),
            ("0s", 0),
            (" 2d ", 172_800_000),
            ("0.3s", 300),
        ] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in
            ["", "15", "15 s", "s", "-1s", "1s1m", "1s2s", "1w", "1e3s", "1.s", ".5s", "inf", "9999999999h", "१s"]
        {
            assert!(parse_duration(text).is_err(), "{text}");
        }
        assert_eq!(
            parse_duration("15").unwrap_err().to_string(),
            "expected a duration with a unit such as `15s`, got the bare number `15`"
        );
        assert_eq!(
            parse_duration("3min").unwrap_err().to_string(),
            "unknown unit `min` in `3min`, expected one of `ms`, `s`, `m`, `h`, `d`"
        );
    }

    #[test]
    fn sizes_know_binary_and_decimal_units() {
        for (text, bytes) in [("64MiB", 64 << 20), ("1GB", 1_000_000_000), ("512 B", 512), ("1.5KiB", 1536), ("0B", 0)]
        {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for text in ["", "64", "64mb", "64M", "-1MiB", "99999999TiB", "MiB"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn percentages_are_fractions() {
        assert_eq!(parse_percent("10%"), Ok(0.1));
        assert_eq!(parse_percent("150 %"), Ok(1.5));
        for text in ["10", "%", "-5%", "ten%", "10%%"] {
            assert!(parse_percent(text).is_err(), "{text}");
        }
    }
}
