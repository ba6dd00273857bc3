---@meta

-- Types of policies for editors. Made by `setpoint types`; changes here are lost.

---A policy: what its file returns.
---@class (exact) setpoint.Policy
---@field interval? (string|setpoint.Interval) Time between two ticks: a duration of at least 50 ms, or a growing one. `"15s"` unless given.
---@field workload setpoint.WorkloadTable The tasks that the policy owns.
---@field control? setpoint.Control Law and guards.
---@field metric? (fun(ctx: setpoint.Ctx): number?, (number|setpoint.Report)?) The sample. nil is missing; a second result is its age in seconds, or `{ age, reported }`. Not needed by the laws `count` and `decide`.
---@field target? (number|fun(ctx: setpoint.Ctx): number) The setpoint.
---@field warmer? (string|setpoint.Task.Template|fun(n: integer, ctx: setpoint.Ctx): integer?) Raises the metric: a function, or a task of which n are launched.
---@field cooler? (string|setpoint.Task.Template|fun(n: integer, ctx: setpoint.Ctx): integer?) Lowers the metric: a function, or a task of which n are launched.
---@field decide? (fun(ctx: setpoint.Ctx): setpoint.Decision) A law of one's own: `{ desired = n }` or `{ adjust = n }`.
---@field victims? (fun(tasks: setpoint.Task[], n: integer, ctx: setpoint.Ctx): (setpoint.Task|string)[]) Which tasks go first: tasks or their ids, in order.
---@field drain? (fun(task: setpoint.Task, ctx: setpoint.Ctx): boolean?) Called before a task is killed: true or nil lets it go, false asks again at the next tick, until the grace is over.
---@field stop? (fun(ctx: setpoint.Ctx): integer?) An exit code ends the policy.
---@field migrate? (fun(old: table): table) Turns the `ctx.state` of the version before into this one's, at a reload.
---@field max_failures? integer Failures net of successes after which the policy ends with code 1; off unless given.
---@field backoff? setpoint.Backoff Delay before a failed task's successor, doubling: 1 s to 5 min unless given.
---@field max_helpers? integer Most helper tasks (`count = false`) at once; 0 unless given.
---@field shadow? string A second policy file, in this folder or below it, that is evaluated on each tick beside this one and never acts: what it would have done is recorded and compared.
---@field params? table<string, boolean|number|string> Parameters with their defaults, as `setpoint.params` declares them.
---@field simulate? setpoint.Simulate What replaces `metric` in `setpoint simulate`.

