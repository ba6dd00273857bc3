//! A metric that cannot be had, in each form in which that happens.

use std::time::Duration;

use crate::core::model::Sample;

use super::words;

/// A time without the metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outage {
    /// From when on, since the start.
    pub from: Duration,
    /// Until then.
    pub to: Duration,
    /// In what form.
    pub kind: OutageKind,
}

/// The form of an outage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutageKind {
    /// Nobody listens.
    Refused,
    /// No answer before the tick's deadline.
    Hang,
    /// The server fails.
    Status500,
    /// The answer is not what it should be.
    Garbage,
    /// The answer is NaN.
    NotANumber,
    /// The answer is nothing.
    Missing,
    /// The wall clock jumped, so the sample's age is unknown.
    TimeJump,
    /// The answer is an old one.
    Stale,
}

impl OutageKind {
    /// Every form.
    pub const ALL: [Self; 8] = [
        Self::Refused,
        Self::Hang,
        Self::Status500,
        Self::Garbage,
        Self::NotANumber,
        Self::Missing,
        Self::TimeJump,
        Self::Stale,
    ];

    /// Its word on the command line.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Hang => "hang",
            Self::Status500 => "500",
            Self::Garbage => "garbage",
            Self::NotANumber => "nan",
            Self::Missing => "missing",
            Self::TimeJump => "time-jump",
            Self::Stale => "stale",
        }
    }

    /// Whether `metric` gives a value all the same, which then must not be acted on.
    pub(super) const fn has_value(self) -> bool {
        matches!(self, Self::TimeJump | Self::Stale)
    }

    /// What the loop gets in place of `sample`.
    pub(super) fn spoil(self, sample: Sample, stale_after: Duration) -> Sample {
        let message = match self {
            Self::Refused => "connection refused",
            Self::Hang => "no answer before the tick's deadline",
            Self::Status500 => "the server answered 500",
            Self::Garbage => "metric returned: expected a number, got string \"<html>\"",
            Self::NotANumber => "metric returned: expected a finite number, got NaN",
            Self::Missing => return Sample::Missing,
            Self::TimeJump => {
                return match sample {
                    Sample::Value { value, age, .. } => Sample::Stale { value, age },
                    other => other,
                };
            }
            Self::Stale => {
                let old = stale_after + Duration::from_millis(1);
                return match sample {
                    // As it comes from a metric that says how old it is: the core has to notice.
                    Sample::Value { value, age, reported } => Sample::Value { value, age: age + old, reported },
                    other => other,
                };
            }
        };
        Sample::Error { message: words(message) }
    }
}
