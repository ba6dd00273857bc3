-- thermostat.lua: hold the number of its own short-lived tasks at a target that stands still or moves.
--   setpoint run thermostat
--   setpoint run thermostat --set shape=square --set law=relay
--
-- Every task sleeps for 5 to 10 seconds and is gone, so the loop has to launch all the time to stay where it is.
-- Needs nothing but a POSIX shell. The shapes are those of Relay's demos; their periods count samples, so with the
-- default interval of 100 ms ten samples are a second.

local p = require("setpoint.params")({
  shape = "fixed", -- fixed, oscillating (9 to 31), square (50, then 20) or sine (10 to 110)
  target = 20, -- of the fixed shape
  law = "proportional", -- or relay
  interval = "100ms",
  max = 120,
})

local function wave(turns)
  return math.sin(2 * math.pi * turns)
end

-- Each gives the setpoint of sample n.
local shapes = {
  fixed = function()
    return p.target
  end,
  oscillating = function(n)
    return 20 + 10 * wave(n / 1000) + 5 * wave(3 * n / 1000)
  end,
  square = function(n)
    return n % 300 < 150 and 50 or 20
  end,
  sine = function(n)
    return 60 + 50 * wave(n / 200)
  end,
}

local shape = shapes[p.shape]
if not shape then
  error("shape must be fixed, oscillating, square or sine, not " .. p.shape)
end

return {
  interval = p.interval,
  workload = {
    kind = "jobs", -- a task that ends is gone, and the law decides what comes next
    effect = "heats", -- one more task raises the metric by one
    min = 0,
    max = p.max,
    grace = "1s",
    -- Two bytes of chance make a life of 5.0 to 9.9 seconds.
    command = 'n=$(od -An -N2 -tu2 /dev/urandom); exec sleep "$((5 + n % 5)).$((n / 5 % 10))"',
  },
  control = p.law == "relay" and { law = "relay" } or { law = p.law, per_task = 1 },
  metric = function(ctx)
    return ctx.running
  end,
  target = function(ctx)
    return shape(ctx.tick)
  end,
}
