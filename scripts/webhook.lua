-- webhook.lua: workers of a system of your own, added and taken away by HTTP calls.
--   setpoint run webhook --set base=http://127.0.0.1:9000
--   setpoint run webhook --set base=https://farm.example --set metric=/load --set of=average --set target=60
--     --set token=farm --set lag=2m
--
-- Asked of it at each tick: GET `count` answers how many workers there are, GET `metric` what is measured; each a
-- number, or JSON with the number at `count_field` and `metric_field`. With of=total the metric is a load that the
-- workers share, and each is to have `target` of it; with of=average it is an average over them, and held at `target`.
-- Told to it: POST `cooler` when the metric is too high, POST `warmer` when it is too low, with JSON:
--   { "policy": "webhook", "n": 2, "desired": 7, "running": 5, "sample": 71, "setpoint": 50, "key": "webhook-176722" }
-- n workers more for the cooler, fewer for the warmer, or `desired` of them in all (the other way round with
-- effect=heats). An answer with a status of 2xx is a promise: what it promised is on its way until `count` shows it or
-- `lag` has passed. Its body may be JSON with `accepted`, how many of the n there will be. Any other status is a no.
-- Who does not answer may have heard all the same, so that counts as a promise, too: nothing is asked for twice. `key`
-- also is the Idempotency-Key.
-- `token` is the name of a secret of setpoint.toml, sent as bearer token.

local http = require("setpoint.http")
local log = require("setpoint.log")
local secret = require("setpoint.secret")

local p = require("setpoint.params")({
  base = "http://127.0.0.1:9000", -- what paths below stand behind; URLs of their own may be given, too
  count = "/workers",
  count_field = "", -- where the number is in JSON: names with dots between them; empty: it is all of the answer
  metric = "/length",
  metric_field = "",
  warmer = "/warmer",
  cooler = "/cooler",
  effect = "cools", -- what more workers do to the metric: cools, or heats
  of = "total", -- or average
  target = 10,
  tolerance = "10%", -- of the target
  token = "", -- a secret's name
  lag = "30s", -- how long a promise may take to show in `count`
  at_once = 0, -- most workers of one call; 0: as many as it takes
  wait = "1m", -- how long fewer must have been enough before some go
  min = 0,
  max = 10,
  interval = "10s",
  timeout = "3s", -- of each call
})

if p.of ~= "total" and p.of ~= "average" then
  error("of: expected total or average, got " .. p.of)
end
if p.of == "total" and p.effect == "heats" then
  error("of=total: a load that workers share is one that they cool, expected effect=cools, got heats")
end

local function url(path)
  return path:find("^%a+://") and path or p.base:gsub("/+$", "") .. "/" .. path:gsub("^/+", "")
end

local function options(more)
  local all = { timeout = p.timeout, bearer = p.token ~= "" and secret.get(p.token) or nil }
  for key, value in pairs(more or {}) do
    all[key] = value
  end
  return all
end

-- The number that a path answers: all of it, or at `a.b.1` of its JSON.
local function number(path, field)
  local response = http.get(url(path), options())
  if field == "" then
    return response:number()
  end
  local value = response:json()
  for name in field:gmatch("[^.]+") do
    value = type(value) == "table" and value[tonumber(name) or name] or nil
  end
  if type(value) ~= "number" then
    error("webhook: expected a number at `" .. field .. "` in the answer of " .. path .. ", got " .. type(value), 0)
  end
  return value
end

-- How many of n workers were promised; `sign` is 1 for more of them and -1 for fewer.
local function call(path, n, sign, ctx)
  local key = ctx.policy .. "-" .. math.floor(ctx.now * 1000)
  local ok, response = pcall(http.post, url(path), options({
    headers = { ["Idempotency-Key"] = key },
    json = {
      policy = ctx.policy,
      n = n,
      desired = ctx.desired + sign * n,
      running = ctx.running,
      sample = ctx.sample,
      setpoint = ctx.setpoint,
      key = key,
    },
  }))
  if not ok then
    local heard = not tostring(response):find("connection refused", 1, true)
    log.warn("webhook: " .. tostring(response) .. (heard and "; it may have heard, so it is given time" or ""))
    return heard and n or 0
  elseif not response.ok then
    log.warn("webhook: expected a status of 2xx from " .. url(path) .. ", got " .. response.status)
    return 0
  end
  local said, body = pcall(response.json, response)
  local accepted = said and type(body) == "table" and body.accepted
  return type(accepted) == "number" and math.max(0, math.min(math.floor(accepted), n)) or n
end

local more = p.effect == "heats" and 1 or -1

---@type setpoint.Policy
return {
  interval = p.interval,
  workload = {
    backend = "none",
    count = function()
      return number(p.count, p.count_field)
    end,
    effect = p.effect,
    min = p.min,
    max = p.max,
  },
  control = {
    law = p.of == "total" and "decide" or "adaptive",
    tolerance = p.tolerance,
    step = p.at_once > 0 and { up = p.at_once, down = p.at_once } or nil,
    stabilization = { down = p.wait },
    lag = p.lag,
  },
  -- Of a load that is shared: what all that run are to have of it.
  target = function(ctx)
    return p.of == "total" and p.target * ctx.running or p.target
  end,
  metric = function()
    return number(p.metric, p.metric_field)
  end,
  decide = p.of == "total" and function(ctx)
    return ctx.sample and { desired = math.max(0, math.ceil(ctx.sample / p.target)) } or { adjust = 0 }
  end or nil,
  warmer = function(n, ctx)
    return call(p.warmer, n, more, ctx)
  end,
  cooler = function(n, ctx)
    return call(p.cooler, n, -more, ctx)
  end,
  simulate = {
    metric = function(ctx)
      return p.of == "total" and ctx.trace or ctx.trace / math.max(ctx.running, 1)
    end,
  },
}
