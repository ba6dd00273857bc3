-- gocd.lua: as many GoCD agents as there are jobs without one, and no more than that.
--   setpoint run gocd --set server=http://gocd:8153 --set backend=docker --set image=gocd/gocd-agent-debian-12:v24.1.0
--     --set agent_key=KEY --set max=12
--   setpoint run gocd --set server=http://gocd:8153 --set agent_key=KEY --set max=4
--   setpoint run gocd --set server=http://gocd:8153 --set backend=mesos --set image=gocd/gocd-agent-debian-12:v24.1.0
--     --set agent_key=KEY
--
-- The second one runs local processes: an agent of GoCD's zip, unpacked as go-agent beside the policy, unless `command`
-- says otherwise.
--
-- A job counts when an agent of ours could run it (`resources` and `environments` below) and no idle agent of somebody
-- else's will. Agents are told who they are by GO_SERVER, AGENT_KEY and GO_AGENT_UUID, and by the variables that GoCD's
-- own images know; they are known again at the server by that UUID, or by their container's host name. Scaling in
-- takes idle agents of ours only: each is disabled, looked at again, killed if it is idle still, and deleted at the
-- server when it is gone. Agents of ours that wait for an administrator are enabled.
--
-- Works with servers from 16.1 on: both addresses of the jobs feed, both shapes of agents. The user needs the rights to
-- see and to change agents. `password` and `token` are names of secrets of setpoint.toml.

local http = require("setpoint.http")
local log = require("setpoint.log")
local secret = require("setpoint.secret")
local xml = require("setpoint.xml")

local p = require("setpoint.params")({
  server = "http://127.0.0.1:8153",
  user = "", -- with `password`: basic authentication
  password = "", -- a secret's name
  token = "", -- a secret's name: bearer authentication
  agent_key = "", -- agentAutoRegisterKey of the server
  backend = "local", -- local, docker or mesos
  executor = "", -- on Mesos: "setpoint", or empty for the cluster's own
  image = "",
  command = "",
  resources = "", -- of our agents, with commas between them
  environments = "", -- of our agents, with commas between them
  cpus = 1,
  memory = "256MiB",
  min = 0,
  max = 4,
  at_once = 0, -- most agents that one decision launches; 0 is as many as are missing
  confirm = 0, -- polls at which agents were missing, since the last launch, before some are launched; 0 is at once
  in_a_row = false, -- whether those polls must follow each other
  rule = "demand", -- or "polls": one more agent whenever `confirm` polls saw a job, and none is ever taken in
  poll = "10s", -- how often to look …
  poll_max = "2m", -- … and how seldom it may become while nothing is to be done
  register_within = 600, -- seconds; an agent that the server does not know by then is killed
})

if p.rule ~= "demand" and p.rule ~= "polls" then
  error('gocd: expected rule=demand or rule=polls, got "' .. p.rule .. '"')
end

local function words(text)
  local set = {}
  for word in text:gmatch("[^,]+") do
    set[word:match("^%s*(.-)%s*$")] = true
  end
  return set
end

local REGISTER_WITHIN = p.register_within
local OUR_RESOURCES, OUR_ENVIRONMENTS = words(p.resources), words(p.environments)

-- The server ------------------------------------------------------------------------------------------------------

-- The jobs feed moved in 20.6 and the old address is gone since 21.2; versions of the agents' answer come and go. What
-- answered last is asked first.
local FEEDS = { "/go/api/feed/jobs/scheduled.xml", "/go/api/jobs/scheduled.xml" }
local VERSIONS = { "application/vnd.go.cd+json", "application/vnd.go.cd.v4+json", "application/vnd.go.cd.v1+json" }
local feed, version = 1, 1

local function options(more)
  local all = { timeout = "20s", headers = {} }
  if p.token ~= "" then
    all.bearer = secret.get(p.token)
  elseif p.user ~= "" then
    all.basic = { user = p.user, password = secret.get(p.password) }
  end
  for key, value in pairs(more or {}) do
    all[key] = value
  end
  return all