---The tasks that a policy owns.
---@class (exact) setpoint.WorkloadTable
---@field backend? ("local"|"docker"|"swarm"|"mesos"|"none"|string) Where tasks run; `"local"` unless given.
---@field kind? ("service"|"jobs") Whether an ended task is replaced (`"service"`, unless given) or simply gone.
---@field effect? ("heats"|"cools") What more tasks do to the metric; `"cools"` unless given.
---@field min? integer Fewest tasks; 0 unless given.
---@field max? integer Most tasks; required unless the law is `count`.
---@field command? (string|string[]) A list is run as it is; a string goes to `sh -c`, byte for byte.
---@field image? string Container image.
---@field env? table<string, string|number|boolean> Environment beyond SETPOINT_TASK_ID, SETPOINT_POLICY and PORT_<NAME>.
---@field cpus? number Cores.
---@field memory? string Memory, e.g. `"32MiB"`.
---@field disk? string Disk, e.g. `"1GiB"`.
---@field ports? (string[]|table<string, integer|setpoint.Port>) `{ http = 8080 }` or `{ "http" }`: a name and the port inside; a table says which ports outside.
---@field labels? table<string, string> Labels.
---@field cwd? string Working folder; relative ones start at the policy's folder.
---@field output? ("auto"|"null"|"inherit") Where a local task's output goes; `"auto"` is a file under the state folder.
---@field executor? string Which executor runs it, on Mesos.
---@field uuid_env? string A variable of the task's environment that gets its `uuid`.
---@field entrypoint? (string|string[]) In place of the image's entrypoint.
---@field pids? integer Most processes and threads of a container.
---@field network? string A network's name, or `"bridge"`, `"host"`, `"none"`; without Docker on Mesos, a CNI network's.
---@field volumes? string[] `"source:/target"` or `"source:/target:ro"`: a path (relative ones start at the policy's folder) or a volume's name. On Mesos paths are absolute, and only Docker's containers have named volumes.
---@field tmpfs? string[] Folders in memory: `"/path"` or `"/path:size=64m"`.
---@field health? (false|string|string[]|setpoint.Health) How its health is found out: a command that is run where it runs, or a table; false is none, also where the image has one.
---@field pull? ("missing"|"always"|"never") When the image is fetched; `"missing"` unless given. On Mesos one of the first two.
---@field user? string User, or `user:group`, that the container, or a local or Mesos command, runs as; only root may choose another than its own. A name alone on Mesos, but for Docker's containers.
---@field privileged? boolean Whether the container has every right on its machine.
---@field init? boolean Whether a small init takes signals and reaps processes in the container.
---@field parameters? string[] `"option=value"`: further options as `docker run` has them, for Mesos's Docker containerizer.
---@field service? string On backend "swarm": a service that is there already, whose number alone is the policy's.
---@field engine? (string|string[]) The engines that it may run on, by the host's names; all of them unless given.
---@field mesos? setpoint.Mesos What only a Mesos cluster needs to know.
---@field ready? ("running"|"healthy"|string) When a running task is ready: at once, after a duration, or when it is healthy.
---@field grace? string Time between TERM and KILL; 10 s unless given.
---@field on_end? ("stop"|"keep") What happens to tasks when `stop` or `max_failures` ends the policy.
---@field on_gone? ("stop"|"keep") What happens to them when a fleet's row is gone.
---@field replace? ("keep"|"rolling") What happens to running tasks when the command or image changes; `"keep"` unless given.
---@field count? (fun(ctx: setpoint.Ctx): integer) The running number of a workload that others run (`backend = "none"`).

---Law and guards.
---@class (exact) setpoint.Control
---@field law? ("adaptive"|"proportional"|"pid"|"ratio"|"relay"|"step"|"count"|"decide") `"adaptive"` unless given; `"decide"` where there is that function.
---@field per_task? number For `adaptive`, `proportional` and `pid`: metric units that one task is worth; 1 unless given. `adaptive` starts from it.
---@field kp? number For `pid`: tasks for each unit of deviation; 1 / `per_task` unless given.
---@field ki? number For `pid`: tasks for each unit of deviation and second; 0 unless given.
---@field kd? number For `pid`: tasks for each unit a second at which the sample moves; 0 unless given.
---@field filter? string For `pid`: time constant of the filter on the derivative; kd / kp / 8 unless given.
---@field season? string For `adaptive`: the period of a season in the load, such as `"1d"`; none unless given.
---@field compat? boolean For `relay`: reproduce the original's undefined cases.
---@field steps? setpoint.Step[] For `step`: the thresholds.
---@field hysteresis? number For `step`: how far back the sample must be before a threshold fires again.
---@field n? integer For `count`: how many.
---@field wait? string For `count`: refill ended tasks only at multiples of this.
---@field tolerance? (number|string) Deviations up to this are left alone; `"10%"` is relative to the setpoint. 0 unless given. For `ratio` a number is a fraction too, and 0.1 unless given.
---@field cooldown? (string|setpoint.UpDown) Least time between actions; none unless given.
---@field stabilization? (string|setpoint.UpDown) Windows over which the most careful proposal counts; none unless given, 300 s down for `ratio`.
---@field step? (integer|string|setpoint.StepLimit|setpoint.StepLimits) Most change at once, or in a period: tasks, or `"50%"`; no limit unless given, the HPA's for `ratio`.
---@field confirm? (integer|setpoint.Confirm) How often a direction must be seen before it is acted on; a number is in a row.
---@field ramp? integer Over how many first samples the first adjustment is spread; 1 unless given.
---@field lag? string Time from ready, or gone, to the full effect in the sample; 0 unless given.
---@field lookback? integer Samples that the history keeps; 64 unless given, 1000 for `relay`.
---@field flap? setpoint.Flap Most starts and stops in a window.
---@field stale_after? string Older samples are stale; three intervals unless given.
---@field on_missing? ("hold"|setpoint.OnMissing) What to do without a fresh sample; `"hold"` unless given. Never scales in.

---What a policy's functions see. A field that does not exist raises.
---@class (exact) setpoint.Ctx
---@field now number Wall-clock time of the tick, in seconds since 1970.
---@field tick integer Number of the tick, from 1.
---@field params table<string, boolean|number|string> The policy's parameters.
---@field policy string The policy's name.
---@field sample? number The last sample when it is fresh, else nil.
---@field sample_kind? ("value"|"missing"|"stale"|"error") What the last sample was; nil before the first.
---@field setpoint? number The last setpoint.
---@field deviation? number setpoint − sample, when there are both.
---@field history setpoint.Point[] Fresh samples, oldest first.
---@field tasks setpoint.Task[] The policy's tasks, oldest first.
---@field running integer How many run.
---@field in_flight integer How many are wanted and not ready.
---@field desired integer How many are wanted.
---@field min integer The lower bound in force.
---@field max integer The upper bound in force.
---@field trace? number The trace's value, in `setpoint simulate`; nil elsewhere.
---@field plant? setpoint.Plant What the plant of `setpoint simulate` shows; nil elsewhere.
---@field state table The policy's own table; survives restarts and reloads. Plain values only, at most 64 KiB as JSON.
---@field workload setpoint.Workload What launches and kills.

---One task.
---@class (exact) setpoint.Task
---@field id string Its name, here and on the backend.
---@field state "asked"|"staging"|"running"|"killing"|"gone" Where in its life it is.
---@field ready boolean Whether it is ready.
---@field helper boolean Whether it is a helper (`count = false`).
---@field by "law"|"min"|"replacement"|"warmer"|"cooler"|"helper" Who asked for it.
---@field host? string Host name or address.
---@field ports table<string, integer> Port name to number outside.
---@field pid? integer Process id, on the local backend.
---@field container? string Container id, where there is one.
---@field uuid? string An identity for systems that only take UUIDs; `workload.uuid_env` tells it to the task.
---@field started number When it was asked for, in seconds since 1970.
---@field age number Seconds since then.
---@field cpu? number Share of one core in percent, once sampled.
---@field memory? integer Bytes in use, once sampled: resident, or a container's without idle page cache.
---@field memory_limit? integer The most bytes that it may use.
---@field network_received? integer Bytes since it started; nil without a network of its own.
---@field network_sent? integer Bytes, likewise.
---@field block_read? integer Bytes read from disks since it started.
---@field block_written? integer Bytes, likewise.
---@field pids? integer Processes and threads.

---What a task is; what is left out is the workload's.
---@class (exact) setpoint.Task.Template
---@field command? (string|string[]) A list is run as it is; a string goes to `sh -c`, byte for byte.
---@field image? string Container image.
---@field env? table<string, string|number|boolean> Environment beyond SETPOINT_TASK_ID, SETPOINT_POLICY and PORT_<NAME>.
---@field cpus? number Cores.
---@field memory? string Memory, e.g. `"32MiB"`.
---@field disk? string Disk, e.g. `"1GiB"`.
---@field ports? (string[]|table<string, integer|setpoint.Port>) `{ http = 8080 }` or `{ "http" }`: a name and the port inside; a table says which ports outside.
---@field labels? table<string, string> Labels.
---@field cwd? string Working folder; relative ones start at the policy's folder.
---@field output? ("auto"|"null"|"inherit") Where a local task's output goes; `"auto"` is a file under the state folder.
---@field executor? string Which executor runs it, on Mesos.
---@field uuid_env? string A variable of the task's environment that gets its `uuid`.
---@field entrypoint? (string|string[]) In place of the image's entrypoint.
---@field pids? integer Most processes and threads of a container.
---@field network? string A network's name, or `"bridge"`, `"host"`, `"none"`; without Docker on Mesos, a CNI network's.
---@field volumes? string[] `"source:/target"` or `"source:/target:ro"`: a path (relative ones start at the policy's folder) or a volume's name. On Mesos paths are absolute, and only Docker's containers have named volumes.
---@field tmpfs? string[] Folders in memory: `"/path"` or `"/path:size=64m"`.
---@field health? (false|string|string[]|setpoint.Health) How its health is found out: a command that is run where it runs, or a table; false is none, also where the image has one.
---@field pull? ("missing"|"always"|"never") When the image is fetched; `"missing"` unless given. On Mesos one of the first two.
---@field user? string User, or `user:group`, that the container, or a local or Mesos command, runs as; only root may choose another than its own. A name alone on Mesos, but for Docker's containers.
---@field privileged? boolean Whether the container has every right on its machine.
---@field init? boolean Whether a small init takes signals and reaps processes in the container.
---@field parameters? string[] `"option=value"`: further options as `docker run` has them, for Mesos's Docker containerizer.
---@field service? string On backend "swarm": a service that is there already, whose number alone is the policy's.
---@field engine? (string|string[]) The engines that it may run on, by the host's names; all of them unless given.
---@field mesos? setpoint.Mesos What only a Mesos cluster needs to know.

---What to launch.
---@class (exact) setpoint.Task.Launch: setpoint.Task.Template
---@field count? boolean false makes it a helper: outside desired, min and max, up to `max_helpers`.

---An interval that grows while nothing happens and falls back at the first change.
---@class (exact) setpoint.Interval
---@field min string The shortest, and first.
---@field max string The longest.
---@field grow? number Factor for each tick without change; 2 unless given.

---A doubling delay.
---@class (exact) setpoint.Backoff
---@field min? string The first delay.
---@field max? string The longest.

---One port of a container.
---@class (exact) setpoint.Port
---@field inside? integer The port in the container; chosen for it, and told as PORT_<NAME>, unless given.
---@field outside? (integer|string) A port, or a range such as `"31000-31100"`; any free one unless given.
---@field protocol? ("tcp"|"udp") `"tcp"` unless given.

---How a task's health is found out: one of `command`, `http` and `tcp`. Times that are not given are the engine's or the cluster's.
---@class (exact) setpoint.Health
---@field command? (string|string[]) Run where the task runs; exit code 0 is healthy.
---@field http? (string|integer|setpoint.HttpHealth) On Mesos: a page that is asked for; a status from 200 to 399 is healthy. A port alone is its `/`.
---@field tcp? (string|integer) On Mesos: one of the task's ports, by name or number; a connection is healthy.
---@field delay? string On Mesos: time before the first check; none unless given. An engine checks at once, and lets failures in it pass.
---@field interval? string Time between two checks; 30 s unless given, on Mesos 10 s.
---@field timeout? string How long one may take; 30 s unless given, on Mesos 20 s.
---@field retries? integer Failures in a row that make it unhealthy; 3 unless given.
---@field start_period? string Time at the start in which failures do not count; none unless given, on Mesos 10 s.

---A page that is asked for to find out a task's health.
---@class (exact) setpoint.HttpHealth
---@field port string|integer One of the task's ports, by name, or a number.
---@field path? string The page; `"/"` unless given.
---@field scheme? ("http"|"https") `"http"` unless given; certificates are not looked at.

---What only a Mesos cluster needs to know of a task.
---@class (exact) setpoint.Mesos
---@field role? string The role whose resources it uses; the host's unless given.
---@field priority? integer Policies of a higher number are served first; 0 unless given.
---@field constraints? [string, string, (string|number|string[])?][] Where it may go: `{ "rack", "equal", "r1" }`; `not_equal`, `in`, `matches`, `unique`, `group_by`.
---@field place? ("pack"|"spread") On as few agents as will do, unless given, or on many.
---@field uris? (string|setpoint.Uri)[] What is fetched into its sandbox.
---@field containerizer? ("docker"|"mesos") What runs its image; `"docker"` unless given. Under `"mesos"` a command takes the place of the image's entrypoint.
---@field resources? table<string, number|string[]|integer[]|setpoint.MesosResource> Further resources: so much of a scalar such as `gpus` (which needs `[mesos] gpus`), or items of a set, or numbers of ranges, which the task sees as RESOURCE_<NAME>, with commas.
---@field limits? setpoint.MesosLimits What it may use beyond what it is given.
---@field discovery? setpoint.Discovery How others find it.

---A file or an archive that is fetched into a sandbox.
---@class (exact) setpoint.Uri
---@field uri string Where it is.
---@field executable? boolean Whether it is made executable.
---@field extract? boolean Whether an archive is unpacked; yes unless given.
---@field cache? boolean Whether the agent keeps it for the next task.
---@field output? string Its name in the sandbox.

---So many parts of a resource, whichever are free; one of the two.
---@class (exact) setpoint.MesosResource
---@field any? integer Items of a set.
---@field numbers? integer Numbers of ranges.

---What a task may use beyond what it is given.
---@class (exact) setpoint.MesosLimits
---@field cpus? number Cores.
---@field memory? string Memory, e.g. `"64MiB"`.

---How other systems find a task.
---@class (exact) setpoint.Discovery
---@field visibility? ("framework"|"cluster"|"external") Who may; `"cluster"` unless given.
---@field name? string Its name there; the policy's unless given.
---@field environment? string Which stage it belongs to.
---@field location? string Where it is.
---@field version? string Which version it is.

---One duration for launches, one for kills.
---@class (exact) setpoint.UpDown
---@field up? string For launches.
---@field down? string For kills.

---One limit for launches, one for kills.
---@class (exact) setpoint.StepLimits
---@field up? (integer|string|setpoint.StepLimit) For launches: tasks, or `"50%"`.
---@field down? (integer|string|setpoint.StepLimit) For kills.

---Most change in a period; of two figures the larger one counts.
---@class (exact) setpoint.StepLimit
---@field tasks? integer In tasks.
---@field percent? number Of the number at the start of the period.
---@field per? string The period; each decision by itself unless given.

---A threshold of the law `step`.
---@class (exact) setpoint.Step
---@field above? number Fires when the sample is above this; either this or `below`.
---@field below? number Fires when the sample is below this.
---@field add? integer How many tasks to launch; either this or `remove`.
---@field remove? integer How many tasks to end.

---n of the last `of` ticks, or n in all since the last action.
---@class (exact) setpoint.Confirm
---@field n integer How often.
---@field of? integer Of how many ticks.
---@field total? boolean Count all since the last action.

---A budget of starts and stops.
---@class (exact) setpoint.Flap
---@field changes integer How many.
---@field per string In how long.

---`{ keep = "60s" }` goes on with the last value, upwards only; `{ fallback = n, after = "5m" }` sees that n run.
---@class (exact) setpoint.OnMissing
---@field keep? string For how long.
---@field fallback? integer How many.
---@field after? string After how long without a sample.

---Settings of a simulation.
---@class (exact) setpoint.Simulate
---@field metric? (fun(ctx: setpoint.Ctx): number?) In place of the policy's metric.

---What the tasks of a simulation do about the load.
---@class (exact) setpoint.Plant
---@field queue number Requests that wait.
---@field served number Served in the last second.
---@field lost number Lost in the last second.

---What goes with a sample.
---@class (exact) setpoint.Report
---@field age? number How old the figure is, in seconds.
---@field reported? integer How many tasks it speaks for.

---What `decide` returns: one of the two.
---@class (exact) setpoint.Decision
---@field desired? integer How many tasks there should be.
---@field adjust? integer How many more, or fewer.

---A sample that is remembered.
---@class (exact) setpoint.Point
---@field at number When, in seconds of the loop's own clock: only differences mean anything.
---@field value number The sample.
---@field setpoint number The setpoint of that tick.

---Many policies from one file, found at run time.
---@class (exact) setpoint.Fleet
---@field discover fun(): table[] The rows; each has a unique `name` of letters, digits, `_`, `.` and `-`.
---@field policy fun(row: table): setpoint.Policy The policy of a row.
---@field every? string How often to discover; `"10s"` unless given.

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

---What `load_policy` may be told.
---@class (exact) setpoint.Spec.Options
---@field name? string The policy beside the spec, `"lib.queue"` for one below; the spec's own unless given.
---@field params? table<string, boolean|number|string>
---@field fakes? table<string, table> Tables in the place of modules, `{ redis = { connect = … } }`; before the file's own.
---@field world? table What the function that `fakes` was given gets here, such as `{ queue = 7 }`; `{}` unless given.
---@field row? string Which row of a fleet, as its own `discover` finds it with the fakes; the first unless given.
---@field start? integer Tasks that run at the start; 0 unless given.
---@field startup? string From asked to running; at once unless given.
---@field stop? string From told to end to gone; at once unless given.
---@field now? string|number Wall time at the start: `"2026-03-01T08:00:00Z"`, or seconds since 1970.
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
---@field state "asked"|"staging"|"running"|"killing"
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
---@field kind "decision"
---@field at number Seconds since the policy's start.
---@field sample? number
---@field sample_kind "value"|"missing"|"stale"|"error"
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

---@class (exact) setpoint.docker.Which
---@field name? string|string[] Names; `*` stands for anything, and one of them must match.
---@field label? string|string[]|table<string, string|true> `"key"` or `"key=value"`; all of them must hold.
---@field project? string A Compose project.
---@field service? string A Compose service.
---@field engine? string The host's name for an engine; all of them unless given.
---@field all? boolean Also those that do not run.

---@class (exact) setpoint.docker.Container
---@field id string
---@field name string
---@field image string
---@field labels table<string, string>
---@field project? string Of Compose.
---@field service? string Of Compose.
---@field state string The engine's word: `running`, `paused`, `exited` …
---@field engine string

---@class (exact) setpoint.docker.WhichService
---@field name? string|string[] Names; `*` stands for anything, and one of them must match.
---@field label? string|string[]|table<string, string|true> The service's own labels, not its containers'.

---@class (exact) setpoint.docker.Service
---@field id string
---@field name string
---@field labels table<string, string> Its own, not its containers'.
---@field replicas? integer The number of tasks that is wanted; nil where one runs on every node.

---@class (exact) setpoint.docker.Stats: setpoint.docker.Container
---@field cpu_percent? number Share of one core since the policy asked before, as `docker stats` has it.
---@field memory_bytes? integer In use, without idle page cache.
---@field memory_limit? integer Its limit, or the machine's memory.
---@field memory_percent? number Of the limit.
---@field network_received? integer Bytes since it started; nil without a network of its own.
---@field network_sent? integer
---@field block_read? integer Bytes since it started.
---@field block_written? integer
---@field pids? integer Processes and threads.

---Containers of the host's Docker engines, and services of their Swarm, that the policy need not own. An engine that does not answer raises, because a part of a group would pass for all of it.
---@class setpoint.docker
local docker = {}

---Running containers, by name, with what they use. A figure that is not known (yet) is nil: CPU needs two calls, and each policy has its own. While a file loads: an empty list.
---@param which? setpoint.docker.Which
---@return setpoint.docker.Stats[]
function docker.stats(which) end

---Containers, by name: those that run, or with `all` every one. While a file loads: an empty list.
---@param which? setpoint.docker.Which
---@return setpoint.docker.Container[]
function docker.containers(which) end

---The words of a workload that start another container like this one, found by name or id: image, entrypoint, command, env, labels, limits, network, volumes, ports (published on free ones) … Not its health check and restart policy. nil when there is no such container. While a file loads: nil.
---@param container string
---@param engine? string
---@return table<string, any>?
function docker.template(container, engine) end

---Services of the Swarm whose manager the host knows, by name. nil when there is no Swarm. While a file loads: nil.
---@param which? setpoint.docker.WhichService
---@return setpoint.docker.Service[]?
function docker.services(which) end

---@class (exact) setpoint.exec.Options
---@field timeout? string|number `"10s"` unless given; the tick's deadline holds anyway.
---@field stdin? string What the command reads; nothing unless given.
---@field env? table<string, string> Further environment variables.
---@field max_output? string|number Most bytes of standard output, and of standard error; the host's `body` limit unless given.

---@class (exact) setpoint.exec.Result
---@field code? integer Exit code; nil when a signal ended it.
---@field signal? integer The signal that ended it.
---@field ok boolean Whether the exit code is 0.
---@field stdout string
---@field stderr string
---@field stub? boolean True when nothing was run: in a dry run, or while a file loads.

---Runs commands, when the host allows it (`[policy] exec = true`). A command is a list (no shell), starts in the policy's folder with a bare environment (PATH and what `env` says), and is killed with its process group when its time is over.
---@class setpoint.exec
local exec = {}

---Runs a command that only looks, e.g. for a metric; it runs in a dry run too. A command that cannot be started, takes too long or writes too much raises; an exit code does not. While a file loads: `code = 0` and no output.
---@param command string[]
---@param options? setpoint.exec.Options
---@return setpoint.exec.Result
function exec.read(command, options) end

---Runs a command that changes something, like `exec.read` otherwise. In a dry run: `code = 0`, no output, `stub = true`. Only in warmer, cooler, drain and stop.
---@param command string[]
---@param options? setpoint.exec.Options
---@return setpoint.exec.Result
function exec.run(command, options) end

---@class (exact) setpoint.fs.Options
---@field kind? "file"|"folder"|"any" Which entries count; `"file"` (all that are not folders) unless given.

---@class (exact) setpoint.fs.ReadOptions
---@field max? string|number Most bytes, e.g. `"64KiB"`; the host's `body` limit (4 MiB) unless given. A larger file raises.

---Counts and reads files below the policy's own folder and the folders that the host allows (`[policy] read_dirs`). Relative paths start at the policy's folder. Reads only. What does not exist raises, but for `exists`.
---@class setpoint.fs
local fs = {}

---How many entries of a folder match a pattern such as `*.job` (`*` unless given; names with a leading dot only match a pattern with one). While a file loads: 0.
---@param folder string
---@param pattern? string
---@param options? setpoint.fs.Options
---@return integer
function fs.count(folder, pattern, options) end

---The names of the entries that match, sorted; more than 10,000 raise. While a file loads: an empty list.
---@param folder string
---@param pattern? string
---@param options? setpoint.fs.Options
---@return string[]
function fs.list(folder, pattern, options) end

---The content of a file. While a file loads: an empty text.
---@param path string
---@param options? setpoint.fs.ReadOptions
---@return string
function fs.read(path, options) end

---The lines of a file without their ends. While a file loads: an empty list.
---@param path string
---@param options? setpoint.fs.ReadOptions
---@return string[]
function fs.lines(path, options) end

---Whether there is such a file or folder. While a file loads: false.
---@param path string
---@return boolean
function fs.exists(path) end

---The bytes of a file. While a file loads: 0.
---@param path string
---@return integer
function fs.size(path) end

---When a file or folder was last changed, in seconds since 1970. While a file loads: 0.
---@param path string
---@return number
function fs.mtime(path) end

---@class (exact) setpoint.http.Options
---@field headers? table<string, string|setpoint.Secret>
---@field query? table<string, string|number|boolean> Added to the URL's own query, encoded.
---@field body? string
---@field json? any Sent as JSON, with its content type. Not together with `body`.
---@field basic? setpoint.http.Basic
---@field bearer? string|setpoint.Secret
---@field timeout? string|number For all of it, redirects too: `"5s"` unless given; the tick's deadline holds anyway.
---@field max_body? string|number Most bytes of the answer, e.g. `"64KiB"`; the host's `body` limit (4 MiB) unless given.
---@field follow? boolean Whether to follow redirects, at most 5; true unless given. Secrets stay with the first origin.

---@class (exact) setpoint.http.Basic
---@field user string
---@field password string|setpoint.Secret

---HTTP requests. Connections are kept and shared. A connection that fails, an answer that is late or too large, and a host that the configuration does not allow raise; a status never does by itself.
---@class setpoint.http
local http = {}

---A GET request. While a file loads: status 200 and an empty body.
---@param url string
---@param options? setpoint.http.Options
---@return setpoint.http.Response
function http.get(url, options) end

---A HEAD request. While a file loads: status 200.
---@param url string
---@param options? setpoint.http.Options
---@return setpoint.http.Response
function http.head(url, options) end

---A POST request. In a dry run: status 200, an empty body, `stub = true`. Only in warmer, cooler, drain and stop.
---@param url string
---@param options? setpoint.http.Options
---@return setpoint.http.Response
function http.post(url, options) end

---A PUT request. In a dry run: status 200, an empty body, `stub = true`. Only in warmer, cooler, drain and stop.
---@param url string
---@param options? setpoint.http.Options
---@return setpoint.http.Response
function http.put(url, options) end

---A PATCH request. In a dry run: status 200, an empty body, `stub = true`. Only in warmer, cooler, drain and stop.
---@param url string
---@param options? setpoint.http.Options
---@return setpoint.http.Response
function http.patch(url, options) end

---A DELETE request. In a dry run: status 200, an empty body, `stub = true`. Only in warmer, cooler, drain and stop.
---@param url string
---@param options? setpoint.http.Options
---@return setpoint.http.Response
function http.delete(url, options) end

---A request by any of these methods, or OPTIONS. GET and HEAD are reads here too, the others only for warmer, cooler, drain and stop.
---@param method string
---@param url string
---@param options? setpoint.http.Options
---@return setpoint.http.Response
function http.request(method, url, options) end

---@class (exact) setpoint.http.Response
---@field status integer
---@field ok boolean Whether the status is 2xx.
---@field headers table<string, string> Names in lower case.
---@field body string
---@field url string Where the answer came from, without its query.
---@field stub? boolean True when nothing was sent: in a dry run, or while a file loads.
local Response = {}

---The body as JSON. Raises unless the status is 2xx. A stub gives an empty table.
---@return any
function Response:json() end

---The body as a finite number, white space around it ignored. Raises unless the status is 2xx. A stub gives 0.
---@return number
function Response:number() end

---JSON text to Lua values and back.
---@class setpoint.json
---@field null lightuserdata JSON's null: what `decode` gives for it and `encode` takes for it. Not nil, and true in a condition.
local json = {}

---The value of a JSON text. Objects and arrays become tables, null becomes `json.null`. At most 64 levels deep and as long as the host's `body` limit; anything that is not JSON raises, with line and column.
---@param text string
---@return any
function json.decode(text) end

---JSON without spaces, keys in order. A table with the keys 1 to n is an array, one with only string keys an object, an empty one an object unless `json.array` marked it. NaN, infinities, functions, handles, cycles and tables of mixed keys raise.
---@param value any
---@return string
function json.encode(value) end

---Marks a table (or a new one) as an array, so that it is `[]` when it is empty. Returns the table.
---@param list? table
---@return table
function json.array(list) end

---Lines in the host's log, with the policy's name. Fields are written as `key=value` after the message. A call may log 16 KiB unless the host says otherwise; what goes beyond is dropped, which the log says once.
---@class setpoint.log
local log = {}

---Details for a closer look (`-v`).
---@param message string
---@param fields? table<string, string|number|boolean>
function log.debug(message, fields) end

---Something worth knowing happened.
---@param message string
---@param fields? table<string, string|number|boolean>
function log.info(message, fields) end

---Something is odd; the policy goes on.
---@param message string
---@param fields? table<string, string|number|boolean>
function log.warn(message, fields) end

---Something failed.
---@param message string
---@param fields? table<string, string|number|boolean>
function log.error(message, fields) end

---@class (exact) setpoint.math.Wave
---@field period? number Length of one period, in the unit of `t`.
---@field base? number The middle of a sine.
---@field amplitude? number How far a sine goes from its base.
---@field phase? number Shift, as a fraction of the period.
---@field high? number First part of a square wave.
---@field low? number Second part of a square wave.
---@field duty? number Which fraction of the period is high.

---Averages, percentiles and waves. Lists are of numbers, or of points as in `ctx.history` (their values count).
---@class setpoint.math
local math = {}

---The mean; nil for no values.
---@param values number[]|setpoint.Point[]
---@return number?
function math.mean(values) end

---The standard deviation of a sample (n − 1); 0 for one value, nil for none.
---@param values number[]|setpoint.Point[]
---@return number?
function math.stddev(values) end

---The p-th percentile (0 to 100), interpolated between neighbours; nil for no values.
---@param values number[]|setpoint.Point[]
---@param p number
---@return number?
function math.percentile(values, p) end

---Exponentially weighted mean, oldest first: each value counts `alpha` (above 0, at most 1) against what came before it; nil for no values.
---@param values number[]|setpoint.Point[]
---@param alpha number
---@return number?
function math.ewma(values, alpha) end

---x, but at least `low` and at most `high`.
---@param x number
---@param low number
---@param high number
---@return number
function math.clamp(x, low, high) end

---From a (t = 0) to b (t = 1), and beyond in the same line.
---@param a number
---@param b number
---@param t number
---@return number
function math.lerp(a, b, t) end

---x to so many decimal places (0 unless given, at most 15), halves away from zero.
---@param x number
---@param digits? integer
---@return number
function math.round(x, digits) end

---base + amplitude · sin(2π(t/period + phase)). Defaults are Relay's sine target: period 200, base 60, amplitude 50.
---@param t number
---@param wave? setpoint.math.Wave
---@return number
function math.sine(t, wave) end

---`high` for the first `duty` of each period, then `low`. Defaults are Relay's square target: period 300, high 50, low 20, duty 0.5.
---@param t number
---@param wave? setpoint.math.Wave
---@return number
function math.square(t, wave) end

---A sine with half as much of its third harmonic on top. Defaults are Relay's oscillating target: period 1000, base 20, amplitude 10.
---@param t number
---@param wave? setpoint.math.Wave
---@return number
function math.oscillating(t, wave) end

---@class (exact) setpoint.memcached.Options
---@field timeout? string|number For the connection and the answer together: `"1s"` unless given; the tick's deadline holds anyway.

---What memcached servers count. A server that cannot be reached or does not answer raises.
---@class setpoint.memcached
local memcached = {}

---The server's `stats` by name (`cmd_get`, `cmd_set`, `bytes`, `curr_items`, `evictions` …): what is a number is one. Counters begin anew when the server does. While a file loads: an empty table.
---@param host string
---@param port integer
---@param options? setpoint.memcached.Options
---@return table<string, number|string>
function memcached.stats(host, port, options) end

---@class (exact) setpoint.mesos.Cluster What is used is what was given out, by the master's books.
---@field leader? string `host:port` of the leading master.
---@field version string
---@field agents integer Active ones.
---@field frameworks integer Active ones.
---@field tasks integer Alive, of all frameworks.
---@field cpus number Cores of all active agents.
---@field cpus_used number
---@field cpus_percent? number nil when there are none; likewise below.
---@field memory number Bytes.
---@field memory_used number
---@field memory_percent? number
---@field disk number Bytes.
---@field disk_used number
---@field disk_percent? number
---@field gpus number
---@field gpus_used number
---@field gpus_percent? number

---@class (exact) setpoint.mesos.Which
---@field name? string|string[] Names of tasks; `*` stands for anything, and one of them must match.
---@field framework? string|string[] Names or ids of frameworks, likewise.
---@field role? string|string[] Likewise.
---@field agent? string|string[] Host names of agents, likewise.

---@class (exact) setpoint.mesos.Task
---@field id string
---@field name string
---@field framework string Its name.
---@field framework_id string
---@field state string `staging`, `starting`, `running` or `killing`.
---@field agent string The host name.
---@field role? string
---@field cpus number Cores that it was given.
---@field memory number Bytes that it was given.
---@field labels table<string, string>
---@field started? number Seconds since 1970.

---@class (exact) setpoint.mesos.Stats: setpoint.mesos.Task
---@field cpu_percent? number Share of one core since the policy asked before.
---@field memory_bytes? integer In use, without page cache.
---@field memory_limit? integer
---@field memory_percent? number Of the limit.
---@field shared_by integer Running tasks that are measured together, those of its executor: each has an equal part.

---@class (exact) setpoint.mesos.Usage
---@field tasks integer Alive.
---@field running integer
---@field measured integer Those that run and whose CPU is known.
---@field cpus number Cores that they were given.
---@field memory number Bytes that they were given.
---@field cpu_percent? number Of all that run together; nil while that of one is not known.
---@field cpu_percent_mean? number Of those whose CPU is known.
---@field memory_bytes? number Of all that run together; nil while that of one is not known.
---@field memory_bytes_mean? number Of those whose memory is known.

---The Mesos cluster of the host's `[mesos]`: as a whole, and the tasks of every framework. What the master and the agents say is shared for half a second after it came. A master or an agent that does not answer raises, because a part would pass for the whole.
---@class setpoint.mesos
local mesos = {}

---The cluster as a whole. While a file loads: an empty cluster.
---@return setpoint.mesos.Cluster
function mesos.cluster() end

---Tasks that are alive, by name; those on agents out of reach are left out. While a file loads: an empty list.
---@param which? setpoint.mesos.Which
---@return setpoint.mesos.Task[]
function mesos.tasks(which) end

---The same with what those that run use. A figure that is not known (yet) is nil: CPU needs two calls, and each policy has its own; agents do not measure what setpoint's executor has a container engine run. While a file loads: an empty list.
---@param which? setpoint.mesos.Which
---@return setpoint.mesos.Stats[]
function mesos.stats(which) end

---What tasks use together: the CPU of all instances of a service, for one. While a file loads: that of no tasks.
---@param which? setpoint.mesos.Which
---@return setpoint.mesos.Usage
function mesos.usage(which) end

---@class (exact) setpoint.process.Filter
---@field name? string The program's name as the kernel keeps it: its first 15 characters.
---@field command? string A part of the command line, as it is.

---@class (exact) setpoint.process.Process
---@field pid integer
---@field parent integer
---@field name string
---@field started number Seconds since 1970.
---@field cpu_seconds number CPU time used so far.
---@field memory integer Resident bytes.

---@class (exact) setpoint.process.Memory
---@field total integer Bytes, as all of these.
---@field available integer What can be had without swapping.
---@field used integer total − available.
---@field swap_total integer
---@field swap_free integer
---@field used_percent number

---@class (exact) setpoint.process.Load
---@field one number Over the last minute.
---@field five number Over five minutes.
---@field fifteen number Over fifteen minutes.

---Processes and load of the machine that setpoint runs on (Linux). setpoint itself and zombies are left out.
---@class setpoint.process
local process = {}

---How many processes there are whose command line holds a text, or that a filter names. While a file loads: 0.
---@param filter? string|setpoint.process.Filter
---@return integer
function process.count(filter) end

---Those processes, by pid; more than 10,000 raise. While a file loads: an empty list.
---@param filter? string|setpoint.process.Filter
---@return setpoint.process.Process[]
function process.list(filter) end

---How busy all cores were, 0 to 100, since the policy file asked before (at least 0.2 s ago). The first call gives nil.
---@return number?
function process.cpu_percent() end

---The kernel's load averages. While a file loads: zeros.
---@return setpoint.process.Load
function process.loadavg() end

---Memory of the machine. While a file loads: zeros.
---@return setpoint.process.Memory
function process.memory() end

---@class (exact) setpoint.prometheus.Options
---@field headers? table<string, string|setpoint.Secret>
---@field basic? setpoint.http.Basic
---@field bearer? string|setpoint.Secret
---@field timeout? string|number `"5s"` unless given; the tick's deadline holds anyway.
---@field time? number When to evaluate, in seconds since 1970; the server's now unless given.
---@field reduce? "sum"|"avg"|"min"|"max" What `query` makes of several series; without it they raise.

---@class (exact) setpoint.prometheus.Series
---@field labels table<string, string>
---@field value number NaN and infinities as the server gave them.
---@field time number When it was evaluated, in seconds since 1970.

---Instant queries in PromQL.
---@class setpoint.prometheus
local prometheus = {}

---The one value of an expression; `url` is the server's, as in `"http://127.0.0.1:9090"`. Nil when there is no series. While a file loads: nil.
---@param url string
---@param expression string
---@param options? setpoint.prometheus.Options
---@return number?
function prometheus.query(url, expression, options) end

---All series of an expression, in the server's order. While a file loads: an empty list.
---@param url string
---@param expression string
---@param options? setpoint.prometheus.Options
---@return setpoint.prometheus.Series[]
function prometheus.query_all(url, expression, options) end

---@class (exact) setpoint.redis.Options
---@field user? string
---@field password? string|setpoint.Secret
---@field timeout? string|number For connecting and each reply: `"5s"` unless given; the tick's deadline holds anyway.

---@class (exact) setpoint.redis.SetOptions
---@field ex? string|number When the key expires, e.g. `"60s"`.
---@field nx? boolean Only when the key does not exist.

---Redis. Connections are shared and made again when they break. A server that cannot be reached or answers with an error raises; so does a host that the configuration does not allow.
---@class setpoint.redis
local redis = {}

---A handle of a server: `redis://host:port/database`. It connects at the first command.
---@param url string
---@param options? setpoint.redis.Options
---@return setpoint.redis.Client
function redis.connect(url, options) end

---@class setpoint.redis.Client
local Client = {}

---The length of a list; 0 when there is none. While a file loads: 0.
---@param key string
---@return integer
function Client:llen(key) end

---The number of members of a set; 0 when there is none. While a file loads: 0.
---@param key string
---@return integer
function Client:scard(key) end

---The number of members of a sorted set; 0 when there is none. While a file loads: 0.
---@param key string
---@return integer
function Client:zcard(key) end

---The number of entries of a stream; 0 when there is none. While a file loads: 0.
---@param key string
---@return integer
function Client:xlen(key) end

---The number of fields of a hash; 0 when there is none. While a file loads: 0.
---@param key string
---@return integer
function Client:hlen(key) end

---Whether there is such a key. While a file loads: false.
---@param key string
---@return boolean
function Client:exists(key) end

---A key's text, or nil. While a file loads: nil.
---@param key string
---@return string?
function Client:get(key) end

---Sets a key; false when `nx` kept it from that. In a dry run: true. Only in warmer, cooler, drain and stop.
---@param key string
---@param value string|number
---@param options? setpoint.redis.SetOptions
---@return boolean
function Client:set(key, value, options) end

---Any other command. Those that only read (LRANGE, HGET, ZCOUNT, INFO …) are reads; all others are effects, only for warmer, cooler, drain and stop, and give nil in a dry run. Commands that block, subscribe, change the connection or walk all keys are refused. Lists become tables, in which false stands for nil.
---@param name string
---@param ... string|number
---@return any
function Client:command(name, ...) end

---@class (exact) setpoint.Secret A handle. `tostring` gives `secret(NAME)`; the value itself never reaches a script.

---Secrets of the host's configuration, as handles that can be used and not read.
---@class setpoint.secret
local secret = {}

---A handle of a secret that the host's configuration names. It can be given to `http` as a header's value, a bearer token or a password, and to `redis` as a password. Raises when the host has no such secret; while a file loads, that shows at the first use instead.
---@param name string
---@return setpoint.Secret
function secret.get(name) end

---@class (exact) setpoint.sqs.Options
---@field access_key string|setpoint.Secret The id of an access key.
---@field secret_key setpoint.Secret The secret of that key; text is refused.
---@field session_token? setpoint.Secret Of temporary credentials; text is refused.
---@field region? string Where the queue's URL does not tell it.
---@field timeout? string|number `"5s"` unless given; the tick's deadline holds anyway.

---@class (exact) setpoint.sqs.Depth
---@field visible integer Messages that can be received: ApproximateNumberOfMessages.
---@field in_flight integer Received and neither deleted nor back: ApproximateNumberOfMessagesNotVisible.
---@field delayed integer Not to be received yet: ApproximateNumberOfMessagesDelayed.

---Queues of Amazon SQS, and of servers that speak its API.
---@class setpoint.sqs
local sqs = {}

---How many messages a queue holds, about; `url` is the queue's, as in `"https://sqs.eu-west-1.amazonaws.com/123456789012/jobs"`. Raises with the service's own words when it refuses: an unknown queue, a wrong key, a wrong signature. Needs the right sqs:GetQueueAttributes. While a file loads: zeros.
---@param url string
---@param options setpoint.sqs.Options
---@return setpoint.sqs.Depth
function sqs.depth(url, options) end

---@class (exact) setpoint.time.Date
---@field year integer
---@field month integer 1 to 12.
---@field day integer 1 to 31.
---@field hour integer 0 to 23.
---@field minute integer 0 to 59.
---@field second integer 0 to 59.
---@field weekday integer 1 is Monday, 7 is Sunday.
---@field yday integer Day of the year, from 1.
---@field offset integer Seconds east of UTC.
---@field zone string Abbreviation in force, e.g. `CEST`.

---The tick's clock, dates in a time zone, and durations. Times are seconds since 1970, with fractions.
---@class setpoint.time
local time = {}

---When this tick began, in seconds since 1970; the same as `ctx.now`.
---@return number
function time.now() end

---`2026-01-01T00:00:00.000Z` for a time, or for now.
---@param seconds? number
---@return string
function time.iso(seconds) end

---Seconds since 1970 of an RFC 3339 text such as `2026-01-01T01:00:00+01:00`. Raises when it is not one.
---@param text string
---@return number
function time.parse(text) end

---The date and time of day of a time (nil is now) in an IANA time zone such as `Europe/Berlin` (UTC unless given).
---@param seconds? number
---@param zone? string
---@return setpoint.time.Date
function time.zoned(seconds, zone) end

---Seconds of a duration such as `"90s"` or `"1h30m"`; units are ms, s, m, h and d.
---@param text string
---@return number
function time.duration(text) end

---@class (exact) setpoint.xml.Element
---@field name string
---@field attributes table<string, string>
---@field children setpoint.xml.Element[] Its elements, in order.
---@field text string Its own text, that of its children left out, without white space at both ends.

---XML text to tables. Names are local ones: prefixes of namespaces are dropped.
---@class setpoint.xml
local xml = {}

---The root element of a document. At most 64 levels deep and as long as the host's `body` limit; anything that is not well-formed raises, with where.
---@param text string
---@return setpoint.xml.Element
function xml.decode(text) end

---The first element below one, by its path of names; `*` is any name. Nil when there is none.
---@param element setpoint.xml.Element
---@param path string
---@return setpoint.xml.Element?
function xml.find(element, path) end

---All elements below one that a path of names leads to, in the document's order; `*` is any name.
---@param element setpoint.xml.Element
---@param path string
---@return setpoint.xml.Element[]
function xml.find_all(element, path) end
