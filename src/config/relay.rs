//! The options of Relay and Relay.Mesos, and what does the work of each here.
//!
//! None of their variables is a setting of setpoint. Whoever starts it in the surroundings of the old program finds them
//! set and without effect, so that [`hints`] names what has come in their place. `docs/from-relay.md` has every one of
//! them, which a test holds.

use std::collections::BTreeMap;

use super::problem::{Problem, did_you_mean};

/// What the variables of both programs begin with.
const PREFIX: &str = "RELAY_";

/// An option of Relay or Relay.Mesos.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Former {
    /// Its flag; of a bundled metric, its name.
    pub flag: &'static str,
    /// The variables that stood for it, of all versions.
    pub variables: &'static [&'static str],
    /// What does its work here, as the end of a sentence.
    pub counterpart: &'static str,
}

const fn former(flag: &'static str, variables: &'static [&'static str], counterpart: &'static str) -> Former {
    Former { flag, variables, counterpart }
}

/// Every option, first those of Relay, then those that Relay.Mesos adds.
pub const OPTIONS: [Former; 27] = [
    former("--metric", &["RELAY_METRIC"], "the function `metric` of a policy"),
    former("--target", &["RELAY_TARGET"], "`target` of a policy, a number or a function"),
    former(
        "--warmer",
        &["RELAY_WARMER"],
        "`warmer` of a policy, or `workload.command` with `effect = \"heats\"` where it starts tasks",
    ),
    former(
        "--cooler",
        &["RELAY_COOLER"],
        "`cooler` of a policy, or `workload.command` with `effect = \"cools\"` where it starts tasks",
    ),
    former("--delay", &["RELAY_DELAY"], "`interval` of a policy, with a unit: `\"60s\"`"),
    former("--lookback", &["RELAY_LOOKBACK"], "`control.lookback` of a policy"),
    former("--ramp", &["RELAY_RAMP"], "`control.ramp` of a policy"),
    former("--sendstats", &["RELAY_SENDSTATS"], "the page, `/v1/events` and `/metrics`, which are always there"),
    former("--stop_condition", &["RELAY_STOP_CONDITION"], "the function `stop` of a policy"),
    former(
        "--mesos_master",
        &["RELAY_MESOS_MASTER"],
        "`[mesos] master` of setpoint.toml, or the variable SETPOINT_MESOS_MASTER",
    ),
    former(
        "--mesos_framework_name",
        &["RELAY_MESOS_FRAMEWORK_NAME", "RELAY_FRAMEWORK_NAME"],
        "`[mesos] name`, or the variable SETPOINT_MESOS_NAME",
    ),
    former(
        "--mesos_framework_principal",
        &["RELAY_MESOS_FRAMEWORK_PRINCIPAL", "RELAY_FRAMEWORK_PRINCIPAL"],
        "`[mesos] principal`, or the variable SETPOINT_MESOS_PRINCIPAL",
    ),
    former(
        "--mesos_framework_role",
        &["RELAY_MESOS_FRAMEWORK_ROLE", "RELAY_FRAMEWORK_ROLE"],
        "`[mesos] role` or the variable SETPOINT_MESOS_ROLE, and `workload.mesos.role` of a policy",
    ),
    former("--mesos_checkpoint", &["RELAY_MESOS_CHECKPOINT"], "`[mesos] checkpoint`, which is on unless it says no"),
    former(
        "--mesos_task_resources",
        &["RELAY_MESOS_TASK_RESOURCES", "RELAY_TASK_RESOURCES"],
        "`cpus`, `memory`, `disk` and `ports` of a policy's `workload`",
    ),
    former(
        "--mesos_environment",
        &["RELAY_MESOS_ENVIRONMENT", "RELAY_ENVIRONMENT"],
        "`workload.env` of a policy, a table",
    ),
    former("--uris", &["RELAY_MESOS_URIS", "RELAY_URIS"], "`workload.mesos.uris` of a policy, a list"),
    former("--max_failures", &["RELAY_MESOS_MAX_FAILURES", "RELAY_MAX_FAILURES"], "`max_failures` of a policy"),
    former("--docker_image", &["RELAY_MESOS_DOCKER_IMAGE", "RELAY_DOCKER_IMAGE"], "`workload.image` of a policy"),
    former(
        "--docker_network",
        &["RELAY_MESOS_DOCKER_NETWORK", "RELAY_DOCKER_NETWORK"],
        "`workload.network` of a policy, in lower case",
    ),
    former(
        "--docker_parameters",
        &["RELAY_MESOS_DOCKER_PARAMETERS", "RELAY_DOCKER_PARAMETERS"],
        "`workload.parameters` of a policy, a list in which an option may come twice",
    ),
    former(
        "--force_pull_image",
        &["RELAY_MESOS_FORCE_PULL_IMAGE", "RELAY_FORCE_PULL_IMAGE"],
        "`workload.pull = \"always\"` of a policy",
    ),
    former("--volumes", &["RELAY_MESOS_VOLUMES", "RELAY_VOLUMES"], "`workload.volumes` of a policy, a list"),
    former(
        "--init_timeout",
        &["RELAY_MESOS_INIT_TIMEOUT", "RELAY_INIT_TIMEOUT"],
        "`/readyz`, which is 503 until the framework is subscribed",
    ),
    former(
        "--mesos_attribute_matches_all",
        &["RELAY_MESOS_ATTRIBUTE_MATCHES_ALL"],
        "`workload.mesos.constraints` of a policy, with `equal`",
    ),
    former(
        "--failover_timeout",
        &["RELAY_MESOS_FAILOVER_TIMEOUT", "RELAY_FAILOVER_TIMEOUT"],
        "`[mesos] failover_timeout`, for which a state folder is needed",
    ),
    // Of the demo's metric, whose surroundings many an installation began as.
    former(
        "num_active_mesos_tasks",
        &["RELAY_MESOS_MASTER_STATE_FOR_DEMO"],
        "`ctx.running` for a policy's own tasks, or the module `setpoint.mesos` for those of others",
    ),
];

/// A line for each variable of Relay's that is set, and for each that begins like one.
#[must_use]
pub fn hints(vars: &BTreeMap<String, String>) -> Vec<Problem> {
    let set = vars.iter().filter(|(name, value)| name.starts_with(PREFIX) && !value.is_empty());
    set.map(|(name, _)| hint(name)).collect()
}

fn hint(name: &str) -> Problem {
    if let Some(Former { flag, counterpart, .. }) = OPTIONS.iter().find(|option| option.variables.contains(&name)) {
        return Problem::new(name, format!("is Relay's `{flag}` and is not read here; it is {counterpart}"));
    }
    let known = OPTIONS.iter().flat_map(|option| option.variables.iter().copied());
    Problem::new(name, "begins like a variable of Relay's, which it is not, and is ignored")
        .with_hint(did_you_mean(name, known))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_variable_has_one_hint_and_strangers_are_told() {
        let set = |pairs: &[(&str, &str)]| -> Vec<String> {
            let vars = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
            hints(&vars).iter().map(Problem::to_string).collect()
        };
        assert_eq!(
            set(&[("RELAY_DELAY", "60"), ("RELAY_RAMP", ""), ("RELAYED", "1"), ("RELAY_MESOS_MASTR", "m:5050")]),
            [
                "RELAY_DELAY: is Relay's `--delay` and is not read here; it is `interval` of a policy, with a unit: \
                 `\"60s\"`",
                "RELAY_MESOS_MASTR: begins like a variable of Relay's, which it is not, and is ignored\n\
                 hint: did you mean `RELAY_MESOS_MASTER`?",
            ]
        );
    }

    #[test]
    fn no_flag_and_no_variable_stands_for_two_options() {
        let flags: BTreeSet<_> = OPTIONS.iter().map(|option| option.flag).collect();
        let variables: Vec<_> = OPTIONS.iter().flat_map(|option| option.variables).collect();
        assert_eq!(flags.len(), OPTIONS.len());
        assert_eq!(variables.iter().collect::<BTreeSet<_>>().len(), variables.len());
        assert!(variables.iter().all(|name| name.starts_with(PREFIX)));
    }
}
