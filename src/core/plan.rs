//! From intents to what is carried out: the last pure step before anything is recorded.
//!
//! A warmer or cooler may ask for something else than it was told (rule 9): launches are cut to max and kills to
//! min, an intent against the decision's direction is refused, and each cut is a reason. What is left is the
//! [`Plan`]; the host records it and then acts.

use std::sync::Arc;

use super::decision::{Bounds, Detail, Guard, Reason};
use super::intent::{By, Intent};
use super::model::{Counts, TaskId};
use super::policy::TaskTemplate;

/// What is to be recorded and carried out.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// Tasks to start, in order.
    pub launches: Vec<PlannedLaunch>,
    /// How many tasks to end that nobody named.
    pub kills: u32,
    /// Tasks to end by name.
    pub named: Vec<TaskId>,
    /// Every cut and refusal.
    pub reasons: Vec<Reason>,
    /// Tasks that the decision asked for and that are not in the plan.
    pub refused: u32,
}

/// Some tasks of one kind to start.
#[derive(Clone, Debug, PartialEq)]
pub struct PlannedLaunch {
    /// How many.
    pub n: u32,
    /// What; none is the workload's own template.
    pub template: Option<Arc<TaskTemplate>>,
    /// On whose account.
    pub by: By,
}

/// The situation that intents are judged in.
#[derive(Clone, Copy, Debug)]
pub struct Situation {
    /// The decision's adjustment: + launches, − kills.
    pub adjustment: i64,
    /// The policy's tasks.
    pub counts: Counts,
    /// min and max in force.
    pub bounds: Bounds,
    /// Helpers that exist.
    pub helpers: u32,
    /// Helpers that may exist.
    pub max_helpers: u32,
    /// Whether failing tasks hold back launches.
    pub backed_off: bool,
    /// Tasks that a kill by name may name.
    pub by: By,
}

/// Judges intents.
#[must_use]
pub fn plan(situation: &Situation, intents: &[Intent], known: impl Fn(&TaskId) -> bool) -> Plan {
    let mut plan = Plan::default();
    let wanted = u32::try_from(situation.adjustment.unsigned_abs()).unwrap_or(u32::MAX);
    let asked = asked(situation.adjustment, intents).min(wanted);
    plan.cut(Guard::Intent, wanted, asked, situation.adjustment.signum(), || {
        format!("the script asked for {asked} of {wanted}")
    });
    let mut room = situation.bounds.max.saturating_sub(situation.counts.occupied());
    let mut spare = situation.counts.desired().saturating_sub(situation.bounds.min);
    let mut helpers = situation.max_helpers.saturating_sub(situation.helpers);
    for intent in intents {
        match intent {
            Intent::Launch { n, template, count: false } => {
                let granted = (*n).min(helpers);
                helpers -= granted;
                plan.cut(Guard::Intent, *n, granted, 1, || {
                    format!("at most {} helpers (`max_helpers`)", situation.max_helpers)
                });
                plan.launch(granted, template.clone(), By::Helper);
            }
            Intent::Launch { n, template, count: true } => {
                if situation.adjustment < 0 {
                    plan.cut(Guard::Intent, *n, 0, 1, || "a launch against the decision's direction".to_owned());
                    continue;
                }
                let allowed = if situation.backed_off { 0 } else { *n };
                plan.cut(Guard::Backoff, *n, allowed, 1, || "failing tasks are backed off".to_owned());
                let granted = allowed.min(room);
                room -= granted;
                plan.cut(Guard::Intent, allowed, granted, 1, || {
                    format!("launches cut to max {}", situation.bounds.max)
                });
                plan.launch(granted, template.clone(), situation.by);
            }
            Intent::Kill { n } => {
                let granted = if situation.adjustment > 0 { 0 } else { (*n).min(spare) };
                spare -= granted;
                plan.kills += granted;
                plan.cut_kills(situation, *n, granted);
            }
            Intent::KillTasks { tasks } => {
                let mut granted = 0;
                for id in tasks {
                    let new = known(id) && !plan.named.contains(id);
                    if new && 0 < spare && situation.adjustment <= 0 {
                        spare -= 1;
                        granted += 1;
                        plan.named.push(id.clone());
                    }
                }
                plan.cut_kills(situation, tasks.len() as u32, granted);
            }
        }
    }
    let done = if situation.adjustment < 0 { plan.killed() } else { plan.launched() };
    plan.refused = wanted.saturating_sub(done);
    plan
}

