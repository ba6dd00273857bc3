-- marathon.lua: scale an app of Marathon by its HTTP API, a few instances at a time.
--   setpoint run marathon --set app=/shop/consumer --set metric=http://queue:8000/length --set target=10
--   setpoint run marathon --set app=/shop/web --set metric=http://stats/web.json --set field=cpu.mean --set of=average
--     --set target=60 --set at_once=2
--
-- The sample is what a GET of `metric` answers: a number, or JSON with the number at `field`. With of=total it is a
-- load that the instances share, and each is to have `target` of it; with of=average it is an average over them, and
-- held at `target`.
-- Setpoint runs nothing here: Marathon holds the number of instances that it is told, and that is the number that
-- counts. Marathon is told absolute numbers, made of the one that it has just given: a call that is lost, late or
-- repeated never adds up. While it deploys the app, or somebody else has it locked, nothing is asked of it; nor is
-- anything while it does not answer. `password` and `token` are names of secrets of setpoint.toml.

local http = require("setpoint.http")
local log = require("setpoint.log")
local secret = require("setpoint.secret")

local p = require("setpoint.params")({
  marathon = "http://127.0.0.1:8080",
  app = "/consumer",
  user = "", -- with `password`: basic authentication
  password = "", -- a secret's name
  token = "", -- a secret's name: what the Authorization header is to be, such as DC/OS's `token=…`
  metric = "http://127.0.0.1:8000/length",
  field = "", -- where the number is in the metric's JSON: names with dots between them; empty: it is all of the answer
  of = "total", -- or average
  target = 10,
  tolerance = "10%", -- of the target
  at_once = 1, -- most instances that one decision adds or takes away
  wait = "1m", -- how long fewer must have been enough before one goes
  min = 1,
  max = 10,
  interval = "15s",
  timeout = "4s", -- of each call
})

if p.of ~= "total" and p.of ~= "average" then
  error("of: expected total or average, got " .. p.of)
end

local app_url = p.marathon:gsub("/+$", "") .. "/v2/apps/" .. p.app:gsub("^/+", "")

local function options(more)
  local all = { timeout = p.timeout, headers = { Accept = "application/json" } }
  if p.token ~= "" then
    all.headers.Authorization = secret.get(p.token)
  elseif p.user ~= "" then
    all.basic = { user = p.user, password = secret.get(p.password) }
  end
  for key, value in pairs(more) do
    all[key] = value
  end
  return all
end

-- What Marathon said last: how many instances the app is to have, and whether it is being deployed. Nil while it has
-- not answered since.
local app

local function count()
  app = nil
  local answer = http.get(app_url, options({ query = { embed = "app.deployments" } })):json()
  local found = type(answer) == "table" and answer.app
  if type(found) ~= "table" or type(found.instances) ~= "number" then
    error("marathon: expected `app.instances` in the answer of " .. app_url, 0)
  end
  local deployments = found.deployments
  app = { instances = found.instances, deploying = type(deployments) == "table" and #deployments > 0 }
  return app.instances
end

-- Tells Marathon a number that differs by `change`; how much of that it took.
local function scale(change)
  if app == nil then
    return 0
  elseif app.deploying then
    log.info("marathon: a deployment of " .. p.app .. " goes on, nothing is asked meanwhile")
    return 0
  end
  local ok, response = pcall(http.put, app_url, options({ json = { instances = app.instances + change } }))
  if not ok then
    -- Whether it took the number, the next look at the app tells.
    log.warn("marathon: " .. tostring(response))
    return 0
  elseif not response.ok then
    local why = response.status == 409 and " (another deployment has it locked)" or ""
    log.warn("marathon: expected status 200 from " .. app_url .. ", got " .. response.status .. why)
    return 0
  end
  return math.abs(change)
end

-- The number at `a.b.1` of some JSON.
local function number_at(value, path)
  for name in path:gmatch("[^.]+") do
    value = type(value) == "table" and value[tonumber(name) or name] or nil
  end
  if type(value) ~= "number" then
    error("marathon: expected a number at `" .. path .. "` in the answer of " .. p.metric .. ", got " .. type(value), 0)
  end
  return value
end

---@type setpoint.Policy
return {
  interval = p.interval,
  workload = { backend = "none", count = count, effect = "cools", min = p.min, max = p.max },
  control = {
    law = p.of == "total" and "decide" or "adaptive",
    tolerance = p.tolerance,
    step = { up = p.at_once, down = p.at_once },
    stabilization = { down = p.wait },
  },
  -- Of a load that is shared: what all that run are to have of it.
  target = function(ctx)
    return p.of == "total" and p.target * ctx.running or p.target
  end,
  metric = function()
    -- The metric's host has nothing to do with Marathon, and gets none of its secrets.
    local response = http.get(p.metric, { timeout = p.timeout })
    return p.field == "" and response:number() or number_at(response:json(), p.field)
  end,
  decide = p.of == "total" and function(ctx)
    return ctx.sample and { desired = math.max(0, math.ceil(ctx.sample / p.target)) } or { adjust = 0 }
  end or nil,
  cooler = function(n)
    return scale(n)
  end,
  warmer = function(n)
    return scale(-n)
  end,
  simulate = {
    metric = function(ctx)
      app = { instances = ctx.running, deploying = false }
      return p.of == "total" and ctx.trace or ctx.trace / math.max(ctx.running, 1)
    end,
  },
}
