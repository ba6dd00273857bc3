//! What editors know about policies: LuaCATS types, made from the tables that scripts are checked against.
//!
//! The key tables here are the only place that lists what a policy, its `ctx` and its tasks consist of; the
//! script host takes its strict keys, and their did-you-mean, from them. [`files`] renders everything into
//! `scripts/types/`, where a test holds the committed files equal to it.

use super::{Access, FunctionDoc, ModuleDoc, modules};

/// One key of a table that scripts write or read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyDoc {
    /// The key.
    pub name: &'static str,
    /// Its LuaCATS type; one that ends in `?` may be absent.
    pub lua_type: &'static str,
    /// What it is, with unit and default.
    pub doc: &'static str,
}

const fn key(name: &'static str, lua_type: &'static str, doc: &'static str) -> KeyDoc {
    KeyDoc { name, lua_type, doc }
}

/// The names of a table's keys, for checking.
pub fn names(keys: &'static [KeyDoc]) -> impl Iterator<Item = &'static str> + Clone {
    keys.iter().map(|key| key.name)
}

/// The keys of the policy table.
pub const POLICY_KEYS: &[KeyDoc] = &[
    key(
        "interval",
        "(string|setpoint.Interval)?",
        "Time between two ticks: a duration of at least 50 ms, or a growing one. `\"15s\"` unless given.",
    ),
    key("workload", "setpoint.WorkloadTable", "The tasks that the policy owns."),
    key("control", "setpoint.Control?", "Law and guards."),
    key(
        "metric",
        "(fun(ctx: setpoint.Ctx): number?, (number|setpoint.Report)?)?",
        "The sample. nil is missing; a second result is its age in seconds, or `{ age, reported }`. Not needed by \
         the laws `count` and \
         `decide`.",
    ),
    key("target", "(number|fun(ctx: setpoint.Ctx): number)?", "The setpoint."),
    key(
        "warmer",
        "(string|setpoint.Task.Template|fun(n: integer, ctx: setpoint.Ctx): integer?)?",
        "Raises the metric: a function, or a task of which n are launched.",
    ),
    key(
        "cooler",
        "(string|setpoint.Task.Template|fun(n: integer, ctx: setpoint.Ctx): integer?)?",
        "Lowers the metric: a function, or a task of which n are launched.",
    ),
    key(
        "decide",
        "(fun(ctx: setpoint.Ctx): setpoint.Decision)?",
        "A law of one's own: `{ desired = n }` or `{ adjust = n }`.",
    ),
    key(
        "victims",
        "(fun(tasks: setpoint.Task[], n: integer, ctx: setpoint.Ctx): (setpoint.Task|string)[])?",
        "Which tasks go first: tasks or their ids, in order.",
    ),
    key(
        "drain",
        "(fun(task: setpoint.Task, ctx: setpoint.Ctx): boolean?)?",
        "Called before a task is killed: true or nil lets it go, false asks again at the next tick, until the grace \
         is over.",
    ),
    key("stop", "(fun(ctx: setpoint.Ctx): integer?)?", "An exit code ends the policy."),
    key(
        "migrate",
        "(fun(old: table): table)?",
        "Turns the `ctx.state` of the version before into this one's, at a reload.",
    ),
    key(
        "max_failures",
        "integer?",
        "Failures net of successes after which the policy ends with code 1; off unless given.",
    ),
    key("backoff", "setpoint.Backoff?", "Delay before a failed task's successor, doubling: 1 s to 5 min unless given."),
    key("max_helpers", "integer?", "Most helper tasks (`count = false`) at once; 0 unless given."),
    key(
        "shadow",
        "string?",
        "A second policy file, in this folder or below it, that is evaluated on each tick beside this one and never acts: what it would have done is recorded and compared.",
    ),
    key(
        "params",
        "table<string, boolean|number|string>?",
        "Parameters with their defaults, as `setpoint.params` declares them.",
    ),
    key("simulate", "setpoint.Simulate?", "What replaces `metric` in `setpoint simulate`."),
];

/// The keys of `workload` in the policy table.
pub const WORKLOAD_KEYS: &[KeyDoc] = &[
    key(
        "backend",
        "(\"local\"|\"docker\"|\"swarm\"|\"mesos\"|\"none\"|string)?",
        "Where tasks run; `\"local\"` unless given.",
    ),
    key(
        "kind",
        "(\"service\"|\"jobs\")?",
        "Whether an ended task is replaced (`\"service\"`, unless given) or simply gone.",
    ),
    key("effect", "(\"heats\"|\"cools\")?", "What more tasks do to the metric; `\"cools\"` unless given."),
    key("min", "integer?", "Fewest tasks; 0 unless given."),
    key("max", "integer?", "Most tasks; required unless the law is `count`."),
    key("command", "(string|string[])?", "A list is run as it is; a string goes to `sh -c`, byte for byte."),
    key("image", "string?", "Container image."),
    key(
        "env",
        "table<string, string|number|boolean>?",
        "Environment beyond SETPOINT_TASK_ID, SETPOINT_POLICY and PORT_<NAME>.",
    ),
    key("cpus", "number?", "Cores."),
    key("memory", "string?", "Memory, e.g. `\"32MiB\"`."),
    key("disk", "string?", "Disk, e.g. `\"1GiB\"`."),
    key(
        "ports",
        "(string[]|table<string, integer|setpoint.Port>)?",
        "`{ http = 8080 }` or `{ \"http\" }`: a name and the port inside; a table says which ports outside.",
    ),
    key("labels", "table<string, string>?", "Labels."),
    key("cwd", "string?", "Working folder; relative ones start at the policy's folder."),
    key(
        "output",
        "(\"auto\"|\"null\"|\"inherit\")?",
        "Where a local task's output goes; `\"auto\"` is a file under the state folder.",
    ),
    key("executor", "string?", "Which executor runs it, on Mesos."),
    key("uuid_env", "string?", "A variable of the task's environment that gets its `uuid`."),
    key("entrypoint", "(string|string[])?", "In place of the image's entrypoint."),
    key("pids", "integer?", "Most processes and threads of a container."),
    key(
        "network",
        "string?",
        "A network's name, or `\"bridge\"`, `\"host\"`, `\"none\"`; without Docker on Mesos, a CNI network's.",
    ),
    key(
        "volumes",
        "string[]?",
        "`\"source:/target\"` or `\"source:/target:ro\"`: a path (relative ones start at the policy's folder) or a \
         volume's name. On Mesos paths are absolute, and only Docker's containers have named volumes.",
    ),
    key("tmpfs", "string[]?", "Folders in memory: `\"/path\"` or `\"/path:size=64m\"`."),
    key(
        "health",
        "(false|string|string[]|setpoint.Health)?",
        "How its health is found out: a command that is run where it runs, or a table; false is none, also where the image \
         has one.",
    ),
    key(
        "pull",
        "(\"missing\"|\"always\"|\"never\")?",
        "When the image is fetched; `\"missing\"` unless given. On Mesos one of the first two.",
    ),
    key(
        "user",
        "string?",
        "User, or `user:group`, that the container, or a local or Mesos command, runs as; only root may choose another than its own. \
         A name alone on Mesos, but for Docker's containers.",
    ),
    key("privileged", "boolean?", "Whether the container has every right on its machine."),
    key("init", "boolean?", "Whether a small init takes signals and reaps processes in the container."),
    key(
        "parameters",
        "string[]?",
        "`\"option=value\"`: further options as `docker run` has them, for Mesos's Docker containerizer.",
    ),
    key(
        "service",
        "string?",
        "On backend \"swarm\": a service that is there already, whose number alone is the policy's.",
    ),
    key(
        "engine",
        "(string|string[])?",
        "The engines that it may run on, by the host's names; all of them unless given.",
    ),
    key("mesos", "setpoint.Mesos?", "What only a Mesos cluster needs to know."),
    key(
        "ready",
        "(\"running\"|\"healthy\"|string)?",
        "When a running task is ready: at once, after a duration, or when it is healthy.",
    ),
    key("grace", "string?", "Time between TERM and KILL; 10 s unless given."),
    key("on_end", "(\"stop\"|\"keep\")?", "What happens to tasks when `stop` or `max_failures` ends the policy."),
    key("on_gone", "(\"stop\"|\"keep\")?", "What happens to them when a fleet's row is gone."),
    key(
        "replace",
        "(\"keep\"|\"rolling\")?",
        "What happens to running tasks when the command or image changes; `\"keep\"` unless given.",
    ),
    key(
        "count",
        "(fun(ctx: setpoint.Ctx): integer)?",
        "The running number of a workload that others run (`backend = \"none\"`).",
    ),
];

/// The keys of `control` in the policy table.
pub const CONTROL_KEYS: &[KeyDoc] = &[
    key(
        "law",
        "(\"adaptive\"|\"proportional\"|\"pid\"|\"ratio\"|\"relay\"|\"step\"|\"count\"|\"decide\")?",
        "`\"adaptive\"` unless given; `\"decide\"` where there is that function.",
    ),
    key(
        "per_task",
        "number?",
        "For `adaptive`, `proportional` and `pid`: metric units that one task is worth; 1 unless given. `adaptive` starts from it.",
    ),
    key("kp", "number?", "For `pid`: tasks for each unit of deviation; 1 / `per_task` unless given."),
    key("ki", "number?", "For `pid`: tasks for each unit of deviation and second; 0 unless given."),
    key("kd", "number?", "For `pid`: tasks for each unit a second at which the sample moves; 0 unless given."),
    key("filter", "string?", "For `pid`: time constant of the filter on the derivative; kd / kp / 8 unless given."),
    key(
        "season",
        "string?",
        "For `adaptive`: the period of a season in the load, such as `\"1d\"`; none unless given.",
    ),
    key("compat", "boolean?", "For `relay`: reproduce the original's undefined cases."),
    key("steps", "setpoint.Step[]?", "For `step`: the thresholds."),
    key("hysteresis", "number?", "For `step`: how far back the sample must be before a threshold fires again."),
    key("n", "integer?", "For `count`: how many."),
    key("wait", "string?", "For `count`: refill ended tasks only at multiples of this."),
    key(
        "tolerance",
        "(number|string)?",
        "Deviations up to this are left alone; `\"10%\"` is relative to the setpoint. 0 unless given. For `ratio` a number is a fraction too, and 0.1 unless given.",
    ),
    key("cooldown", "(string|setpoint.UpDown)?", "Least time between actions; none unless given."),
    key(
        "stabilization",
        "(string|setpoint.UpDown)?",
        "Windows over which the most careful proposal counts; none unless given, 300 s down for `ratio`.",
    ),
    key(
        "step",
        "(integer|string|setpoint.StepLimit|setpoint.StepLimits)?",
        "Most change at once, or in a period: tasks, or `\"50%\"`; no limit unless given, the HPA's for `ratio`.",
    ),
    key(
        "confirm",
        "(integer|setpoint.Confirm)?",
        "How often a direction must be seen before it is acted on; a number is in a row.",
    ),
    key("ramp", "integer?", "Over how many first samples the first adjustment is spread; 1 unless given."),
    key("lag", "string?", "Time from ready, or gone, to the full effect in the sample; 0 unless given."),
    key("lookback", "integer?", "Samples that the history keeps; 64 unless given, 1000 for `relay`."),
    key("flap", "setpoint.Flap?", "Most starts and stops in a window."),
    key("stale_after", "string?", "Older samples are stale; three intervals unless given."),
    key(
        "on_missing",
        "(\"hold\"|setpoint.OnMissing)?",
        "What to do without a fresh sample; `\"hold\"` unless given. Never scales in.",
    ),
];

/// The fields of `ctx`. All of them can only be read, but for the content of `state`.
pub const CTX_KEYS: &[KeyDoc] = &[
    key("now", "number", "Wall-clock time of the tick, in seconds since 1970."),
    key("tick", "integer", "Number of the tick, from 1."),
    key("params", "table<string, boolean|number|string>", "The policy's parameters."),
    key("policy", "string", "The policy's name."),
    key("sample", "number?", "The last sample when it is fresh, else nil."),
    key(
        "sample_kind",
        "(\"value\"|\"missing\"|\"stale\"|\"error\")?",
        "What the last sample was; nil before the first.",
    ),
    key("setpoint", "number?", "The last setpoint."),
    key("deviation", "number?", "setpoint − sample, when there are both."),
    key("history", "setpoint.Point[]", "Fresh samples, oldest first."),
    key("tasks", "setpoint.Task[]", "The policy's tasks, oldest first."),
    key("running", "integer", "How many run."),
    key("in_flight", "integer", "How many are wanted and not ready."),
    key("desired", "integer", "How many are wanted."),
    key("min", "integer", "The lower bound in force."),
    key("max", "integer", "The upper bound in force."),
    key("trace", "number?", "The trace's value, in `setpoint simulate`; nil elsewhere."),
    key("plant", "setpoint.Plant?", "What the plant of `setpoint simulate` shows; nil elsewhere."),
    key(
        "state",
        "table",
        "The policy's own table; survives restarts and reloads. Plain values only, at most 64 KiB as JSON.",
    ),
    key("workload", "setpoint.Workload", "What launches and kills."),
];

/// The fields of a task in `ctx.tasks`.
pub const TASK_KEYS: &[KeyDoc] = &[
    key("id", "string", "Its name, here and on the backend."),
    key("state", "\"asked\"|\"staging\"|\"running\"|\"killing\"|\"gone\"", "Where in its life it is."),
    key("ready", "boolean", "Whether it is ready."),
    key("helper", "boolean", "Whether it is a helper (`count = false`)."),
    key("by", "\"law\"|\"min\"|\"replacement\"|\"warmer\"|\"cooler\"|\"helper\"", "Who asked for it."),
    key("host", "string?", "Host name or address."),
    key("ports", "table<string, integer>", "Port name to number outside."),
    key("pid", "integer?", "Process id, on the local backend."),
    key("container", "string?", "Container id, where there is one."),
    key("uuid", "string?", "An identity for systems that only take UUIDs; `workload.uuid_env` tells it to the task."),
    key("started", "number", "When it was asked for, in seconds since 1970."),
    key("age", "number", "Seconds since then."),
    key("cpu", "number?", "Share of one core in percent, once sampled."),
    key("memory", "integer?", "Bytes in use, once sampled: resident, or a container's without idle page cache."),
    key("memory_limit", "integer?", "The most bytes that it may use."),
    key("network_received", "integer?", "Bytes since it started; nil without a network of its own."),
    key("network_sent", "integer?", "Bytes, likewise."),
    key("block_read", "integer?", "Bytes read from disks since it started."),
    key("block_written", "integer?", "Bytes, likewise."),
    key("pids", "integer?", "Processes and threads."),
];

/// The keys of what `ctx.workload:launch` and a task as `warmer` or `cooler` take, beside those of the
/// workload that say what a task is.
pub const LAUNCH_KEYS: &[KeyDoc] =
    &[key("count", "boolean?", "false makes it a helper: outside desired, min and max, up to `max_helpers`.")];

/// The keys of a workload that say what a task is.
pub const TEMPLATE_KEYS: &[&str] = &[
    "command",
    "image",
    "env",
    "cpus",
    "memory",
    "disk",
    "ports",
    "labels",
    "cwd",
    "output",
    "executor",
    "uuid_env",
    "entrypoint",
    "pids",
    "network",
    "volumes",
    "tmpfs",
    "health",
    "pull",
    "user",
    "privileged",
    "init",
    "parameters",
    "service",
    "engine",
    "mesos",
];

/// A class whose keys are not shared with the checker of a table above.
pub(super) struct Class {
    pub(super) name: &'static str,
    pub(super) doc: &'static str,
    pub(super) keys: &'static [KeyDoc],
}

pub(super) const CLASSES: &[Class] = &[
    Class {
        name: "setpoint.Interval",
        doc: "An interval that grows while nothing happens and falls back at the first change.",
        keys: &[
            key("min", "string", "The shortest, and first."),
            key("max", "string", "The longest."),
            key("grow", "number?", "Factor for each tick without change; 2 unless given."),
        ],
    },
    Class {
        name: "setpoint.Backoff",
        doc: "A doubling delay.",
        keys: &[key("min", "string?", "The first delay."), key("max", "string?", "The longest.")],
    },
    Class {
        name: "setpoint.Port",
        doc: "One port of a container.",
        keys: &[
            key(
                "inside",
                "integer?",
                "The port in the container; chosen for it, and told as PORT_<NAME>, unless given.",
            ),
            key(
                "outside",
                "(integer|string)?",
                "A port, or a range such as `\"31000-31100\"`; any free one unless given.",
            ),
            key("protocol", "(\"tcp\"|\"udp\")?", "`\"tcp\"` unless given."),
        ],
    },
    Class {
        name: "setpoint.Health",
        doc: "How a task's health is found out: one of `command`, `http` and `tcp`. Times that are not given are the engine's \
              or the cluster's.",
        keys: &[
            key("command", "(string|string[])?", "Run where the task runs; exit code 0 is healthy."),
            key(
                "http",
                "(string|integer|setpoint.HttpHealth)?",
                "On Mesos: a page that is asked for; a status from 200 to 399 is healthy. A port alone is its `/`.",
            ),
            key(
                "tcp",
                "(string|integer)?",
                "On Mesos: one of the task's ports, by name or number; a connection is healthy.",
            ),
            key(
                "delay",
                "string?",
                "On Mesos: time before the first check; none unless given. An engine checks at once, and lets failures in it pass.",
            ),
            key("interval", "string?", "Time between two checks; 30 s unless given, on Mesos 10 s."),
            key("timeout", "string?", "How long one may take; 30 s unless given, on Mesos 20 s."),
            key("retries", "integer?", "Failures in a row that make it unhealthy; 3 unless given."),
            key(
                "start_period",
                "string?",
                "Time at the start in which failures do not count; none unless given, on Mesos 10 s.",
            ),
        ],
    },
    Class {
        name: "setpoint.HttpHealth",
        doc: "A page that is asked for to find out a task's health.",
        keys: &[
            key("port", "string|integer", "One of the task's ports, by name, or a number."),
            key("path", "string?", "The page; `\"/\"` unless given."),
            key("scheme", "(\"http\"|\"https\")?", "`\"http\"` unless given; certificates are not looked at."),
        ],
    },
    Class {
        name: "setpoint.Mesos",
        doc: "What only a Mesos cluster needs to know of a task.",
        keys: &[
            key("role", "string?", "The role whose resources it uses; the host's unless given."),
            key("priority", "integer?", "Policies of a higher number are served first; 0 unless given."),
            key(
                "constraints",
                "[string, string, (string|number|string[])?][]?",
                "Where it may go: `{ \"rack\", \"equal\", \"r1\" }`; `not_equal`, `in`, `matches`, `unique`, `group_by`.",
            ),
            key("place", "(\"pack\"|\"spread\")?", "On as few agents as will do, unless given, or on many."),
            key("uris", "(string|setpoint.Uri)[]?", "What is fetched into its sandbox."),
            key(
                "containerizer",
                "(\"docker\"|\"mesos\")?",
                "What runs its image; `\"docker\"` unless given. Under `\"mesos\"` a command takes the place of the image's \
                 entrypoint.",
            ),
            key(
                "resources",
                "table<string, number|string[]|integer[]|setpoint.MesosResource>?",
                "Further resources: so much of a scalar such as `gpus` (which needs `[mesos] gpus`), or items of a set, or numbers \
                 of ranges, which the task sees as RESOURCE_<NAME>, with commas.",
            ),
            key("limits", "setpoint.MesosLimits?", "What it may use beyond what it is given."),
            key("discovery", "setpoint.Discovery?", "How others find it."),
        ],
    },
    Class {
        name: "setpoint.Uri",
        doc: "A file or an archive that is fetched into a sandbox.",
        keys: &[
            key("uri", "string", "Where it is."),
            key("executable", "boolean?", "Whether it is made executable."),
            key("extract", "boolean?", "Whether an archive is unpacked; yes unless given."),
            key("cache", "boolean?", "Whether the agent keeps it for the next task."),
            key("output", "string?", "Its name in the sandbox."),
        ],
    },
    Class {
        name: "setpoint.MesosResource",
        doc: "So many parts of a resource, whichever are free; one of the two.",
        keys: &[key("any", "integer?", "Items of a set."), key("numbers", "integer?", "Numbers of ranges.")],
    },
    Class {
        name: "setpoint.MesosLimits",
        doc: "What a task may use beyond what it is given.",
        keys: &[key("cpus", "number?", "Cores."), key("memory", "string?", "Memory, e.g. `\"64MiB\"`.")],
    },
    Class {
        name: "setpoint.Discovery",
        doc: "How other systems find a task.",
        keys: &[
            key("visibility", "(\"framework\"|\"cluster\"|\"external\")?", "Who may; `\"cluster\"` unless given."),
            key("name", "string?", "Its name there; the policy's unless given."),
            key("environment", "string?", "Which stage it belongs to."),
            key("location", "string?", "Where it is."),
            key("version", "string?", "Which version it is."),
        ],
    },
    Class {
        name: "setpoint.UpDown",
        doc: "One duration for launches, one for kills.",
        keys: &[key("up", "string?", "For launches."), key("down", "string?", "For kills.")],
    },
    Class {
        name: "setpoint.StepLimits",
        doc: "One limit for launches, one for kills.",
        keys: &[
            key("up", "(integer|string|setpoint.StepLimit)?", "For launches: tasks, or `\"50%\"`."),
            key("down", "(integer|string|setpoint.StepLimit)?", "For kills."),
        ],
    },
    Class {
        name: "setpoint.StepLimit",
        doc: "Most change in a period; of two figures the larger one counts.",
        keys: &[
            key("tasks", "integer?", "In tasks."),
            key("percent", "number?", "Of the number at the start of the period."),
            key("per", "string?", "The period; each decision by itself unless given."),
        ],
    },
    Class {
        name: "setpoint.Step",
        doc: "A threshold of the law `step`.",
        keys: &[
            key("above", "number?", "Fires when the sample is above this; either this or `below`."),
            key("below", "number?", "Fires when the sample is below this."),
            key("add", "integer?", "How many tasks to launch; either this or `remove`."),
            key("remove", "integer?", "How many tasks to end."),
        ],
    },
    Class {
        name: "setpoint.Confirm",
        doc: "n of the last `of` ticks, or n in all since the last action.",
        keys: &[
            key("n", "integer", "How often."),
            key("of", "integer?", "Of how many ticks."),
            key("total", "boolean?", "Count all since the last action."),
        ],
    },
    Class {
        name: "setpoint.Flap",
        doc: "A budget of starts and stops.",
        keys: &[key("changes", "integer", "How many."), key("per", "string", "In how long.")],
    },
    Class {
        name: "setpoint.OnMissing",
        doc: "`{ keep = \"60s\" }` goes on with the last value, upwards only; `{ fallback = n, after = \"5m\" }` \
             sees that n run.",
        keys: &[
            key("keep", "string?", "For how long."),
            key("fallback", "integer?", "How many."),
            key("after", "string?", "After how long without a sample."),
        ],
    },
    Class {
        name: "setpoint.Simulate",
        doc: "Settings of a simulation.",
        keys: &[key("metric", "(fun(ctx: setpoint.Ctx): number?)?", "In place of the policy's metric.")],
    },
    Class {
        name: "setpoint.Plant",
        doc: "What the tasks of a simulation do about the load.",
        keys: &[
            key("queue", "number", "Requests that wait."),
            key("served", "number", "Served in the last second."),
            key("lost", "number", "Lost in the last second."),
        ],
    },
    Class {
        name: "setpoint.Report",
        doc: "What goes with a sample.",
        keys: &[
            key("age", "number?", "How old the figure is, in seconds."),
            key("reported", "integer?", "How many tasks it speaks for."),
        ],
    },
    Class {
        name: "setpoint.Decision",
        doc: "What `decide` returns: one of the two.",
        keys: &[
            key("desired", "integer?", "How many tasks there should be."),
            key("adjust", "integer?", "How many more, or fewer."),
        ],
    },
    Class {
        name: "setpoint.Point",
        doc: "A sample that is remembered.",
        keys: &[
            key("at", "number", "When, in seconds of the loop's own clock: only differences mean anything."),
            key("value", "number", "The sample."),
            key("setpoint", "number", "The setpoint of that tick."),
        ],
    },
    Class {
        name: "setpoint.Fleet",
        doc: "Many policies from one file, found at run time.",
        keys: &[
            key(
                "discover",
                "fun(): table[]",
                "The rows; each has a unique `name` of letters, digits, `_`, `.` and `-`.",
            ),
            key("policy", "fun(row: table): setpoint.Policy", "The policy of a row."),
            key("every", "string?", "How often to discover; `\"10s\"` unless given."),
        ],
    },
];

/// What comes after the classes: methods and functions that are not in any module.
pub(super) const TAIL: &str = "\
---What launches and kills, in `warmer` and `cooler`.
---@class setpoint.Workload
local Workload = {}

---Asks for n more tasks. Recorded before it is carried out, and cut to `max`. With a command or image of its own a task
---takes nothing from the workload; without, the other options go over the workload's task.
---@param n integer
---@param task? setpoint.Task.Launch
---@return integer n
function Workload:launch(n, task) end

---Asks for the end of n tasks, or of these (tasks or their ids). Cut to `min`.
---@param what integer|setpoint.Task|string|(setpoint.Task|string)[]
---@return integer n
function Workload:kill(what) end

---@class setpoint.lib
setpoint = {}

---Many policies from one file: `return setpoint.fleet { discover = …, policy = … }`.
---@param fleet setpoint.Fleet
---@return setpoint.Fleet
function setpoint.fleet(fleet) end

---Declares the policy's parameters with their defaults, once, while the file is loaded; `--set name=value` overrides
---them.
---@generic T: table<string, boolean|number|string>
---@param defaults T
---@return T
function setpoint.params(defaults) end
";

/// What specs (`NAME_test.lua`) see beyond that.
pub(super) const SPEC: &str = "
---What `load_policy` may be told.
---@class (exact) setpoint.Spec.Options
---@field name? string The policy beside the spec, `\"lib.queue\"` for one below; the spec's own unless given.
---@field params? table<string, boolean|number|string>
---@field fakes? table<string, table> Tables in the place of modules, `{ redis = { connect = … } }`; before the file's own.
---@field world? table What the function that `fakes` was given gets here, such as `{ queue = 7 }`; `{}` unless given.
---@field row? string Which row of a fleet, as its own `discover` finds it with the fakes; the first unless given.
---@field start? integer Tasks that run at the start; 0 unless given.
---@field startup? string From asked to running; at once unless given.
---@field stop? string From told to end to gone; at once unless given.
---@field now? string|number Wall time at the start: `\"2026-03-01T08:00:00Z\"`, or seconds since 1970.
---@field task? setpoint.Spec.Figures|fun(task: setpoint.Spec.Task): setpoint.Spec.Figures? What tasks show.

---The made-up world that fakes see under `setpoint simulate --fakes`. Its fields are nil before the first tick.
---@class (exact) setpoint.Spec.World
---@field now? number Virtual time, in seconds since 1970.
---@field trace? number The load.
---@field running? integer Tasks that run.
---@field queue? number Requests that wait.
---@field served? number Requests that were served in the last second.
---@field lost? number Requests that were lost in the last second.

---What a tick may be told. What is given takes the place of what the policy's functions give.
---@class (exact) setpoint.Spec.Tick
---@field metric? number
---@field age? string Age of `metric`.
---@field missing? boolean There is no sample.
---@field error? string The sample fails with this.
---@field target? number
---@field advance? string Time that passes first; until the next tick is due unless given.
---@field task? setpoint.Spec.Figures|fun(task: setpoint.Spec.Task): setpoint.Spec.Figures? What tasks show.

---@class (exact) setpoint.Spec.Figures
---@field cpu? number Percent of a core.
---@field memory? number Bytes.
---@field memory_limit? number
---@field network_received? number
---@field network_sent? number
---@field pids? integer
---@field host? string
---@field container? string
---@field pid? integer
---@field ports? table<string, integer>

---@class (exact) setpoint.Spec.Task
---@field id string
---@field uuid string
---@field state \"asked\"|\"staging\"|\"running\"|\"killing\"
---@field ready boolean
---@field helper boolean
---@field by string
---@field now number Seconds since the policy's start.
---@field host? string
---@field container? string

---@class (exact) setpoint.Spec.Reason
---@field guard string
---@field text string
---@field from integer
---@field to integer

---What came of a tick.
---@class (exact) setpoint.Spec.Decision
---@field kind \"decision\"
---@field at number Seconds since the policy's start.
---@field sample? number
---@field sample_kind \"value\"|\"missing\"|\"stale\"|\"error\"
---@field setpoint? number
---@field raw integer What the law wanted: + launches, − kills.
---@field adjustment integer What was carried out.
---@field launched integer
---@field killed integer
---@field running integer Tasks that run afterwards.
---@field in_flight integer Tasks that are wanted and not ready afterwards.
---@field desired integer Tasks that are wanted afterwards.
---@field reasons setpoint.Spec.Reason[]
---@field errors string[] Errors of the policy's functions.
---@field requests string[] Effects of modules without a fake, recorded and not sent.

---A policy under a virtual clock. Tasks start and end as they would, the decisions are those of the engine.
---@class setpoint.Spec.Policy
---@field table setpoint.Policy What its file returned.
local SpecPolicy = {}

---Ticks: when the next tick is due, or after `advance`.
---@param options? setpoint.Spec.Tick
---@return setpoint.Spec.Decision
function SpecPolicy:tick(options) end

---Lets time pass, with every tick that is due until then.
---@param duration string
---@param options? setpoint.Spec.Tick Of each tick.
---@return setpoint.Spec.Decision[]
function SpecPolicy:advance(duration, options) end

---@return setpoint.Spec.Task[]
function SpecPolicy:tasks() end

---@return integer
function SpecPolicy:running() end

---Ends the n oldest running tasks.
---@param n integer
---@param code? integer Exit code; 0 unless given.
---@return integer n How many there were.
function SpecPolicy:finish(n, code) end

---Every tick so far, a line each.
---@return string
function SpecPolicy:timeline() end

---Why the policy has ended; nil while it goes on.
---@return string?
function SpecPolicy:ended() end

---What is expected of a value. Each fails the case unless it holds.
---@class (exact) setpoint.Spec.Expectation
---@field never setpoint.Spec.Expectation The opposite.
---@field to_equal fun(expected: any) The same value, tables by what is in them.
---@field to_be fun(expected: any) The very same table or value.
---@field to_be_near fun(expected: number, within?: number)
---@field to_be_at_least fun(least: number)
---@field to_be_at_most fun(most: number)
---@field to_be_true fun()
---@field to_be_false fun()
---@field to_be_nil fun()
---@field to_be_a fun(type: string)
---@field to_have_length fun(length: integer)
---@field to_match fun(pattern: string)
---@field to_contain fun(item: any) A text has this part, or a table this item.
---@field to_error fun(part?: string) Calling it raises, with this in the message.
---@field to_launch fun(n?: integer) The decision launches so many tasks.
---@field to_kill fun(n?: integer) The decision kills so many tasks.
---@field to_hold fun() The decision changes nothing.
---@field to_have_reason fun(part: string) One of its reasons is this guard's, or has these words.
---@field to_have_failed fun(part?: string) One of the policy's functions failed, with this in the message.
---@field to_match_golden fun(name: string) The text is what `setpoint test --update` wrote into NAME_test.golden.

---What `for_all` draws from.
---@class setpoint.Spec.Generator

---@class (exact) setpoint.Spec.Range
---@field min? number 0 unless given.
---@field max? number 100 unless given.

---@class (exact) setpoint.Spec.TraceRange
---@field min? number 0 unless given.
---@field max? number 100 unless given.
---@field length? integer 30 unless given.
---@field whole? boolean Whole numbers, unless false.

---@class setpoint.Spec.gen
gen = {}

---@param range? setpoint.Spec.Range
---@return setpoint.Spec.Generator
function gen.integer(range) end

---@param range? setpoint.Spec.Range
---@return setpoint.Spec.Generator
function gen.number(range) end

---@param values any[]
---@return setpoint.Spec.Generator
function gen.one_of(values) end

---@param item setpoint.Spec.Generator
---@param lengths? setpoint.Spec.Range
---@return setpoint.Spec.Generator
function gen.list(item, lengths) end

---A load that goes up, goes down, stands still and jumps.
---@param range? setpoint.Spec.TraceRange
---@return setpoint.Spec.Generator
function gen.trace(range) end

---Groups cases.
---@param name string
---@param body fun()
function describe(name, body) end

---A case.
---@param name string
---@param body fun()
function it(name, body) end

---A case that is not run.
---@param name string
---@param body fun()
function skip(name, body) end

---@param body fun()
function before_each(body) end

---@param body fun()
function after_each(body) end

---@param value any
---@return setpoint.Spec.Expectation
function expect(value) end

---Gives the file's fakes, once: of each policy that it loads, and of one that `setpoint simulate --fakes` runs on it. A
---function makes them of the world that they answer from: `function(world) return { redis = … } end`.
---@param modules table<string, table>|fun(world: setpoint.Spec.World): table<string, table>
function fakes(modules) end

---Loads a policy beside the spec.
---@param options? string|setpoint.Spec.Options
---@return setpoint.Spec.Policy
function load_policy(options) end

---Runs the property with inputs drawn from the generators (`runs` times, 100 unless given, from `seed` on); one that
---fails is made as small as it can be.
---@param options table<string, setpoint.Spec.Generator|integer>
---@param property fun(input: table<string, any>)
function for_all(options, property) end
";

/// Every file of `scripts/types/`: its path there, and its text.
#[must_use]
pub fn files() -> Vec<(String, String)> {
    let mut files = vec![("setpoint.lua".to_owned(), luacats())];
    files.extend(modules().iter().map(|module| (format!("setpoint/{}.lua", module.name), stub(module.name))));
    files.push(("setpoint/params.lua".to_owned(), PARAMS.to_owned()));
    files.push(("setpoint/host.lua".to_owned(), HOST.to_owned()));
    files
}

/// What `require("setpoint.params")` gives: a function, so not a module like the others.
const PARAMS: &str = "\
---@meta setpoint.params

---Declares the policy's parameters with their defaults; `--set name=value` overrides them. Unknown keys of the result
---raise.
---@generic T: table<string, boolean|number|string>
---@param defaults T
---@return T
return function(defaults) end
";

/// What `require("setpoint.host")` gives: the embedding program's own functions.
const HOST: &str = "\
---@meta setpoint.host

---Functions of the program that setpoint is embedded in; each gives a number, or nil for a missing sample. In the command
---there are none.
---@type table<string, fun(): number?>
local host

return host
";

/// The file that an editor finds for `require(\"setpoint.<name>\")`.
fn stub(name: &str) -> String {
    format!("---@meta setpoint.{name}\n\n---@type setpoint.{name}\nlocal {name}\n\nreturn {name}\n")
}

/// All classes and modules, as the content of `scripts/types/setpoint.lua`.
#[must_use]
pub fn luacats() -> String {
    let mut out = String::from(
        "---@meta\n\n-- Types of policies for editors. Made by `setpoint types`; changes here are lost.\n\n",
    );
    let template: Vec<KeyDoc> = WORKLOAD_KEYS.iter().filter(|key| TEMPLATE_KEYS.contains(&key.name)).copied().collect();
    class(&mut out, "setpoint.Policy", "A policy: what its file returns.", POLICY_KEYS);
    class(&mut out, "setpoint.WorkloadTable", "The tasks that a policy owns.", WORKLOAD_KEYS);
    class(&mut out, "setpoint.Control", "Law and guards.", CONTROL_KEYS);
    class(&mut out, "setpoint.Ctx", "What a policy's functions see. A field that does not exist raises.", CTX_KEYS);
    class(&mut out, "setpoint.Task", "One task.", TASK_KEYS);
    class(&mut out, "setpoint.Task.Template", "What a task is; what is left out is the workload's.", &template);
    class(&mut out, "setpoint.Task.Launch: setpoint.Task.Template", "What to launch.", LAUNCH_KEYS);
    for item in CLASSES {
        class(&mut out, item.name, item.doc, item.keys);
    }
    out.push_str(TAIL);
    out.push_str(SPEC);
    for item in modules() {
        module(&mut out, item);
    }
    out
}

fn class(out: &mut String, name: &str, doc: &str, keys: &[KeyDoc]) {
    out.push_str(&format!("---{doc}\n---@class (exact) {name}\n"));
    for key in keys {
        // LuaCATS marks an optional field at its name.
        let (mark, lua_type) = match key.lua_type.strip_suffix('?') {
            Some(inner) => ("?", inner),
            None => ("", key.lua_type),
        };
        out.push_str(&format!("---@field {}{mark} {lua_type} {}\n", key.name, key.doc));
    }
    out.push('\n');
}

fn module(out: &mut String, module: &ModuleDoc) {
    let mut handles: Vec<(&str, String)> = Vec::new();
    for (handle, _) in module.functions.iter().filter_map(|item| item.name.split_once(':')) {
        if handles.iter().all(|(known, _)| *known != handle) {
            handles.push((handle, format!("setpoint.{}.{}", module.name, capitalised(handle))));
        }
    }
    // A handle's class stands with its methods, the others before the module.
    for group in groups(module.types).filter(|group| handles.iter().all(|(_, class)| !is_class(group, class))) {
        lines(out, group);
    }
    out.push_str(&format!("\n---{}\n---@class setpoint.{}\n", module.doc, module.name));
    for (name, lua_type, doc) in module.fields {
        out.push_str(&format!("---@field {name} {lua_type} {doc}\n"));
    }
    out.push_str(&format!("local {} = {{}}\n", module.name));
    for item in module.functions.iter().filter(|item| !item.name.contains(':')) {
        function(out, module.name, item);
    }
    for (handle, class) in &handles {
        match groups(module.types).find(|group| is_class(group, class)) {
            Some(group) => lines(out, group),
            None => out.push_str(&format!("\n---@class {class}\n")),
        }
        out.push_str(&format!("local {} = {{}}\n", capitalised(handle)));
        let is_method = |item: &&FunctionDoc| item.name.split_once(':').is_some_and(|(owner, _)| owner == *handle);
        for item in module.functions.iter().filter(is_method) {
            function(out, module.name, item);
        }
    }
}

/// The lines of each class.
fn groups(types: &'static [&'static str]) -> impl Iterator<Item = &'static [&'static str]> {
    types.chunk_by(|_, next| !next.starts_with("@class"))
}

