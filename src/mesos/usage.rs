//! What executors use: shares of CPU from two readings of their agent's `/monitor/statistics`.
//!
//! Agents tell totals only. Pure: who asks agents, and how often, is the caller's business; an agent answers no more than
//! twice a second.
//!
//! - **Invariant:** a share comes from two readings of the same run. A total that has fallen is a new run (or, where agents
//!   add up the processes that live, one whose helpers have ended), and has no share until the next reading.

use std::collections::BTreeMap;

use super::wire::operator::Usage;

/// Readings closer to each other than this are one, in seconds: what lies between them says nothing yet.
const LEAST: f64 = 0.05;

/// What was read last of every executor, by agent.
#[derive(Clone, Debug, Default)]
pub struct Meter {
    agents: BTreeMap<String, BTreeMap<Executor, Reading>>,
}

/// The ids of a framework and of an executor of it: unique on an agent.
type Executor = (String, String);

#[derive(Clone, Copy, Debug)]
struct Reading {
    /// The agent's time, in seconds since 1970.
    at: f64,
    cpu_secs: f64,
    percent: Option<f64>,
}

impl Meter {
    /// Takes in all that an agent says, and gives for each executor, in its order, the share of one core since the reading
    /// before, in percent. A reading that was seen already gives the share that it gave then.
    pub fn take(&mut self, agent: &str, usages: &[Usage]) -> Vec<Option<f64>> {
        let before = self.agents.remove(agent).unwrap_or_default();
        let mut after = BTreeMap::new();
        let mut percents = Vec::with_capacity(usages.len());
        for usage in usages {
            let executor = (usage.framework_id.clone(), usage.executor_id.clone());
            let reading = reading(before.get(&executor), usage);
            percents.push(reading.and_then(|reading| reading.percent));
            after.extend(reading.map(|reading| (executor, reading)));
        }
        self.agents.insert(agent.to_owned(), after);
        percents
    }

    /// Forgets the agents that are gone.
    pub fn retain(&mut self, is_known: impl Fn(&str) -> bool) {
        self.agents.retain(|agent, _| is_known(agent));
    }
}

fn reading(before: Option<&Reading>, usage: &Usage) -> Option<Reading> {
    let (at, cpu_secs) = (usage.statistics.timestamp, usage.statistics.cpu_secs()?);
    Some(match before {
        Some(before) if (at - before.at).abs() < LEAST => *before,
        Some(before) if before.at < at && before.cpu_secs <= cpu_secs => {
            Reading { at, cpu_secs, percent: Some(100.0 * (cpu_secs - before.cpu_secs) / (at - before.at)) }
        }
        _ => Reading { at, cpu_secs, percent: None },
    })
}

#[cfg(test)]
mod tests {
    use super::super::wire::operator::Statistics;
    use super::*;

    fn usage(executor: &str, timestamp: f64, cpu: f64) -> Usage {
        Usage {
            executor_id: executor.to_owned(),
            framework_id: "f".to_owned(),
            statistics: Statistics {
                timestamp,
                cpus_user_time_secs: Some(cpu),
                cpus_system_time_secs: Some(1.0),
                ..Statistics::default()
            },
            ..Usage::default()
        }
    }

    #[test]
    fn shares_come_from_two_readings_of_one_run() {
        let mut meter = Meter::default();
        let mut take = |agent: &str, usages: &[Usage]| -> Vec<Option<i64>> {
            let percents = meter.take(agent, usages);
            percents.into_iter().map(|percent| percent.map(|percent| percent.round() as i64)).collect()
        };
        assert_eq!(take("a", &[usage("x", 100.0, 5.0), usage("y", 100.0, 0.0)]), [None, None]);
        assert_eq!(take("b", &[usage("x", 100.0, 5.0)]), [None], "another agent's executor is another one");
        assert_eq!(take("a", &[usage("y", 102.0, 3.0), usage("x", 102.0, 5.5)]), [Some(150), Some(25)]);
        assert_eq!(take("a", &[usage("x", 102.0, 5.5)]), [Some(25)], "the same reading once more");
        assert_eq!(
            take("a", &[usage("x", 104.0, 0.1), usage("y", 104.0, 4.0)]),
            [None, None],
            "one anew, one come back"
        );
        assert_eq!(take("a", &[usage("x", 105.0, 0.1)]), [Some(0)]);
        assert_eq!(take("a", &[usage("x", 90.0, 9.0)]), [None], "its clock was set back");
        let unmeasured = Usage { executor_id: "z".to_owned(), ..Usage::default() };
        assert_eq!(take("a", &[unmeasured]), [None]);
        meter.retain(|agent| agent == "b");
        assert_eq!(meter.agents.len(), 1);
    }
}
