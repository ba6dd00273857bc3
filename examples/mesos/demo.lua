-- demo.lua: Relay.Mesos's demo: tasks that live for 5 to 14 seconds, held at a number that moves between 9 and 31.

local waves = require("setpoint.math")

---@type setpoint.Policy
return {
  interval = "100ms",
  workload = {
    backend = "mesos",
    executor = "setpoint",
    kind = "jobs", -- a task that ends is gone, and the law decides what comes next
    effect = "heats",
    max = 60,
    cpus = 0.1,
    memory = "1MiB",
    grace = "1s",
    command = 'exec sleep "$((5 + $$ % 10))"',
    mesos = { place = "spread" },
  },
  control = { law = "proportional" },
  metric = function(ctx)
    return ctx.running
  end,
  target = function(ctx)
    return waves.round(waves.oscillating(ctx.tick))
  end,
}
