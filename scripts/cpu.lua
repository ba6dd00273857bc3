-- cpu.lua: hold the CPU of a group of containers, or of the machine, at a value by adding and removing tasks.
--   setpoint run cpu --set backend=docker --set image=shop/web --set target=50
--   setpoint run cpu --set of=containers --set project=shop --set service=web --set image=shop/web
--   setpoint run cpu --set of=machine --set target=60 --set command='nice ./crunch'
--   setpoint run cpu --set of=machine --set target=40
--
-- of=tasks: its own tasks share a load, and each is to have `target` percent of a core of it.
-- of=containers: the same, where containers that others started (by name, label, Compose project or service; of the
-- engines in `engine`, or all) take their part of the load too.
-- of=machine: tasks are work that may as well wait; as many of them run as keep all cores together `target` percent
-- busy. Without a command they are Relay's example: a warmer that burns CPU while there is too little of it.
-- A figure that cannot be had is missing, and then nothing is changed.

local docker = require("setpoint.docker")
local process = require("setpoint.process")

local p = require("setpoint.params")({
  of = "tasks", -- tasks, containers or machine
  target = 50, -- percent: of one core for each task, or of the whole machine
  tolerance = 10, -- points on either side
  min = 0,
  max = 10,
  interval = "2s",
  settle = 5, -- seconds that a change takes to show in the figures
  wait = "30s", -- how long fewer tasks must have been enough before one goes
  backend = "local", -- local or docker
  image = "",
  command = "", -- for `sh -c`; empty: the image's own, or burning CPU
  cpus = 0, -- cores that one task may use; 0: as many as there are
  memory = "",
  network = "",
  name = "", -- of containers that share the load; `*` stands for anything
  label = "", -- "key" or "key=value"
  project = "",
  service = "",
  engine = "",
})

if p.of ~= "tasks" and p.of ~= "containers" and p.of ~= "machine" then
  error("of: expected tasks, containers or machine, got " .. p.of)
end

-- Empty text stands for nothing at all.
local function given(text)
  if text ~= "" then
    return text
  end
  return nil
end

local which = {
  name = given(p.name),
  label = given(p.label),
  project = given(p.project),
  service = given(p.service),
  engine = given(p.engine),
}
if p.of == "containers" and next(which) == nil then
  error("of=containers: expected a name, label, project, service or engine")
end

local burner = "while :; do :; done"

local workload = {
  backend = p.backend,
  image = given(p.image),
  command = given(p.command) or (p.image == "" and burner or nil),
  cpus = p.cpus > 0 and p.cpus or nil,
  memory = given(p.memory),
  network = given(p.network),
  min = p.min,
  max = p.max,
}

if p.of == "machine" then
  workload.effect = "heats"
  ---@type setpoint.Policy
  return {
    interval = p.interval,
    workload = workload,
    -- One at a time: what a task is worth depends on the machine.
    control = {
      law = "proportional",
      tolerance = p.tolerance,
      step = { up = 1, down = 1 },
      cooldown = p.settle .. "s",
      per_task = 1,
    },
    metric = function()
      return process.cpu_percent()
    end,
    target = p.target,
    simulate = {
      -- The load is how busy others keep the machine, and each task adds a tenth of it.
      metric = function(ctx)
        return math.min(100, ctx.trace + 10 * ctx.running)
      end,
    },
  }
end

-- Containers of others that share the load now, and all CPU that was used, in percent of a core; nil: not all is known.
local others, used

local function measure(ctx)
  others, used = 0, 0
  local own = {}
  for _, task in ipairs(ctx.tasks) do
    if task.state == "running" then
      own[task.container or ""] = true
      used = task.cpu and used and used + task.cpu or nil
    end
  end
  if p.of == "containers" then
    for _, container in ipairs(docker.stats(which)) do
      if not own[container.id] and container.labels["setpoint.task"] == nil then
        others = others + 1
        used = container.cpu_percent and used and used + container.cpu_percent or nil
      end
    end
  end
end

---@type setpoint.Policy
return {
  interval = p.interval,
  workload = workload,
  control = { law = "decide", stabilization = { down = p.wait } },
  metric = function(ctx)
    used = nil
    measure(ctx)
    local count = others + ctx.running
    if used == nil or count == 0 then
      return nil
    end
    return used / count
  end,
  target = p.target,
  decide = function(ctx)
    local count = others + ctx.running
    local sample = used and used / count
    if sample == nil or math.abs(sample - p.target) <= p.tolerance or ctx.in_flight ~= 0 then
      return { adjust = 0 }
    end
    for _, task in ipairs(ctx.tasks) do
      if task.age < p.settle then
        return { adjust = 0 }
      end
    end
    -- As many as bring each nearest to the target.
    local fewer = math.max(1, math.floor(used / p.target))
    local nearer = math.abs(used / fewer - p.target) <= math.abs(used / (fewer + 1) - p.target)
    return { desired = math.max(0, (nearer and fewer or fewer + 1) - others) }
  end,
  simulate = {
    -- The load is what all together use, in percent of a core; with of=containers one of them is another's.
    metric = function(ctx)
      others, used = p.of == "containers" and 1 or 0, ctx.trace
      local count = others + ctx.running
      return count > 0 and used / count or nil
    end,
  },
}
