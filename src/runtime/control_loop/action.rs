//! What carries a decision out: the script's function, its task, or the default. Pure, so that `eval` asks the same.

use std::sync::Arc;

use crate::core::decision::{Decision, Detail, Guard, Reason};
use crate::core::intent::{By, Intent};
use crate::core::model::Effect;
use crate::core::policy::{Actuator, PolicySpec};
use crate::script::Hook;

/// What carries a decision out.
#[derive(Debug)]
pub(crate) enum Action {
    /// Call the warmer or cooler with `n`.
    Call { hook: Hook, n: u32 },
    /// Ask for this, or for nothing, on `by`'s account.
    Ask { intent: Option<Intent>, by: By, adjustment: i64, reason: Option<Reason> },
}

/// What carries out `adjustment` (not 0), which a decision came to.
pub(crate) fn action(spec: &PolicySpec, decision: &Decision, adjustment: i64) -> Action {
    let n = u32::try_from(adjustment.unsigned_abs()).unwrap_or(u32::MAX);
    let hook = hook_for(adjustment, spec.workload.effect);
    let (own, other) = match hook {
        Hook::Warmer => (&spec.hooks.warmer, &spec.hooks.cooler),
        _ => (&spec.hooks.cooler, &spec.hooks.warmer),
    };
    let launch = |n, template| Intent::Launch { n, template, count: true };
    match (own, other) {
        (Actuator::Function, _) => Action::Call { hook, n },
        (Actuator::Task(template), _) => {
            // A cooler that is a task is launched too: that many of it, as jobs.
            let by = if hook == Hook::Warmer { By::Warmer } else { By::Cooler };
            let intent = Some(launch(n, Some(Arc::clone(template))));
            Action::Ask { intent, by, adjustment: i64::from(n), reason: None }
        }
        (Actuator::Absent, Actuator::Absent) => {
            let intent = if 0 < adjustment { launch(n, None) } else { Intent::Kill { n } };
            Action::Ask { intent: Some(intent), by: By::Law, adjustment, reason: None }
        }
        (Actuator::Absent, _) => {
            // As in Relay: with only one of the two, the other direction does nothing and says so.
            let text = if hook == Hook::Warmer { "too cold, no warmer" } else { "too hot, no cooler" };
            let to_min = i64::from(decision.to_min);
            let detail = Detail::Text(text.into());
            let reason = Reason { guard: Guard::Actuator, from: decision.adjustment, to: to_min, detail };
            let intent = (decision.to_min != 0).then(|| launch(decision.to_min, None));
            Action::Ask { intent, by: By::Min, adjustment: to_min, reason: Some(reason) }
        }
    }
}

/// Which function a direction calls (rule 1 of the semantics).
pub(super) fn hook_for(adjustment: i64, effect: Effect) -> Hook {
    match (0 < adjustment, effect) {
        (true, Effect::Heats) | (false, Effect::Cools) => Hook::Warmer,
        (false, Effect::Heats) | (true, Effect::Cools) => Hook::Cooler,
    }
}
