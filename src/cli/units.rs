//! Durations and numbers as the command line shows them; reading them is the configuration's, like everywhere.

use std::time::Duration;

pub(crate) use setpoint::config::units::parse_duration;

const UNITS: [(&str, u64); 5] = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

/// Says a duration in its largest whole unit: `850ms`, `12s`, `3m`, `5h`, `2d`.
pub(crate) fn short(duration: Duration) -> String {
    let millis = duration.as_millis();
    let (unit, size) = UNITS.iter().rev().find(|(_, size)| millis >= u128::from(*size)).unwrap_or(&UNITS[0]);
    format!("{}{unit}", millis / u128::from(*size))
}

/// Says a duration to the millisecond, as [`parse_duration`] and the API read it: `1h30m`, `250ms`.
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
    fn figures_are_short() {
        let durations = [(0, "0ms"), (850, "850ms"), (12_400, "12s"), (3_600_000, "1h"), (200_000_000, "2d")];
        for (millis, text) in durations {
            assert_eq!(short(Duration::from_millis(millis)), text);
        }
        for text in ["1h30m", "250ms", "1d2h3m4s5ms", "0s"] {
            assert_eq!(exact(parse_duration(text).unwrap()), text);
        }
        let numbers = [(7.0, "7"), (0.0, "0"), (0.12345, "0.123"), (-2.5, "-2.5"), (1e12, "1.000e12"), (100.0, "100")];
        for (value, text) in numbers {
            assert_eq!(number(value), text);
        }
    }
}
