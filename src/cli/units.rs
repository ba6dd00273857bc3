//! Durations with units, as the command line takes and shows them.

use std::time::Duration;

const UNITS: [(&str, u64); 5] = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

/// Reads `250ms`, `15s`, `1m30s`, `2h`, `1.5d`. A number without a unit is refused: nobody can tell what it means.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let expected = || format!("expected a duration such as `30s`, `1m30s` or `250ms`, got `{text}`");
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(expected());
    }
    let mut millis = 0.0_f64;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(expected)?;
        let number: f64 = rest[..digits].parse().map_err(|_| expected())?;
        rest = &rest[digits..];
        let letters = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
        let unit = UNITS.iter().find(|(unit, _)| *unit == &rest[..letters]).ok_or_else(expected)?;
        millis += number * unit.1 as f64;
        rest = &rest[letters..];
    }
    // A thousand years is more than anybody means, and far from what a Duration can hold.
    if millis > 3.2e13 {
        return Err(format!("expected a duration of less than 1000 years, got `{text}`"));
    }
    Ok(Duration::from_millis(millis.round() as u64))
}

/// Says a duration in its largest whole unit: `850ms`, `12s`, `3m`, `5h`, `2d`.
pub(crate) fn short(duration: Duration) -> String {
    let millis = duration.as_millis();
    let (unit, size) = UNITS.iter().rev().find(|(_, size)| millis >= u128::from(*size)).unwrap_or(&UNITS[0]);
    format!("{}{unit}", millis / u128::from(*size))
}

/// Says a duration to the millisecond, as [`duration`] and the API read it: `1h30m`, `250ms`.
pub(crate) fn exact(duration: Duration) -> String {
    let mut left = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let mut text = String::new();
    for (unit, size) in UNITS.iter().rev() {
        if left >= *size {
            text.push_str(&format!("{}{unit}", left / size));
            left %= size;
        }
    }
    if text.is_empty() { "0s".to_owned() } else { text }
}

/// A number for a table: at most three decimals, none when it is whole, an exponent when it is long.
pub(crate) fn number(value: f64) -> String {
    if !value.is_finite() || (value != 0.0 && !(1e-3..1e9).contains(&value.abs())) {
        return format!("{value:.3e}");
    }
    let text = format!("{value:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_need_a_unit() {
        let ok = [("250ms", 250), ("15s", 15_000), ("1m30s", 90_000), ("1.5h", 5_400_000), (" 2d ", 172_800_000)];
        for (text, millis) in ok {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "15", "s", "1x", "-1s", "1e9s", "1 s", "9999999999d", "1..5s", "1m30"] {
            assert!(duration(text).is_err(), "{text} was taken");
        }
    }

    #[test]
    fn figures_are_short() {
        let durations = [(0, "0ms"), (850, "850ms"), (12_400, "12s"), (3_600_000, "1h"), (200_000_000, "2d")];
        for (millis, text) in durations {
            assert_eq!(short(Duration::from_millis(millis)), text);
        }
        for text in ["1h30m", "250ms", "1d2h3m4s5ms", "0s"] {
            assert_eq!(exact(duration(text).unwrap()), text);
        }
        let numbers = [(7.0, "7"), (0.0, "0"), (0.12345, "0.123"), (-2.5, "-2.5"), (1e12, "1.000e12"), (100.0, "100")];
        for (value, text) in numbers {
            assert_eq!(number(value), text);
        }
    }
}
