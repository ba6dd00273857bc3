//! `ratio`: the algorithm of the Kubernetes HorizontalPodAutoscaler (autoscaling/v2), for a metric that is an average
//! over the tasks.
//!
//! ```text
//!   ratio   = sample / setpoint                 (setpoint / sample where tasks heat)
//!   desired = ⌈ready · ratio⌉                   nothing, while |1 − ratio| ≤ tolerance
//! ```
//!
//! Tasks whose figures are not in the sample are filled in so that the change is the smaller for it: those that are
//! ready and did not report count as exactly on target on the way down and as 0 on the way up, those that are not ready
//! yet as 0 on the way up. If what is left of the ratio then lies within the tolerance, or on the other side of 1, or
//! leads to a number on the other side of the present one, nothing is done. What the HPA does after this
//! (stabilization windows, rate policies, bounds) are guards here.
//!
//! Source: the description of the algorithm in the Kubernetes documentation ("Horizontal Pod Autoscaling", algorithm
//! details), with its rule for a metric of pods.
//!
//! What the HPA has no notion of: with no task at all, a sample beyond tolerance in the launching direction asks for one.
//! Tasks that are being killed while the sample still shows them leave their share to the others, which is
//! taken into account on the way down. A setpoint that is not above 0, or a sample below 0, has no ratio; then the number stays.

use super::{Input, Proposal, to_count};
use crate::core::decision::Detail;
use crate::core::model::Effect;

/// The proposed number; `tolerance` as a fraction.
pub(super) fn propose(tolerance: f64, input: &Input<'_>) -> Proposal {
    let Some(point) = input.point else { return Proposal::plain(input.desired) };
    if point.setpoint <= 0.0 || point.value < 0.0 {
        let text = format!("no ratio of a sample of {} to a setpoint of {}", point.value, point.setpoint);
        return Proposal { count: input.desired, note: Some(Detail::Text(text.into())) };
    }
    let ratio = match input.effect {
        Effect::Cools => point.value / point.setpoint,
        Effect::Heats => point.setpoint / point.value,
    };
    Proposal::plain(number(ratio, tolerance, input))
}

fn number(ratio: f64, tolerance: f64, input: &Input<'_>) -> u32 {
    let within = |ratio: f64| (1.0 - ratio).abs() <= tolerance;
    let desired = input.desired;
    if within(ratio) {
        return desired;
    }
    if desired == 0 {
        return u32::from(ratio > 1.0);
    }
    let unready = input.in_flight.launches.max(desired.saturating_sub(input.ready)).min(desired);
    let ready = desired - unready;
    let reporting = input.reported.map_or(ready, |reported| reported.min(ready));
    let missing = f64::from(ready - reporting);
    let reporting = f64::from(reporting);
    // In shares of a task that is on target.
    let (usage, tasks) = if ratio > 1.0 {
        (ratio * reporting, f64::from(desired))
    } else {
        let spoken_for = reporting + f64::from(input.in_flight.kills);
        (ratio * spoken_for + missing, reporting + missing)
    };
    if tasks == 0.0 {
        return desired;
    }
    let refilled = usage / tasks;
    if within(refilled) || (refilled > 1.0) != (ratio > 1.0) {
        return desired;
    }
    let proposed = to_count((usage - SLACK * usage).ceil(), desired);
    if (proposed > desired) == (ratio > 1.0) || proposed == desired { proposed } else { desired }
}

/// Keeps a product that is whole but for its rounding error from being rounded up by a task.
const SLACK: f64 = 1e-12;
