-- NAME.lua: keep the folder jobs/ empty with between 0 and 8 workers.
--   mkdir -p jobs done && setpoint run NAME.lua
--
-- Every second the host asks `metric` how many files wait, compares that with `target`, and launches or kills workers
-- until there are as many as the work asks for. Save this file while it runs: the next tick uses the new version.

local fs = require("setpoint.fs")

-- Parameters have defaults, which also give their types. `--set max=20` changes one from outside.
local p = require("setpoint.params")({
  max = 8, -- most workers at once
  per_worker = 5, -- waiting files that are worth one worker
})

---@type setpoint.Policy
return {
  interval = "1s",

  -- What is launched. A command that is a string goes to `sh -c`; a list is run as it is.
  workload = {
    backend = "local",
    command = [[for job in jobs/*; do if mv "$job" done/ 2>/dev/null; then sleep 1; fi; done]],
    kind = "jobs", -- a worker that has found no more work ends; "service" would replace it
    effect = "cools", -- more workers lower the metric; "heats" is for metrics that they raise
    min = 0,
    max = p.max,
    grace = "5s", -- between TERM and KILL
  },

  -- How a deviation becomes a number of workers, and what keeps it from doing so too eagerly.
  control = {
    per_task = p.per_worker,
    tolerance = 0, -- deviations up to this are left alone
    cooldown = { up = "2s" },
  },

  -- What is measured. nil means that there is no figure now; then nothing is ever scaled in.
  metric = function(ctx)
    return fs.count("jobs")
  end,

  -- What it should be: a number or a function.
  target = 0,
}
