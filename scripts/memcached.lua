-- memcached.lua: a group of memcached servers that grows as they fill up.
--   setpoint run memcached --set image=memcached:1.6 --set max=8
--   setpoint run memcached --set backend=swarm --set image=memcached:1.6 --set memory=1024 --set scale_in=500
--   setpoint run memcached --set backend=mesos --set image=memcached:1.6 --set executor=setpoint
--
-- One server more, at most one in `throttle`, when on average they use more than `memory_high` percent of their memory
-- or more than `cpu_high` percent of a core: a cache that grows too fast loses its contents to the consistent hash.
-- Memory is never handed back, so it says nothing about how few would do; with `scale_in` the newest server goes when
-- the others would each have fewer requests a second than that, and never two within `scale_in_cooldown`.
-- Clients find the servers at /v1/services (?format=mcrouter keeps the hash stable), or where `[services] listen` says.
-- Needs an image whose entrypoint takes memcached's options, as the official one's does; or, with backend=local,
-- memcached itself.

local memcached = require("setpoint.memcached")
local time = require("setpoint.time")

local p = require("setpoint.params")({
  backend = "docker", -- docker, swarm, mesos or local
  executor = "", -- on Mesos: "setpoint", or empty for the cluster's own
  image = "memcached:1.6",
  memory = 64, -- MiB of one server, of which its items get nine tenths
  cpus = 1, -- cores that one server may use
  min = 1,
  max = 10,
  memory_high = 80, -- percent of `memory`
  cpu_high = 30, -- percent of a core
  throttle = "1m", -- between two launches
  scale_in = 0, -- requests a second of each server; 0 is never
  scale_in_cooldown = "30m",
  interval = "5s",
})

-- Nine tenths for items; the server itself takes a few MiB more than they do, which counts where it is small.
local items = tostring(math.floor(math.max(1, math.min(0.9 * p.memory, p.memory - 6))))

local command = { "-m", items }
if p.backend == "local" then
  local user = '$([ "$(id -u)" != 0 ] || echo -u nobody)'
  command = "exec memcached " .. user .. ' -l 127.0.0.1 -p "$PORT_MEMCACHED" -U 0 -m ' .. items
end

-- The average over the servers that can be used and have that figure; nil while none has.
local function average(tasks, figure)
  local sum, n = 0, 0
  for _, task in ipairs(tasks) do
    local value = task.state == "running" and task.ready and figure(task)
    if value then
      sum, n = sum + value, n + 1
    end
  end
  return n > 0 and sum / n or nil
end

-- Whether a server was launched within `throttle`: the first one, or a replacement, is to fill up too.
local function has_young(ctx)
  for _, task in ipairs(ctx.tasks) do
    if ctx.now - task.started < time.duration(p.throttle) then
      return true
    end
  end
  return false
end

local counted = {} -- server → its requests so far, and when

-- Requests a second of all servers together; nil while that of one is not known.
local function request_rate(ctx)
  local before, rate = counted, 0
  counted = {}
  for _, task in ipairs(ctx.tasks) do
    if task.state == "running" then
      local ok, stats = pcall(memcached.stats, task.host or "127.0.0.1", task.ports.memcached)
      local requests = ok and stats.cmd_get and stats.cmd_get + stats.cmd_set
      local last = before[task.id]
      if requests then
        counted[task.id] = { requests = requests, at = ctx.now }
      end
      local known = rate and requests and last and last.requests <= requests and last.at < ctx.now
      rate = known and rate + (requests - last.requests) / (ctx.now - last.at) or nil
    end
  end
  return rate
end

local load -- what was measured last: 1 is when another server is due

---@type setpoint.Policy
return {
  interval = p.interval,
  workload = {
    backend = p.backend,
    image = p.backend ~= "local" and p.image or nil,
    command = command,
    executor = p.executor ~= "" and p.executor or nil,
    ports = { memcached = 11211 },
    memory = p.memory .. "MiB",
    cpus = p.cpus,
    effect = "cools",
    min = p.min,
    max = p.max,
    grace = "5s",
  },
  control = { law = "decide", cooldown = { up = p.throttle, down = p.scale_in_cooldown } },
  target = 1,
  metric = function(ctx)
    local memory = average(ctx.tasks, function(task)
      return task.memory and task.memory / (p.memory * 1048576) * 100
    end)
    local cpu = average(ctx.tasks, function(task)
      return task.cpu
    end)
    load = memory and math.max(memory / p.memory_high, (cpu or 0) / p.cpu_high)
    return load
  end,
  decide = function(ctx)
    local rate = p.scale_in > 0 and request_rate(ctx)
    if load and load > 1 and ctx.in_flight == 0 and not has_young(ctx) then
      return { adjust = 1 }
    end
    if rate and ctx.in_flight == 0 and ctx.running > 1 and rate / (ctx.running - 1) < p.scale_in then
      return { adjust = -1 }
    end
    return { adjust = 0 }
  end,
  simulate = {
    -- The load is what there is to be kept, in MiB.
    metric = function(ctx)
      local full = ctx.running > 0 and math.min(100, 100 * ctx.trace / ctx.running / p.memory)
      load = full and full / p.memory_high or nil
      return load
    end,
  },
}
