//! Quantities and durations as Kubernetes, KEDA and Nomad write them, and as policies do.

use super::error::Problem;
use super::lua::number;
use super::tree::{Node, Section};

/// Longest duration that is taken: what is longer is a slip, or hostile.
const LONGEST: f64 = 366.0 * 86_400.0;

/// A quantity of Kubernetes (`500m`, `1k`, `100Mi`, `2e3`) in units of one.
pub(super) fn quantity(text: &str) -> Option<f64> {
    const SUFFIXES: &[(&str, f64)] = &[
        ("Ki", 1024.0),
        ("Mi", 1_048_576.0),
        ("Gi", 1_073_741_824.0),
        ("Ti", 1_099_511_627_776.0),
        ("Pi", 1_125_899_906_842_624.0),
        ("Ei", 1_152_921_504_606_846_976.0),
        ("n", 1e-9),
        ("u", 1e-6),
        ("m", 1e-3),
        ("k", 1e3),
        ("M", 1e6),
        ("G", 1e9),
        ("T", 1e12),
        ("P", 1e15),
        ("E", 1e18),
    ];
    let text = text.trim();
    let (digits, factor) = SUFFIXES
        .iter()
        .find_map(|(suffix, factor)| text.strip_suffix(suffix).map(|digits| (digits, *factor)))
        .unwrap_or((text, 1.0));
    let numeric = digits.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '.' | '-' | '+'));
    let value = digits.parse::<f64>().ok().filter(|_| numeric)? * factor;
    // Thousandths are not exact in binary; twelve digits are more than any quantity has.
    value.is_finite().then(|| format!("{value:.12e}").parse().unwrap_or(value))
}

/// A quantity above 0 under a key.
pub(super) fn positive(section: &mut Section, key: &str) -> Result<Option<f64>, Problem> {
    let path = section.at(key);
    let Some(node) = section.take(key) else { return Ok(None) };
    of_node(&node, &path).map(Some)
}

/// A quantity above 0.
pub(super) fn of_node(node: &Node, path: &str) -> Result<f64, Problem> {
    let value = node.scalar().and_then(|text| quantity(&text)).filter(|value| 0.0 < *value && *value < 1e18);
    value.ok_or_else(|| {
        let got = node.described();
        Problem::at(node.place, format!("{path}: expected a quantity above 0 such as 500m, 10 or 100Mi, got {got}"))
    })
}

/// A duration as Go writes them (`1m30s`), or a number of seconds; in seconds.
pub(super) fn duration(node: &Node, path: &str) -> Result<f64, Problem> {
    let seconds = match node.scalar() {
        Some(text) => text.trim().parse().ok().or_else(|| go_duration(text.trim())),
        None => None,
    };
    seconds.filter(|seconds| (0.0..=LONGEST).contains(seconds)).ok_or_else(|| {
        let got = node.described();
        Problem::at(node.place, format!("{path}: expected a duration such as 30s, 1m30s or 30 (seconds), got {got}"))
    })
}

fn go_duration(text: &str) -> Option<f64> {
    let mut seconds = 0.0;
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let amount: f64 = rest[..end].parse().ok()?;
        let unit_end = rest[end..].find(|c: char| c.is_ascii_digit()).map_or(rest.len(), |at| end + at);
        seconds += amount
            * match &rest[end..unit_end] {
                "ms" => 0.001,
                "s" => 1.0,
                "m" => 60.0,
                "h" => 3600.0,
                "d" => 86_400.0,
                _ => return None,
            };
        rest = &rest[unit_end..];
    }
    (!text.is_empty()).then_some(seconds)
}

/// Seconds as a policy writes durations.
pub(super) fn seconds(value: f64) -> String {
    let millis = (value * 1000.0).round();
    if millis % 1000.0 == 0.0 {
        let whole = millis / 1000.0;
        if whole > 0.0 && whole % 3600.0 == 0.0 {
            return format!("{}h", number(whole / 3600.0));
        }
        if whole > 300.0 && whole % 60.0 == 0.0 {
            return format!("{}m", number(whole / 60.0));
        }
        return format!("{}s", number(whole));
    }
    format!("{}ms", number(millis))
}

/// Bytes as a policy writes sizes.
pub(super) fn bytes(value: f64) -> String {
    const UNITS: &[(f64, &str)] = &[(1_073_741_824.0, "GiB"), (1_048_576.0, "MiB"), (1024.0, "KiB")];
    let value = value.round().max(1.0);
    let unit = UNITS.iter().find(|(factor, _)| value % factor == 0.0);
    unit.map_or_else(|| format!("{}B", number(value)), |(factor, name)| format!("{}{name}", number(value / factor)))
}
