//! Decisions in words: what was seen, what the law wanted, who changed it, what came of it.

use std::time::Duration;

use super::record::Entry;
use crate::core::compare::{Tally, intended};
use crate::core::decision::Decision;
use crate::core::model::Sample;

/// `sample 37 (0.4 s old), target 0, 31 tasks → raw +9; max is 40: +9 → +3 → launched 3`.
#[must_use]
pub fn sentence(entry: &Entry) -> String {
    let decision = entry.carried_out();
    let observation = &entry.observation;
    let outcome = match (&entry.policy.shadow, observation.dry_run) {
        (None, dry_run) => outcome_in_words(&decision, entry.outcome.acted, dry_run),
        (Some(_), true) => would_in_words(decision.desired, intended(&entry.decision)),
        (Some(_), false) => would_in_words(decision.desired, decision.adjustment),
    };
    say(
        &setting_in_words(&observation.sample, observation.setpoint, decision.desired),
        decision.raw,
        decision.reasons.iter().map(ToString::to_string),
        &outcome,
    )
}

/// What a policy that does not act would have done.
#[must_use]
pub fn would_in_words(desired: u32, adjustment: i64) -> String {
    match adjustment {
        0 => format!("would hold at {desired}"),
        1.. => format!("would launch {adjustment}"),
        _ => format!("would kill {}", adjustment.unsigned_abs()),
    }
}

/// By how much a shadow differed on one tick.
#[must_use]
pub fn difference_in_words(difference: i64) -> String {
    match difference {
        0 => "agreed".to_owned(),
        1.. => format!("{difference} more"),
        _ => format!("{} fewer", difference.unsigned_abs()),
    }
}

/// `agreed on 790 of 812 ticks (97.3 %), wanted more on 15 (31 tasks, 4 at most), fewer on 7 (7 tasks, 1 at most)`.
#[must_use]
pub fn tally_in_words(tally: &Tally) -> String {
    let share = 100.0 * tally.agreed as f64 / tally.ticks.max(1) as f64;
    let mut text = format!("agreed on {} of {} ticks ({share:.1} %)", tally.agreed, tally.ticks);
    let sides = [
        ("more", tally.more, tally.tasks_more, tally.most_more),
        ("fewer", tally.fewer, tally.tasks_fewer, tally.most_fewer),
    ];
    for (which, ticks, tasks, most) in sides {
        if 0 < ticks {
            text.push_str(&format!(", wanted {which} on {ticks} ({tasks} tasks in all, {most} at most)"));
        }
    }
    text
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
