-- thermostat.lua: hold the number of its own short-lived tasks at a target that stands still or moves.
--   setpoint run thermostat
--   setpoint run thermostat --set shape=square --set law=relay
--
-- Every task sleeps for 5 to 10 seconds and is gone, so the loop has to launch all the time to stay where it is.
-- Needs nothing but a POSIX shell. The shapes are those of Relay's demos; their periods count samples: at the
-- interval of 100 ms, ten samples are a second.

local waves = require("setpoint.math")

local p = require("setpoint.params")({
  shape = "oscillating", -- fixed, oscillating (9 to 31), square (50, then 20) or sine (10 to 110)
  target = 20, -- of the fixed shape
  law = "proportional", -- or relay
  max = 120,
})

-- Each gives the setpoint of sample n.
local shapes = {
  fixed = function()
    return p.target
  end,
  oscillating = waves.oscillating,
  square = waves.square,
  sine = waves.sine,
}

local shape = shapes[p.shape]
if not shape then
  error("shape: expected fixed, oscillating, square or sine, got " .. p.shape)
end

---@type setpoint.Policy
return {
  interval = "100ms",
  workload = {
    kind = "jobs", -- a task that ends is gone, and the law decides what comes next
    effect = "heats", -- one more task raises the metric by one
    max = p.max,
    grace = "1s",
    -- The process id makes lives of 5.0 to 9.9 seconds, without another process to throw the dice.
    command = 'exec sleep "$((5 + $$ % 5)).$(($$ / 5 % 10))"',
  },
  control = { law = p.law },
  metric = function(ctx)
    return ctx.running
  end,
  -- There are no half tasks to ask for.
  target = function(ctx)
    return waves.round(shape(ctx.tick))
  end,
}
