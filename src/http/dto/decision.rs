//! Samples and decisions as JSON.

use std::time::Duration;

use serde::Serialize;

use crate::core::decision::{Decision, Reason};
use crate::core::model::Sample;

/// A sample. `value` is null unless `kind` is `value` or `stale`.
#[derive(Debug, Serialize)]
pub struct SampleJson<'a> {
    /// `value`, `missing`, `stale` or `error`.
    pub kind: &'static str,
    /// The figure.
    pub value: Option<f64>,
    /// How old the figure was when it was read.
    pub age_seconds: Option<f64>,
    /// How many tasks it speaks for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reported: Option<u32>,
    /// What went wrong, for an error.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<&'a str>,
}

/// A decision with the chain of reasons that led to it.
#[derive(Debug, Serialize)]
pub struct DecisionJson<'a> {
    /// The desired number before.
    pub desired: u32,
    /// What the law wanted, in tasks: + launches, − kills.
    pub raw: i64,
    /// What was left of it after the guards.
    pub adjustment: i64,
    /// How much of it only brings the number up to min.
    pub to_min: u32,
    /// Who changed it, in order.
    pub reasons: Vec<ReasonJson<'a>>,
}

/// One link of the chain.
#[derive(Debug, Serialize)]
pub struct ReasonJson<'a> {
    /// Who.
    pub guard: &'static str,
    /// In words.
    pub text: String,
    /// The adjustment before.
    pub from: i64,
    /// The adjustment after.
    pub to: i64,
    /// The figures.
    pub detail: &'a crate::core::decision::Detail,
}

impl<'a> From<&'a Sample> for SampleJson<'a> {
    fn from(sample: &'a Sample) -> Self {
        let (value, age, reported, message) = match sample {
            Sample::Value { value, age, reported } => (Some(*value), Some(*age), *reported, None),
            Sample::Stale { value, age } => (Some(*value), Some(*age), None, None),
            Sample::Missing => (None, None, None, None),
            Sample::Error { message } => (None, None, None, Some(&**message)),
        };
        Self { kind: sample.kind(), value, age_seconds: age.as_ref().map(Duration::as_secs_f64), reported, message }
    }
}

impl<'a> From<&'a Decision> for DecisionJson<'a> {
    fn from(decision: &'a Decision) -> Self {
        Self {
            desired: decision.desired,
            raw: decision.raw,
            adjustment: decision.adjustment,
            to_min: decision.to_min,
            reasons: decision.reasons.iter().map(Into::into).collect(),
        }
    }
}

impl<'a> From<&'a Reason> for ReasonJson<'a> {
    fn from(reason: &'a Reason) -> Self {
        Self {
            guard: reason.guard.as_str(),
            text: reason.to_string(),
            from: reason.from,
            to: reason.to,
            detail: &reason.detail,
        }
    }
}
