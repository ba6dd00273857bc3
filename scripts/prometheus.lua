-- prometheus.lua: as many tasks as a PromQL expression asks for.
--   setpoint run prometheus --set query='sum(rate(http_requests_total{job="web"}[1m]))' --set target=100
--     --set backend=docker --set image=shop/web --set max=20
--   setpoint run prometheus --set query='avg(web_cpu_percent)' --set of=average --set target=60 --set command=./web
--
-- With of=total the expression is a load that the tasks share, and each is to have `target` of it; with of=average it
-- is an average over the tasks, and held at `target`. No series is no sample, and neither is a server that does not
-- answer: nothing is changed then. Several series are an error, unless `reduce` says what to make of them.
-- Works with Prometheus and with whatever speaks its API. `password` and `token` are names of secrets of setpoint.toml.

local prometheus = require("setpoint.prometheus")
local secret = require("setpoint.secret")

local p = require("setpoint.params")({
  url = "http://127.0.0.1:9090",
  query = "sum(rate(http_requests_total[1m]))",
  reduce = "", -- of several series: sum, avg, min or max
  user = "", -- with `password`: basic authentication
  password = "", -- a secret's name
  token = "", -- a secret's name: bearer authentication
  of = "total", -- or average
  target = 100,
  tolerance = "10%", -- of the target
  min = 1,
  max = 10,
  wait = "5m", -- how long fewer must have been enough before one goes
  lag = "0s", -- of=average: from a task's start to its full effect in the expression, scraping and `[1m]` included
  interval = "15s",
  timeout = "5s",
  backend = "local", -- local, docker or mesos
  executor = "", -- on Mesos: "setpoint", or empty for the cluster's own
  command = "", -- for `sh -c`; empty: the image's own, or one that only sleeps
  image = "", -- container image; empty: a plain command
  cpus = 0.1,
  memory = "64MiB",
  port = 0, -- a port that a task listens on, called `http` and told as $PORT_HTTP; 0: none
})

if p.of ~= "total" and p.of ~= "average" then
  error("of: expected total or average, got " .. p.of)
end

-- Empty text stands for nothing at all.
local function given(text)
  if text ~= "" then
    return text
  end
  return nil
end

local asleep = "exec sleep 86400"

---@type setpoint.Policy
return {
  interval = p.interval,
  workload = {
    backend = p.backend,
    executor = given(p.executor),
    command = given(p.command) or (p.image == "" and asleep or nil),
    image = given(p.image),
    cpus = p.cpus,
    memory = p.memory,
    ports = p.port > 0 and { http = p.port } or nil,
    effect = "cools",
    min = p.min,
    max = p.max,
  },
  control = {
    law = p.of == "total" and "decide" or "adaptive",
    tolerance = p.tolerance,
    stabilization = { down = p.wait },
    lag = p.of == "average" and p.lag or nil,
  },
  -- Of a load that is shared: what all that run are to have of it.
  target = function(ctx)
    return p.of == "total" and p.target * ctx.running or p.target
  end,
  metric = function()
    local auth = p.user ~= "" and { user = p.user, password = secret.get(p.password) } or nil
    return prometheus.query(p.url, p.query, {
      reduce = given(p.reduce),
      basic = auth,
      bearer = p.token ~= "" and secret.get(p.token) or nil,
      timeout = p.timeout,
    })
  end,
  decide = p.of == "total" and function(ctx)
    return ctx.sample and { desired = math.max(0, math.ceil(ctx.sample / p.target)) } or { adjust = 0 }
  end or nil,
  simulate = {
    metric = function(ctx)
      return p.of == "total" and ctx.trace or ctx.trace / math.max(ctx.running, 1)
    end,
  },
}
