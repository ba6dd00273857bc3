-- keep.lua: at least so many tasks of a service, whatever becomes of them.
--   setpoint run keep --set n=3 --set command='exec ./server --port "$PORT_HTTP"' --set port=8080
--   setpoint run keep --set backend=docker --set image=redis:7 --set port=6379 --set health='redis-cli ping'
--   setpoint run keep --set backend=swarm --set image=shop/web --set n=5
--   setpoint run keep --set backend=mesos --set command='exec ./server' --set executor=setpoint
--
-- A task that ends, is killed or is lost is replaced. While they fail over and over, each is replaced after `backoff`,
-- which doubles up to `backoff_max`. An operator's override may ask for more than `n`. With another command or image
-- running tasks stay as they are; with rolling=true they are replaced one by one.
-- Needs nothing.

local p = require("setpoint.params")({
  n = 2, -- tasks to keep
  max = 100, -- most that an override may ask for
  backend = "local", -- local, docker, swarm or mesos
  command = "", -- for `sh -c`; empty: the image's own, or one that only sleeps
  image = "", -- container image; empty: a plain command
  cpus = 0.1, -- cores that a task gets
  memory = "64MiB",
  port = 0, -- a port that it listens on, called `http` and told as $PORT_HTTP; 0: none
  health = "", -- a command that says whether a task is well, in containers and on Mesos; empty: running is enough
  health_every = "5s",
  user = "", -- whom a task runs as, in containers and on Mesos; empty: the backend's usual one
  executor = "", -- on Mesos: "setpoint", or empty for the cluster's own
  grace = "10s", -- from asking a task to end to ending it
  rolling = false,
  backoff = "1s",
  backoff_max = "1m",
})

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
  interval = "1s",
  workload = {
    backend = p.backend,
    executor = given(p.executor),
    command = given(p.command) or (p.image == "" and asleep or nil),
    image = given(p.image),
    cpus = p.cpus,
    memory = p.memory,
    ports = p.port > 0 and { http = p.port } or nil,
    health = p.health ~= "" and { command = p.health, interval = p.health_every } or nil,
    ready = p.health ~= "" and "healthy" or nil,
    user = given(p.user),
    grace = p.grace,
    replace = p.rolling and "rolling" or "keep",
    min = p.n,
    max = math.max(p.n, p.max),
  },
  control = { law = "count", n = p.n },
  backoff = { min = p.backoff, max = p.backoff_max },
}
