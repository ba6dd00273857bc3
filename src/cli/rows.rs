//! One line for each policy: what `status` prints and what a running host shows live.
//!
//! Pure: rows come from the API's answer or from the engine's snapshot, and text goes out.

use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use setpoint::runtime::view::PolicySnapshot;

use super::dto::{Operator, Policy};
use super::term::{Paint, fit};
use super::units;

/// A policy in one line.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Row {
    name: String,
    tasks: String,
    in_flight: String,
    sample: String,
    setpoint: String,
    /// The last decision in words.
    decision: String,
    /// What is out of the ordinary: pause, override, error, end.
    notes: Vec<Note>,
}

/// Something out of the ordinary.
#[derive(Clone, Debug, PartialEq)]
enum Note {
    /// Somebody wants it so.
    Wanted(String),
    /// It should not be so.
    Wrong(String),
}

const HEAD: [&str; 6] = ["POLICY", "TASKS", "IN FLIGHT", "SAMPLE", "SETPOINT", "LAST DECISION"];
/// Names longer than this are cut, so that one of them does not push the figures of all off the screen.
const NAME_WIDTH: usize = 32;

impl Row {
    /// From the API's answer.
    pub(crate) fn of_policy(policy: &Policy, now: Timestamp) -> Self {
        let tasks = &policy.tasks;
        let mut notes = Vec::new();
        let wanted = [("paused", &policy.paused), ("override", &policy.bounds_override)];
        for (word, value) in wanted {
            if let Some(value) = value {
                notes.push(Note::Wanted(format!("{word}{}", limits(value, now))));
            }
        }
        if policy.shadow.as_ref().is_some_and(|shadow| shadow.script.refused.is_some() || shadow.script.error.is_some())
        {
            notes.push(Note::Wrong("its shadow fails".to_owned()));
        }
        if policy.stalled {
            notes.push(Note::Wrong("stalled".to_owned()));
        }
        if let Some(ended) = &policy.ended {
            notes.push(Note::Wrong(format!("ended: {}", ended.reason)));
        }
        if let Some(error) = &policy.script.refused {
            let first = error.report.lines().next().unwrap_or_default();
            notes.push(Note::Wrong(format!("the file differs from what runs: {first}")));
        } else if let Some(error) = &policy.script.error {
            notes.push(Note::Wrong(error.report.lines().next().unwrap_or_default().to_owned()));
        }
        Self {
            name: policy.name.clone(),
            tasks: match tasks.desired {
                Some(desired) => format!("{}/{desired}", tasks.running),
                None => tasks.running.to_string(),
            },
            in_flight: tasks.in_flight.to_string(),
            sample: policy.sample.as_ref().map_or_else(dash, |sample| match sample.value {
                Some(value) if sample.kind == "value" => units::number(value),
                _ => sample.kind.clone(),
            }),
            setpoint: policy.setpoint.map_or_else(dash, units::number),
            decision: policy.decision.as_ref().map_or_else(dash, |decision| {
                let reasons = decision.reasons.iter().map(|reason| reason.text.clone());
                say(decision.raw, decision.adjustment, reasons)
            }),
            notes,
        }
    }

    /// From a running engine.
    pub(crate) fn of_snapshot(policy: &PolicySnapshot, now: SystemTime) -> Self {
        let mut notes = Vec::new();
        if let Some(pause) = &policy.paused {
            notes.push(Note::Wanted(format!("paused{}", left(pause.until, now))));
        }
        if let Some(bounds) = &policy.bounds_override {
            let figures = figures(bounds.min, bounds.max);
            notes.push(Note::Wanted(format!("override{figures}{}", left(bounds.until, now))));
        }
        if policy.stalled {
            notes.push(Note::Wrong("stalled".to_owned()));
        }
        if let Some(ended) = &policy.ended {
            notes.push(Note::Wrong(format!("ended: {}", ended.reason)));
        }
        if let Some(error) = &policy.script.refused {
            notes.push(Note::Wrong(format!("the file differs from what runs: {}", error.headline())));
        } else if let Some(error) = &policy.script.error {
            notes.push(Note::Wrong(error.headline()));
        }
        Self {
            name: policy.name.to_string(),
            tasks: format!("{}/{}", policy.counts.running, policy.counts.desired()),
            in_flight: policy.counts.in_flight().to_string(),
            sample: policy
                .sample
                .as_ref()
                .map_or_else(dash, |sample| sample.fresh().map_or_else(|| sample.kind().to_owned(), units::number)),
            setpoint: policy.setpoint.map_or_else(dash, units::number),
            decision: policy.decision.as_ref().map_or_else(dash, |decision| {
                say(decision.raw, decision.adjustment, decision.reasons.iter().map(ToString::to_string))
            }),
            notes,
        }
    }

    fn cells(&self) -> [&str; 5] {
        [&self.name, &self.tasks, &self.in_flight, &self.sample, &self.setpoint]
    }
}

/// The rows as lines under a heading, each at most `width` characters wide.
pub(crate) fn lines(rows: &[Row], width: usize, paint: Paint) -> Vec<String> {
    let mut widths: [usize; 5] = std::array::from_fn(|i| HEAD[i].len());
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row.cells()) {
            *width = (*width).max(cell.chars().count());
        }
    }
    widths[0] = widths[0].min(NAME_WIDTH);
    let head = align([HEAD[0], HEAD[1], HEAD[2], HEAD[3], HEAD[4]], widths) + HEAD[5];
    let mut lines = vec![paint.dim(&fit(&head, width))];
    lines.extend(rows.iter().map(|row| line(row, widths, width, paint)));
    lines
}