fn is_class(group: &[&str], class: &str) -> bool {
    group.first().is_some_and(|line| line.split(' ').any(|word| word == class))
}

fn lines(out: &mut String, group: &[&str]) {
    out.push('\n');
    for line in group {
        out.push_str(&format!("---{line}\n"));
    }
}

fn function(out: &mut String, module: &str, item: &FunctionDoc) {
    // Where only some calls are effects, the text says which.
    let is_effect = item.access == Access::Effect && !item.doc.contains("are reads");
    let where_allowed = if is_effect { " Only in warmer, cooler, drain and stop." } else { "" };
    out.push_str(&format!("\n---{}{where_allowed}\n", item.doc));
    for (name, lua_type) in item.params {
        out.push_str(&format!("---@param {name} {lua_type}\n"));
    }
    for lua_type in item.returns {
        out.push_str(&format!("---@return {lua_type}\n"));
    }
    let params: Vec<&str> = item.params.iter().map(|(name, _)| name.trim_end_matches('?')).collect();
    let name = match item.name.split_once(':') {
        Some((handle, method)) => format!("{}:{method}", capitalised(handle)),
        None => format!("{module}.{}", item.name),
    };
    out.push_str(&format!("function {name}({}) end\n", params.join(", ")));
}

fn capitalised(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map(|first| first.to_ascii_uppercase().to_string() + letters.as_str()).unwrap_or_default()
}
