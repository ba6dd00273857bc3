-- jobs.lua: keep a fixed number of jobs at work, and fill up the free places after a wait.
--   setpoint run jobs --set cmd='./etl.sh' --set maxtasks=3
--   setpoint run jobs --set backend=docker --set img=shop/etl --set cmd='etl --once' --set wait=300
--   setpoint run jobs --set backend=mesos --set executor=setpoint --set cmd='./etl.sh' --set user=etl
--
-- All places are filled at once. A job that ends leaves its place free until the next multiple of `wait` seconds since
-- the start; where that comes while all are at work, the first place that becomes free is filled at once, and the
-- others wait for the next one. A job that fails is one that has ended: the others go on, and its place is filled like
-- any other, later if many fail. With `max_failures` the run ends with code 1 once that count is reached: a job that
-- fails counts one up, one that goes well counts one down, to no less than 0.

local p = require("setpoint.params")({
  cmd = "echo 'Hello World'", -- for `sh -c`; empty: the image's own
  img = "", -- container image; empty: a plain command
  cpu = 0.1, -- cores that a job gets
  mem = 64, -- MiB that a job gets
  maxtasks = 5, -- jobs at a time
  wait = 60, -- seconds; 0: a place is filled as soon as it is free
  user = "", -- whom a job runs as; empty: the backend's usual one
  backend = "local", -- local, docker or mesos
  executor = "", -- on Mesos: "setpoint", or empty for the cluster's own
  max_failures = 0, -- 0: none are too many
})

-- Empty text stands for nothing at all.
local function given(text)
  if text ~= "" then
    return text
  end
  return nil
end

---@type setpoint.Policy
return {
  interval = "1s",
  workload = {
    kind = "jobs",
    backend = p.backend,
    executor = given(p.executor),
    command = given(p.cmd),
    image = given(p.img),
    cpus = p.cpu,
    memory = string.format("%dMiB", p.mem),
    user = given(p.user),
  },
  control = { law = "count", n = p.maxtasks, wait = p.wait > 0 and p.wait .. "s" or nil },
  max_failures = p.max_failures > 0 and p.max_failures or nil,
}