fn line(row: &Row, widths: [usize; 5], width: usize, paint: Paint) -> String {
    let figures = align(row.cells(), widths);
    let mut left = width.saturating_sub(figures.chars().count());
    let mut text = fit(&figures, width);
    // Cutting comes before colouring, so that no escape sequence is ever cut in two.
    let mut push = |part: &str, colour: fn(Paint, &str) -> String| {
        let part = fit(part, left);
        left -= part.chars().count();
        text.push_str(&colour(paint, &part));
    };
    // What is wrong matters more than why nothing changed, and must not be what falls off the end.
    for note in row.notes.iter().rev() {
        match note {
            Note::Wrong(note) => push(note, Paint::red),
            Note::Wanted(note) => push(note, Paint::yellow),
        }
        push(" · ", Paint::dim);
    }
    push(&row.decision, |_, part| part.to_owned());
    text
}

fn align(cells: [&str; 5], widths: [usize; 5]) -> String {
    let mut text = format!("{:<width$}  ", fit(cells[0], widths[0]), width = widths[0]);
    for (cell, width) in cells.iter().zip(widths).skip(1) {
        text.push_str(&format!("{cell:>width$}  "));
    }
    text
}

/// A decision in words: what is done, and the reason that had the last word.
pub(crate) fn say(raw: i64, adjustment: i64, mut reasons: impl DoubleEndedIterator<Item = String>) -> String {
    let what = match adjustment {
        0 => "hold".to_owned(),
        n if n > 0 => format!("launch {n}"),
        n => format!("kill {}", n.unsigned_abs()),
    };
    match reasons.next_back() {
        Some(reason) => format!("{what}: {reason}"),
        None if raw == adjustment => what,
        None => format!("{what} (the law asked for {raw:+})"),
    }
}

/// `max=3`, `for 5m more` and the reason of a pause or an override.
pub(crate) fn limits(operator: &Operator, now: Timestamp) -> String {
    let mut text = figures(operator.min, operator.max);
    if let Some(until) = operator.until {
        text.push_str(&format!(" for {} more", units::short(between(now, until))));
    }
    if let Some(reason) = &operator.reason {
        text.push_str(&format!(" ({reason})"));
    }
    text
}

fn figures(min: Option<u32>, max: Option<u32>) -> String {
    let show = |word: &str, figure: Option<u32>| figure.map_or_else(String::new, |n| format!(" {word}={n}"));
    show("min", min) + &show("max", max)
}

fn left(until: Option<SystemTime>, now: SystemTime) -> String {
    until.map_or_else(String::new, |until| {
        format!(" for {} more", units::short(until.duration_since(now).unwrap_or_default()))
    })
}

/// Time from `from` to `to`; nothing when `to` has passed.
pub(crate) fn between(from: Timestamp, to: Timestamp) -> Duration {
    Duration::try_from(to.duration_since(from)).unwrap_or_default()
}

fn dash() -> String {
    "-".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(json: &str) -> Row {
        Row::of_policy(&serde_json::from_str(json).unwrap(), "2026-01-01T00:00:00Z".parse().unwrap())
    }

    #[test]
    fn a_table_keeps_its_columns_and_its_width() {
        let rows = [
            policy(
                r#"{"name":"queue","tasks":{"running":4,"desired":5,"in_flight":1},"sample":{"kind":"value","value":7.25},
                "setpoint":0,"decision":{"raw":3,"adjustment":1,"reasons":[{"guard":"max","text":"max is 5: +3 → +1"}]}}"#,
            ),
            policy(
                r#"{"name":"caches/eu-west","tasks":{"running":2},"sample":{"kind":"missing"},
                "paused":{"until":"2026-01-01T00:05:00Z","reason":"deploy"},"decision":{"raw":0,"adjustment":0},
                "script":{"error":{"report":"caches.lua:3: metric: boom\n3 | x"}}}"#,
            ),
            policy(r#"{"name":"new"}"#),
        ];
        let text = lines(&rows, 100, Paint(false)).join("\n");
        insta::assert_snapshot!(text, @r"
        POLICY          TASKS  IN FLIGHT   SAMPLE  SETPOINT  LAST DECISION
        queue             4/5          1     7.25         0  launch 1: max is 5: +3 → +1
        caches/eu-west      2          0  missing         -  caches.lua:3: metric: boom · paused for 5m mor…
        new                 0          0        -         -  -
        ");
        for width in [0, 1, 10, 40, 60, 79] {
            for line in lines(&rows, width, Paint(false)) {
                assert!(line.chars().count() <= width, "{width}: {line}");
            }
        }
    }

    #[test]
    fn decisions_are_said_in_words() {
        let reasons = ["tolerance", "cooldown for 12s more: -2 → +0"].map(str::to_owned);
        assert_eq!(say(-2, 0, reasons.into_iter()), "hold: cooldown for 12s more: -2 → +0");
        assert_eq!(say(3, 3, std::iter::empty()), "launch 3");
        assert_eq!(say(5, 3, std::iter::empty()), "launch 3 (the law asked for +5)");
        assert_eq!(say(0, 0, std::iter::empty()), "hold");
        assert_eq!(say(-1, -1, ["max is 3".to_owned()].into_iter()), "kill 1: max is 3");
    }
}