/// How many tasks the intents ask for in the direction of the adjustment.
fn asked(adjustment: i64, intents: &[Intent]) -> u32 {
    let each = intents.iter().map(|intent| match intent {
        Intent::Launch { n, count: true, .. } if 0 < adjustment => *n,
        Intent::Kill { n } if adjustment < 0 => *n,
        Intent::KillTasks { tasks } if adjustment < 0 => u32::try_from(tasks.len()).unwrap_or(u32::MAX),
        _ => 0,
    });
    each.fold(0, u32::saturating_add)
}

impl Plan {
    /// How many tasks it launches that count.
    #[must_use]
    pub fn launched(&self) -> u32 {
        self.launches.iter().filter(|launch| launch.by != By::Helper).map(|launch| launch.n).sum()
    }

    /// How many tasks it ends.
    #[must_use]
    pub fn killed(&self) -> u32 {
        self.kills + self.named.len() as u32
    }

    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.launches.is_empty() && self.killed() == 0
    }

    fn launch(&mut self, n: u32, template: Option<Arc<TaskTemplate>>, by: By) {
        if 0 < n {
            self.launches.push(PlannedLaunch { n, template, by });
        }
    }

    fn cut(&mut self, guard: Guard, from: u32, to: u32, sign: i64, text: impl FnOnce() -> String) {
        if from != to {
            self.reasons.push(Reason {
                guard,
                from: sign * i64::from(from),
                to: sign * i64::from(to),
                detail: Detail::Text(text().into()),
            });
        }
    }

    fn cut_kills(&mut self, situation: &Situation, from: u32, to: u32) {
        self.cut(Guard::Intent, from, to, -1, || {
            if 0 < situation.adjustment {
                "a kill against the decision's direction".to_owned()
            } else {
                format!("kills cut to min {} and to tasks that exist", situation.bounds.min)
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn situation(adjustment: i64, running: u32) -> Situation {
        Situation {
            adjustment,
            counts: Counts { running, ready: running, ..Counts::default() },
            bounds: Bounds { min: 1, max: 5 },
            helpers: 0,
            max_helpers: 2,
            backed_off: false,
            by: By::Warmer,
        }
    }

    fn launch(n: u32) -> Intent {
        Intent::Launch { n, template: None, count: true }
    }

    #[test]
    fn launches_are_cut_to_max_and_the_rest_is_refused() {
        let plan = plan(&situation(4, 3), &[launch(4)], |_| true);
        assert_eq!((plan.launched(), plan.refused), (2, 2));
        assert_eq!(plan.reasons.len(), 1);
        assert_eq!((plan.reasons[0].from, plan.reasons[0].to), (4, 2));
    }

    #[test]
    fn kills_are_cut_to_min_and_named_ones_must_exist() {
        let ids = |names: &[&str]| Intent::KillTasks { tasks: names.iter().map(|name| TaskId::from(*name)).collect() };
        let plan = plan(&situation(-4, 3), &[ids(&["a", "x", "a"]), Intent::Kill { n: 3 }], |id| id.as_str() != "x");
        assert_eq!((plan.named.len(), plan.kills), (1, 1), "two of three may go");
        assert_eq!(plan.refused, 2);
    }

    #[test]
    fn what_a_script_does_not_ask_for_is_told() {
        for (adjustment, intents, asked) in
            [(3, vec![], 0), (3, vec![launch(1)], 1), (-2, vec![Intent::Kill { n: 1 }], -1), (-2, vec![launch(1)], 0)]
        {
            let plan = plan(&situation(adjustment, 4), &intents, |_| true);
            assert_eq!((plan.reasons[0].from, plan.reasons[0].to), (adjustment, asked), "{adjustment} {intents:?}");
        }
        assert_eq!(plan(&situation(1, 4), &[launch(1)], |_| true).reasons, []);
    }

    #[test]
    fn an_intent_against_the_direction_is_refused_but_helpers_are_not() {
        let helper = Intent::Launch { n: 3, template: None, count: false };
        let plan = plan(&situation(-1, 3), &[launch(1), helper, Intent::Kill { n: 1 }], |_| true);
        assert_eq!((plan.launched(), plan.killed()), (0, 1));
        assert_eq!(plan.launches, [PlannedLaunch { n: 2, template: None, by: By::Helper }]);
        assert_eq!(plan.reasons.len(), 2);
    }

    #[test]
    fn nothing_is_launched_while_backed_off() {
        let plan = plan(&Situation { backed_off: true, ..situation(2, 1) }, &[launch(2)], |_| true);
        assert_eq!((plan.launched(), plan.refused), (0, 2));
        assert_eq!(plan.reasons[0].guard, Guard::Backoff);
    }
}
