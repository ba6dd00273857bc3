//! `decide`: the script's own law. The host called it before, and its answer is part of the observation.

use std::sync::Arc;

use super::{Input, Proposal, to_count};
use crate::core::decision::{Detail, Scripted};

/// The script's answer as a number of tasks that exists, with a note wherever that is not what it said.
pub(super) fn propose(input: &Input<'_>) -> Proposal {
    let (given, field) = match input.scripted {
        None => return note(input.desired, "decide gave no answer".to_owned()),
        Some(Scripted::Desired(desired)) => (*desired, "desired"),
        Some(Scripted::Adjust(adjust)) => (f64::from(input.desired) + *adjust, "adjust"),
    };
    if given.is_nan() {
        return note(input.desired, format!("decide gave a NaN as {field}"));
    }
    let count = to_count(given.round_ties_even(), input.desired);
    if given < 0.0 {
        return note(count, format!("decide asked for {given} tasks; there cannot be fewer than 0"));
    }
    if given.fract() != 0.0 || given > f64::from(u32::MAX) {
        return note(count, format!("decide asked for {given} tasks; taken as {count}"));
    }
    Proposal::plain(count)
}

fn note(count: u32, text: String) -> Proposal {
    Proposal { count, note: Some(Detail::Text(Arc::from(text))) }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{deviations, input};
    use super::*;
    use crate::core::model::Effect;

    #[test]
    fn answers_become_counts_and_odd_ones_are_noted() {
        use Scripted::{Adjust, Desired};
        let cases = [
            (Some(Desired(7.0)), 7, false),
            (Some(Adjust(2.0)), 6, false),
            (Some(Adjust(-2.0)), 2, false),
            (Some(Adjust(-9.0)), 0, true),
            (Some(Desired(-1.0)), 0, true),
            (Some(Desired(2.5)), 2, true),
            (Some(Desired(f64::NAN)), 4, true),
            (Some(Adjust(f64::NAN)), 4, true),
            (Some(Desired(f64::INFINITY)), u32::MAX, true),
            (Some(Adjust(f64::NEG_INFINITY)), 0, true),
            (Some(Adjust(1e308)), u32::MAX, true),
            (None, 4, true),
        ];
        let history = deviations(&[]);
        for (scripted, count, noted) in cases {
            let proposal = propose(&Input { scripted: scripted.as_ref(), ..input(&history, Effect::Cools, 4) });
            assert_eq!(proposal.count, count, "{scripted:?}");
            assert_eq!(proposal.note.is_some(), noted, "{scripted:?}");
        }
    }
}
