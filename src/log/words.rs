//! Decisions in words: what was seen, what the law wanted, who changed it, what came of it.

use std::time::Duration;

use super::record::Entry;
use crate::core::decision::Decision;
use crate::core::model::Sample;

/// `sample 37 (0.4 s old), target 0, 31 tasks → raw +9; max is 40: +9 → +3 → launched 3`.
#[must_use]
pub fn sentence(entry: &Entry) -> String {
    let decision = entry.carried_out();
    let observation = &entry.observation;
    say(
        &setting_in_words(&observation.sample, observation.setpoint, decision.desired),
        decision.raw,
        decision.reasons.iter().map(ToString::to_string),
        &outcome_in_words(&decision, entry.outcome.acted, observation.dry_run),
    )
}

/// Puts the parts of a sentence together.
#[must_use]
pub fn say(setting: &str, raw: i64, reasons: impl Iterator<Item = String>, outcome: &str) -> String {
    let mut text = format!("{setting} → raw {raw:+}");
    for reason in reasons {
        text.push_str("; ");
        text.push_str(&reason);
    }
    text.push_str(" → ");
    text.push_str(outcome);
    text
}

/// What a decision was made on: the sample, the target, the number of tasks.
#[must_use]
pub fn setting_in_words(sample: &Sample, setpoint: Option<f64>, desired: u32) -> String {
    let mut text = match sample {
        Sample::Value { value, age, .. } => format!("sample {}{}", figure(*value), old(*age)),
        Sample::Stale { value, age } => format!("sample {} is stale{}", figure(*value), old(*age)),
        Sample::Missing => "no sample".to_owned(),
        Sample::Error { message } => format!("no sample ({message})"),
    };
    if let Some(setpoint) = setpoint {
        text.push_str(&format!(", target {}", figure(setpoint)));
    }
    let plural = if desired == 1 { "" } else { "s" };
    text.push_str(&format!(", {desired} task{plural}"));
    text
}

/// What came of it.
#[must_use]
pub fn outcome_in_words(decision: &Decision, acted: i64, dry_run: bool) -> String {
    let (n, verb) = match acted {
        0 if dry_run => return "nothing done (dry run)".to_owned(),
        0 if decision.raw == 0 || decision.adjustment == 0 => return format!("held at {}", decision.desired),
        0 => return "nothing done".to_owned(),
        n if 0 < n => (n.unsigned_abs(), "launched"),
        n => (n.unsigned_abs(), "killed"),
    };
    format!("{verb} {n}")
}

fn old(age: Duration) -> String {
    let tenths = (age.as_secs_f64() * 10.0).round();
    if tenths < 1.0 { String::new() } else { format!(" ({} s old)", figure(tenths / 10.0)) }
}

/// At most three decimals, none when it is whole; an exponent when it is long.
fn figure(value: f64) -> String {
    if !value.is_finite() || (value != 0.0 && !(1e-3..1e9).contains(&value.abs())) {
        return format!("{value:.3e}");
    }
    let text = format!("{value:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}
