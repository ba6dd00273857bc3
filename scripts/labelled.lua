-- labelled.lua: scale every group of containers, and every service of a Swarm, that asks for it by labels.
--   setpoint run labelled
--   docker run -d --label setpoint.metric=cpu --label setpoint.target=60 --label setpoint.max=5 shop/web
--   docker service create --label setpoint.metric=cpu --label setpoint.max=5 shop/web
--
-- Labels of a container, of a Compose service (`labels:`), or of a Swarm service (in a stack's file `deploy: labels:`):
--   setpoint.metric     cpu (percent of one core) or memory (percent of its limit): what the group's mean is held at
--   setpoint.target     at this value; 60 for cpu, 80 for memory
--   setpoint.tolerance  points on either side; a tenth of the target
--   setpoint.min, max   fewest and most containers, those that were there included; 1 and 10
--   setpoint.group      the group's name; else Compose's project and service, else the container's own name
-- A group of containers gets clones of its first container by name: image, command, environment, limits, network,
-- volumes, labels but Compose's, and ports on free numbers. What stands before the group has to find them itself, as
-- those do that watch labels. A group comes with its first running container and goes with its last one; its clones go
-- with it.
-- Of a Swarm's service nothing but the number of its tasks is set; once it asks no more, it keeps the one it has. Its
-- figures come from the nodes whose engines the host knows: every node that runs its tasks has to be among them.

local docker = require("setpoint.docker")
local log = require("setpoint.log")
local setpoint = require("setpoint")

local p = require("setpoint.params")({
  engine = "", -- look for containers on this engine only
  every = "5s", -- how often groups are looked for
  interval = "2s",
  settle = 5, -- seconds that a change takes to show in the figures
  wait = "60s", -- how long fewer containers must have been enough before one goes
  min = 1, -- where no label says otherwise, as the following
  max = 10,
  cpu = 60,
  memory = 80,
})

local figures = { cpu = "cpu_percent", memory = "memory_percent" }
local engine = p.engine ~= "" and p.engine or nil

-- A group's name, and how its containers are found again.
local function group_of(container)
  local group = container.labels["setpoint.group"]
  if group then
    return group, { label = { ["setpoint.group"] = group }, engine = engine }
  elseif container.project and container.service then
    local name = container.project .. "_" .. container.service
    return name, { project = container.project, service = container.service, engine = engine }
  end
  return container.name, { name = container.name, engine = engine }
end

-- Whether setpoint or a Swarm looks after it already.
local function is_owned(container)
  return container.labels["setpoint.task"] ~= nil or container.labels["com.docker.swarm.task.id"] ~= nil
end

-- A row's name in the words that names have.
local function plain(name)
  return (name:gsub("[^%w_.-]", "-"):sub(1, 63))
end

local function number(row, label, default)
  local text = row.labels["setpoint." .. label]
  local value = text == nil and default or tonumber(text)
  if value == nil then
    error("label setpoint." .. label .. ": expected a number, got " .. text)
  end
  return value
end

local function discover()
  local rows, seen = {}, {}
  for _, container in ipairs(docker.containers({ label = "setpoint.metric", engine = engine })) do
    local name, which = group_of(container)
    name = plain(name)
    if not seen[name] and not is_owned(container) then
      seen[name] = true
      local template = docker.template(container.id, container.engine)
      if template then
        -- Compose would take a clone with its labels for one too many.
        for key in pairs(container.labels) do
          if key:find("^com%.docker%.compose%.") then
            template.labels[key] = nil
          end
        end
        rows[#rows + 1] = { name = name, which = which, labels = container.labels, template = template }
      else
        log.info("a container went while it was looked at", { name = container.name })
      end
    end
  end
  for _, service in ipairs(docker.services({ label = "setpoint.metric" }) or {}) do
    -- Those that carry a policy's name belong to that policy already.
    if service.replicas and service.labels["setpoint.policy"] == nil then
      local name = plain(service.name)
      -- A Compose project and a stack may well be namesakes.
      if seen[name] then
        name = name:sub(1, 57) .. ".swarm"
      end
      seen[name] = true
      rows[#rows + 1] = { name = name, swarm = service.name, labels = service.labels }
    end
  end
  return rows
end

-- What a group runs more of, without its bounds.
local function workload_of(row)
  if row.swarm then
    return { backend = "swarm", service = row.swarm }
  end
  row.template.backend = "docker"
  return row.template
end

local function policy(row)
  local metric = row.labels["setpoint.metric"]
  local figure = figures[metric]
  if not figure then
    error("label setpoint.metric: expected cpu or memory, got " .. metric)
  end
  local target = number(row, "target", p[metric])
  local tolerance = number(row, "tolerance", target / 10)
  local min, max = number(row, "min", p.min), number(row, "max", p.max)

  local workload = workload_of(row)
  -- Of a group of containers some are there already, and the policy counts only its own.
  workload.min = row.swarm and min or nil
  workload.max = max
  workload.on_gone = "stop"

  -- Containers of the group that were there, and the sum of all figures; nil: not all is known.
  local others, sum

  return {
    interval = p.interval,
    workload = workload,
    control = { law = "decide", stabilization = { down = p.wait } },
    metric = function(ctx)
      others, sum = 0, nil
      local used = 0
      for _, task in ipairs(ctx.tasks) do
        if task.state == "running" then
          local value = task.cpu
          if metric == "memory" then
            value = task.memory and task.memory_limit and 100 * task.memory / task.memory_limit
          end
          used = value and used and used + value or nil
        end
      end
      for _, container in ipairs(row.which and docker.stats(row.which) or {}) do
        if not is_owned(container) then
          others = others + 1
          used = container[figure] and used and used + container[figure] or nil
        end
      end
      sum = used
      local count = others + ctx.running
      if sum == nil or count == 0 then
        return nil
      end
      return sum / count
    end,
    target = target,
    decide = function(ctx)
      local count = others + ctx.running
      if sum == nil or count == 0 or ctx.in_flight ~= 0 then
        return { adjust = 0 }
      end
      for _, task in ipairs(ctx.tasks) do
        if task.age < p.settle then
          return { adjust = 0 }
        end
      end
      local wanted = count
      if math.abs(sum / count - target) > tolerance then
        -- As many as bring each nearest to the target.
        wanted = math.max(1, math.floor(sum / target))
        if math.abs(sum / (wanted + 1) - target) < math.abs(sum / wanted - target) then
          wanted = wanted + 1
        end
      end
      return { desired = math.max(0, math.min(math.max(wanted, min), max) - others) }
    end,
    simulate = {
      -- The load is what all together use: percent of a core, or of what one may have of memory.
      metric = function(ctx)
        others, sum = row.swarm and 0 or 1, ctx.trace
        local count = others + ctx.running
        return count > 0 and sum / count or nil
      end,
    },
  }
end

return setpoint.fleet({ discover = discover, policy = policy, every = p.every })