end

local function url(path)
  return p.server:gsub("/+$", "") .. path
end

-- GoCD answers 404 both to an address and to a version that it does not know.
local function unknown(response)
  return response.status == 404 or response.status == 406
end

local function checked(response, what)
  if not response.ok then
    error("gocd: " .. what .. ": expected status 200, got " .. response.status .. " from " .. response.url, 0)
  end
  return response
end

local function jobs()
  local response
  for turn = 0, #FEEDS - 1 do
    local candidate = (feed - 1 + turn) % #FEEDS + 1
    response = http.get(url(FEEDS[candidate]), options())
    if not unknown(response) then
      feed = candidate
      break
    end
  end
  local found = {}
  local body = checked(response, "jobs").body
  for _, job in ipairs(xml.find_all(xml.decode(body), "job")) do
    local resources = {}
    for _, resource in ipairs(xml.find_all(job, "resources/resource")) do
      resources[#resources + 1] = resource.text
    end
    local environment = xml.find(job, "environment")
    local locator = xml.find(job, "buildLocator")
    found[#found + 1] = {
      name = locator and locator.text or job.attributes.name,
      resources = resources,
      environment = environment and environment.text or nil,
    }
  end
  return found
end

-- Environments are names, or since 19.x objects with one.
local function names(list)
  local set = {}
  for _, name in ipairs(list or {}) do
    set[type(name) == "table" and name.name or name] = true
  end
  return set
end

-- One agent, in either shape: 16.1's `status` and `enabled`, or `agent_state`, `build_state` and `agent_config_state`.
local function normal(agent)
  local state = agent.agent_state or agent.status
  local config = agent.agent_config_state
  if config == nil then
    local pending, disabled = state == "Pending", state == "Disabled" or agent.enabled == false
    config = pending and "Pending" or disabled and "Disabled" or "Enabled"
  end
  local build = agent.build_state
  return {
    uuid = agent.uuid,
    hostname = agent.hostname,
    config = config,
    -- Disabled agents of the old shape do not say what they are doing.
    opaque = agent.agent_state == nil and state == "Disabled",
    idle = state == "Idle" and (build == nil or build == "Idle"),
    busy = state == "Building" or state == "Cancelled" or build == "Building" or build == "Cancelled",
    resources = names(agent.resources),
    environments = names(agent.environments),
  }
end

local function agents()
  local response
  for turn = 0, #VERSIONS - 1 do
    local candidate = (version - 1 + turn) % #VERSIONS + 1
    response = http.get(url("/go/api/agents"), options({ headers = { Accept = VERSIONS[candidate] } }))
    if not unknown(response) then
      version = candidate
      break
    end
  end
  local answer = checked(response, "agents"):json()
  local list = type(answer) == "table" and answer._embedded and answer._embedded.agents
  if type(list) ~= "table" then
    error("gocd: agents: expected `_embedded.agents` in the answer of " .. response.url, 0)
  end
  local found = {}
  for _, agent in ipairs(list) do
    found[#found + 1] = normal(agent)
  end
  return found
end

local function change(agent, config)
  local response = http.patch(
    url("/go/api/agents/" .. agent.uuid),
    options({
      headers = { Accept = VERSIONS[version], ["X-GoCD-Confirm"] = "true" },
      json = { agent_config_state = config },
    })
  )
  if not response.ok then
    log.warn("gocd: agent " .. agent.uuid .. " could not be " .. config:lower() .. ": status " .. response.status)
  end
  return response.ok
end

-- Deletes an agent. The server does that with disabled ones only, and not while it takes one to build.
local function forget(agent)
  if agent == nil then
    return true
  elseif agent.config ~= "Disabled" and not change(agent, "Disabled") then
    return false
  end
  local headers = { Accept = VERSIONS[version], ["X-GoCD-Confirm"] = "true" }
  local response = http.delete(url("/go/api/agents/" .. agent.uuid), options({ headers = headers }))
  return response.ok or response.status == 404
end

-- Who is who --------------------------------------------------------------------------------------------------------

-- The task that an agent is, by its UUID or, in a container, by its host's name.
local function task_of(agent, tasks)
  for _, task in ipairs(tasks) do
    local container = task.container and agent.hostname == task.container:sub(1, 12)
    if task.uuid == agent.uuid or container then
      return task
    end
  end
  return nil
end

local function could_run(job, resources, environments)
  for _, resource in ipairs(job.resources) do
    if not resources[resource] then
      return false
    end
  end
  -- Agents of environments run the jobs of those only, all others the jobs of none.
  if job.environment then
    return environments[job.environment] == true
  end
  return next(environments) == nil
end

-- The jobs that wait for an agent of ours, and those that none of ours can ever run.
local function lacking(waiting, others)
  local ours, foreign, taken = {}, {}, {}
  for _, job in ipairs(waiting) do
    local served = false
    for index, agent in ipairs(others) do
      if not taken[index] and could_run(job, agent.resources, agent.environments) then
        taken[index], served = true, true
        break
      end
    end
    -- The server will hand a served one to that agent.
    if not served then
      local list = could_run(job, OUR_RESOURCES, OUR_ENVIRONMENTS) and ours or foreign
      list[#list + 1] = job.name
    end
  end
  return ours, foreign
end

-- What the last look at the server gave: agents of ours by their tasks' ids, how many of them build, those that wait
-- for an administrator, all agents by their UUIDs, jobs, jobs without an agent. Nil while no look went well.
local seen
local told = ""

-- What a simulation gives: its load is how many jobs there are, and the oldest agents are at work on them.
local function pretend(ctx)
  local count = math.floor(ctx.trace + 0.5)
  seen = { own = {}, busy = 0, pending = {}, known = {}, going = {}, waiting = 0 }
  for _, task in ipairs(ctx.tasks) do
    if task.state == "running" then
      local busy = seen.busy < count
      seen.busy = seen.busy + (busy and 1 or 0)
      seen.own[task.id] = { uuid = task.uuid, config = "Disabled", idle = not busy, busy = busy }
    end
  end
  seen.waiting = count - seen.busy
  seen.missing = seen.waiting
  return seen
end

local function look(ctx)
  -- There is one in simulations only.
  if ctx.trace then
    return pretend(ctx)
  end
  seen = nil
  -- In this order: a job that is handed out in between is neither waiting nor at an agent, which the next look mends.
  local all, waiting = agents(), jobs()
  local found = { own = {}, busy = 0, pending = {}, known = {}, going = {}, waiting = #waiting }
  local others = {}
  for _, agent in ipairs(all) do
    local task = task_of(agent, ctx.tasks)
    found.known[agent.uuid] = agent
    if task then
      found.own[task.id] = agent
      found.busy = found.busy + (agent.busy and 1 or 0)
      if agent.config == "Pending" then
        found.pending[#found.pending + 1] = agent
      end
    elseif agent.idle and agent.config == "Enabled" then
      others[#others + 1] = agent
    end
  end
  local ours, foreign = lacking(waiting, others)
  found.missing = #ours
  local text = table.concat(foreign, ", ")
  if text ~= told and text ~= "" then
    log.warn("gocd: no agent of ours can have the resources or the environment of " .. text)
  end
  told = text
  seen = found
  return found
end

-- The policy --------------------------------------------------------------------------------------------------------

local environment = {
  GO_SERVER = p.server:match("^%a+://([^/:]+)"),
  GO_SERVER_URL = url("/go"),
  AGENT_KEY = p.agent_key,
  AGENT_AUTO_REGISTER_KEY = p.agent_key,
  AGENT_AUTO_REGISTER_RESOURCES = p.resources,
  AGENT_AUTO_REGISTER_ENVIRONMENTS = p.environments,
}

local command = p.command ~= "" and p.command or nil
if p.backend == "local" then
  command = command or "exec go-agent/bin/go-agent console"
end

-- What is kept over restarts, by the UUIDs of our tasks: their agents, and which of those were disabled to be killed.
local function kept(ctx)
  ctx.state.agents = ctx.state.agents or {}
  ctx.state.leaving = ctx.state.leaving or {}
  return ctx.state
end

---@type setpoint.Policy
return {
  interval = { min = p.poll, max = p.poll_max },
  workload = {
    backend = p.backend,
    executor = p.executor ~= "" and p.executor or nil,
    image = p.image ~= "" and p.image or nil,
    command = command,
    env = environment,
    uuid_env = "GO_AGENT_UUID",
    cpus = p.cpus,
    memory = p.memory,
    effect = "cools",
    min = p.min,
    max = p.max,
    grace = "30s",
  },
  control = {
    law = "decide",
    confirm = p.confirm > 0 and (p.in_a_row and p.confirm or { n = p.confirm, total = true }) or nil,
    step = p.at_once > 0 and { up = p.at_once } or nil,
  },
  target = 0,

  -- Jobs that no agent will take.
  metric = function(ctx)
    return look(ctx).missing
  end,

  -- Agents that build, and one for each job without: what idle and starting ones are more than that is too many.
  decide = function()
    if seen == nil then
      return { adjust = 0 }
    elseif p.rule == "polls" then
      return { adjust = seen.waiting > 0 and 1 or 0 }
    end
    return { desired = seen.busy + seen.missing }
  end,

  -- The backlog is too long.
  cooler = function(n, ctx)
    return ctx.workload:launch(n)
  end,

  -- There are agents with nothing to do.
  warmer = function(n, ctx)
    if seen == nil then
      return 0
    end
    local leaving, candidates = kept(ctx).leaving, {}
    for _, task in ipairs(ctx.tasks) do
      local agent = seen.own[task.id]
      local stays = task.state ~= "killing"
      if #candidates == n then
        break
      elseif stays and agent and (agent.idle or agent.opaque) then
        leaving[task.uuid] = true
        if agent.config == "Disabled" or change(agent, "Disabled") then
          candidates[#candidates + 1] = task
        end
      elseif stays and not agent and task.age > REGISTER_WITHIN then
        log.warn("gocd: the server does not know " .. task.id .. ", which has had its time to register")
        candidates[#candidates + 1] = task
      end
    end
    if #candidates == 0 then
      return 0
    end
    -- The server may have given one of them a job in between. Disabled as they are, they can get no other.
    local now, idle = look(ctx), {}
    for _, task in ipairs(candidates) do
      local agent = now.own[task.id]
      -- A server that does not tell deletes an agent just when it has nothing to build.
      if not agent or agent.idle or (agent.opaque and forget(agent)) then
        now.going[task.uuid] = true
        idle[#idle + 1] = task
      end
    end
    return #idle > 0 and ctx.workload:kill(idle) or 0
  end,

  -- It never ends the policy: this is what else is to be done at the server after a tick.
  stop = function(ctx)
    if seen == nil then
      return nil
    end
    for _, agent in ipairs(seen.pending) do
      change(agent, "Enabled")
    end
    local state, tasks = kept(ctx), {}
    for _, task in ipairs(ctx.tasks) do
      tasks[task.uuid] = task
      -- One that came and went between two looks has the UUID that it was given.
      local agent = seen.own[task.id]
      state.agents[task.uuid] = agent and agent.uuid or state.agents[task.uuid] or task.uuid
    end
    for uuid, agent in pairs(state.agents) do
      local task, known = tasks[uuid], seen.known[agent]
      if task == nil then
        if forget(known) then
          state.agents[uuid], state.leaving[uuid] = nil, nil
        end
      elseif state.leaving[uuid] and not seen.going[uuid] and task.state ~= "killing" then
        -- It got a job in between, or is wanted again.
        if known == nil or known.config ~= "Disabled" or change(known, "Enabled") then
          state.leaving[uuid] = nil
        end
      end
    end
    return nil
  end,
}
