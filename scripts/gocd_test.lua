-- gocd_test.lua: agents for the jobs that wait, and only idle ones go, disabled first. The server here is a fake.

describe("gocd", function()
  local jobs, agents, requests, down, policy

  local function response(status, body, url, value)
    return {
      status = status,
      ok = status >= 200 and status < 300,
      body = body,
      url = url,
      json = function()
        return value
      end,
    }
  end

  local function feed()
    local parts = { "<scheduledJobs>" }
    for _, job in ipairs(jobs) do
      local resources = {}
      for _, resource in ipairs(job.resources or {}) do
        resources[#resources + 1] = "<resource>" .. resource .. "</resource>"
      end
      local environment = job.environment and "<environment>" .. job.environment .. "</environment>" or ""
      parts[#parts + 1] = '<job name="' .. job.name .. '"><buildLocator>p/1/s/1/' .. job.name .. "</buildLocator>"
        .. "<resources>" .. table.concat(resources) .. "</resources>" .. environment .. "</job>"
    end
    return table.concat(parts) .. "</scheduledJobs>"
  end

  local server = {
    get = function(url)
      if down then
        error("connection refused")
      elseif url:find("jobs/scheduled.xml", 1, true) then
        return response(200, feed(), url)
      end
      local list = {}
      for _, agent in pairs(agents) do
        list[#list + 1] = agent
      end
      return response(200, "", url, { _embedded = { agents = list } })
    end,
    patch = function(url, options)
      local uuid, config = url:match("[^/]+$"), options.json.agent_config_state
      requests[#requests + 1] = config .. " " .. uuid
      agents[uuid].agent_config_state = config
      return response(200, "", url)
    end,
    delete = function(url)
      local uuid = url:match("[^/]+$")
      requests[#requests + 1] = "Deleted " .. uuid
      agents[uuid] = nil
      return response(200, "", url)
    end,
  }

  local function agent(uuid, build, config)
    agents[uuid] = {
      uuid = uuid,
      hostname = uuid,
      agent_state = build == "Building" and "Building" or "Idle",
      build_state = build,
      agent_config_state = config or "Enabled",
      resources = {},
    }
  end

  -- Every agent of ours that does not know the server yet registers.
  local function register(build, config)
    for _, task in ipairs(policy:tasks()) do
      if task.state == "running" and not agents[task.uuid] then
        agent(task.uuid, build or "Idle", config)
      end
    end
  end

  local function wait_for(n, more)
    jobs = {}
    for index = 1, n do
      jobs[index] = { name = "job" .. index }
      for key, value in pairs(more or {}) do
        jobs[index][key] = value
      end
    end
  end

  local function load(params)
    policy = load_policy({
      params = params,
      fakes = { http = server, log = { info = function() end, warn = function() end } },
    })
    return policy
  end

  before_each(function()
    jobs, agents, requests, down = {}, {}, {}, false
    load()
  end)

  it("launches an agent for each job that waits, up to max", function()
    wait_for(3)
    expect(policy:tick()).to_launch(3)
    wait_for(9)
    local decision = policy:tick()
    expect(decision).to_launch(1)
    expect(decision).to_have_reason("max")
  end)

  it("leaves jobs to idle agents of somebody else", function()
    agent("theirs", "Idle")
    wait_for(2)
    expect(policy:tick()).to_launch(1)
  end)

  it("launches nothing for jobs that no agent of ours can have", function()
    wait_for(2, { resources = { "gpu" } })
    expect(policy:tick()).to_hold()
    wait_for(2, { environment = "staging" })
    expect(policy:tick()).to_hold()
    load({ resources = "gpu, linux", environments = "staging" })
    wait_for(2, { resources = { "gpu" }, environment = "staging" })
    expect(policy:tick()).to_launch(2)
  end)

  it("takes in idle agents only: disables, kills, and deletes each at the server", function()
    wait_for(2)
    policy:tick()
    register("Idle")
    local busy, idle = policy:tasks()[1].uuid, policy:tasks()[2].uuid
    agent(busy, "Building")
    wait_for(0)
    expect(policy:tick()).to_kill(1)
    expect(requests).to_equal({ "Disabled " .. idle })
    policy:tick()
    expect(requests).to_contain("Deleted " .. idle)
    expect(agents[idle]).to_be_nil()
    expect(policy:tasks()).to_have_length(1)
    for _, decision in ipairs(policy:advance("5m")) do
      expect(decision).to_hold()
    end
    expect(agents[busy].agent_config_state).to_equal("Enabled")
  end)

  it("enables agents of ours that wait for an administrator", function()
    wait_for(1)
    policy:tick()
    register("Idle", "Pending")
    policy:tick()
    expect(requests).to_contain("Enabled " .. policy:tasks()[1].uuid)
  end)

  it("kills an agent that never registers", function()
    wait_for(1)
    policy:tick()
    wait_for(0)
    policy:advance("9m")
    expect(policy:running()).to_equal(1)
    policy:advance("5m")
    expect(policy:running()).to_equal(0)
  end)

  it("keeps every agent while the server is away", function()
    wait_for(3)
    policy:tick()
    register("Idle")
    down = true
    for _, decision in ipairs(policy:advance("30m")) do
      expect(decision.sample_kind).to_equal("error")
      expect(decision).to_hold()
    end
    expect(policy:running()).to_equal(3)
    expect(requests).to_equal({})
  end)

  it("adds one for so many polls that saw a job, when told to", function()
    load({ rule = "polls", confirm = 3 })
    wait_for(5)
    expect(policy:tick()).to_have_reason("confirmation")
    expect(policy:tick()).to_hold()
    expect(policy:tick()).to_launch(1)
    expect(policy:tick()).to_hold()
  end)

  it("never kills an agent that builds, whatever happens", function()
    for_all({ waiting = gen.trace({ max = 8, length = 25 }), runs = 30 }, function(input)
      jobs, agents, requests = {}, {}, {}
      load()
      for index, waiting in ipairs(input.waiting) do
        wait_for(waiting)
        policy:tick()
        register(index % 2 == 0 and "Building" or "Idle")
        for uuid, known in pairs(agents) do
          if known.build_state == "Building" then
            expect(known.agent_config_state).to_equal("Enabled")
            local alive = false
            for _, task in ipairs(policy:tasks()) do
              alive = alive or task.uuid == uuid
            end
            expect(alive).to_be_true()
          end
        end
        -- Builds end one after the other.
        for _, known in pairs(agents) do
          if known.build_state == "Building" and index % 3 == 0 then
            agent(known.uuid, "Idle")
            break
          end
        end
      end
    end)
  end)

  it("refuses a rule that it does not know", function()
    expect(function()
      load({ rule = "whim" })
    end).to_error("expected rule=demand or rule=polls")
  end)
end)
