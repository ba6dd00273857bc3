-- gocd_test.lua: agents for the jobs that wait, and only idle ones go, disabled first. The server here is a fake.

describe("gocd", function()
  local jobs, agents, requests, down, policy
  -- How the server is: of 16.1, its status, what it thinks of changes, and what happens when it disables an agent.
  local old, health, status_of_changes, on_disable
  -- What it was last asked with.
  local seen_options

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
    get = function(url, options)
      seen_options = options
      if down then
        error("connection refused")
      elseif health ~= 200 then
        return response(health, "", url)
      elseif url:find("jobs/scheduled.xml", 1, true) then
        if old == (url:find("/feed/", 1, true) ~= nil) then
          return response(404, "", url)
        end
        return response(200, feed(), url)
      elseif old and options.headers.Accept ~= "application/vnd.go.cd.v1+json" then
        return response(406, "", url)
      end
      local list = {}
      if agents == nil then
        return response(200, "", url, "<html>")
      end
      for _, agent in pairs(agents) do
        list[#list + 1] = agent
      end
      return response(200, "", url, { _embedded = { agents = list } })
    end,
    patch = function(url, options)
      local uuid, config = url:match("[^/]+$"), options.json.agent_config_state
      if status_of_changes ~= 200 then
        return response(status_of_changes, "", url)
      end
      requests[#requests + 1] = config .. " " .. uuid
      agents[uuid].agent_config_state = config
      if config == "Disabled" and on_disable then
        on_disable()
      end
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

  local function load(params, start)
    policy = load_policy({
      params = params,
      start = start,
      fakes = {
        http = server,
        log = { info = function() end, warn = function() end },
        secret = {
          get = function(name)
            return "secret " .. name
          end,
        },
      },
    })
    return policy
  end

  before_each(function()
    jobs, agents, requests, down = {}, {}, {}, false
    old, health, status_of_changes, on_disable = false, 200, 200, nil
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

  -- The rule that gocd-mesos had tests for and never merged; at least 2 agents and at most 12.
  it("goes from supply to demand by the old vectors", function()
    local function from(supply, demand)
      jobs, agents, requests = {}, {}, {}
      load({ min = 2, max = 12 }, supply)
      register("Idle")
      wait_for(demand)
      return policy:tick()
    end
    for _, up in ipairs({ { 6, 9, 3 }, { 0, 4, 4 }, { 0, 14, 12 }, { 1, 12, 11 } }) do
      expect(from(up[1], up[2])).to_launch(up[3])
    end
    -- More than there may be already: none is added.
    expect(from(13, 14).launched).to_equal(0)
    for _, down_by in ipairs({ { 9, 6, 3 }, { 14, 13, 2 }, { 4, 0, 2 }, { 12, 0, 10 }, { 12, 1, 10 } }) do
      expect(from(down_by[1], down_by[2])).to_kill(down_by[3])
    end
  end)

  it("counts idle agents alike in both shapes of the server's answer", function()
    old = true
    agents.theirs = { uuid = "theirs", hostname = "h", status = "Idle", enabled = true, resources = {} }
    agents.off = { uuid = "off", hostname = "h", status = "Disabled", enabled = false, resources = {} }
    agents.new = { uuid = "new", hostname = "h", status = "Pending", enabled = false, resources = {} }
    agents.busy = { uuid = "busy", hostname = "h", status = "Building", enabled = true, resources = {} }
    wait_for(3)
    expect(policy:tick()).to_launch(2)
    old, agents = false, {}
    load()
    agent("theirs", "Idle")
    agent("off", "Idle", "Disabled")
    agent("new", "Idle", "Pending")
    agent("busy", "Building")
    expect(policy:tick()).to_launch(2)
  end)

  it("gives agents what they need to be known, and what gocd-mesos gave them", function()
    local workload = load({ server = "https://go.example:8154/", agent_key = "key" }).table.workload
    expect(workload.env.GO_SERVER).to_equal("go.example")
    expect(workload.env.GO_SERVER_URL).to_equal("https://go.example:8154/go")
    expect(workload.env.AGENT_KEY).to_equal("key")
    expect(workload.uuid_env).to_equal("GO_AGENT_UUID")
    expect(workload.cpus).to_equal(1)
    expect(workload.memory).to_equal("256MiB")
    expect(workload.network).to_be_nil()
  end)

  it("says what is wrong with an answer, asks with what it was given, and looks less often while idle", function()
    load({ token = "go" })
    expect(policy:tick()).to_hold()
    expect(seen_options.bearer).to_equal("secret go")
    load({ user = "admin", password = "go" })
    policy:tick()
    expect(seen_options.basic).to_equal({ user = "admin", password = "secret go" })
    local decisions = policy:advance("20m")
    expect(#decisions).to_be_at_most(16)
    health = 401
    expect(policy:tick()).to_have_failed("expected status 200, got 401")
    health, agents = 200, nil
    expect(policy:tick()).to_have_failed("expected `_embedded.agents`")
  end)

  it("leaves alone what the server would not disable or enable", function()
    wait_for(1)
    policy:tick()
    register("Idle", "Pending")
    status_of_changes = 422
    policy:tick()
    expect(requests).to_equal({})
    agent(policy:tasks()[1].uuid, "Idle")
    wait_for(0)
    expect(policy:tick()).to_hold()
  end)

  it("enables again an agent that was to go and is wanted after all", function()
    wait_for(1)
    policy:tick()
    register("Idle")
    local uuid = policy:tasks()[1].uuid
    -- It gets a job between the two looks.
    on_disable = function()
      agents[uuid].agent_state, agents[uuid].build_state = "Building", "Building"
    end
    wait_for(0)
    expect(policy:tick()).to_hold()
    on_disable = nil
    policy:tick()
    expect(requests).to_equal({ "Disabled " .. uuid, "Enabled " .. uuid })
  end)

  it("makes a load of a trace in simulations", function()
    local tasks = {
      { id = "a", uuid = "a", state = "running" },
      { id = "b", uuid = "b", state = "running" },
      { id = "c", uuid = "c", state = "staging" },
    }
    expect(policy.table.metric({ trace = 5.2, tasks = tasks })).to_equal(3)
    expect(policy.table.decide()).to_equal({ desired = 5 })
    expect(policy.table.metric({ trace = 1, tasks = tasks })).to_equal(0)
    expect(policy.table.decide()).to_equal({ desired = 1 })
  end)

  it("refuses a rule that it does not know", function()
    expect(function()
      load({ rule = "whim" })
    end).to_error("expected rule=demand or rule=polls")
  end)
end)
