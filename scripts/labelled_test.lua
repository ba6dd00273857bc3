-- labelled_test.lua: groups of containers that ask for it by labels, and how their clones come and go.

describe("labelled", function()
  local function container(id, cpu, labels, more)
    local made = { id = id, name = id, labels = labels, cpu_percent = cpu, memory_percent = 0, running = true }
    for key, value in pairs(more or {}) do
      made[key] = value
    end
    return made
  end

  -- These stay as they are under `setpoint simulate --fakes`, where what they use is the load.
  local containers = {
    container("web", 0, { ["setpoint.metric"] = "cpu", ["setpoint.max"] = "20" }),
    container("cache", 0, { ["setpoint.metric"] = "memory", ["setpoint.target"] = "50" }),
  }
  local services = { { name = "api", replicas = 1, labels = { ["setpoint.metric"] = "cpu" } } }

  fakes({
    docker = {
      containers = function()
        return containers
      end,
      stats = function()
        return containers
      end,
      services = function()
        return services
      end,
      template = function(id)
        if id == "gone" then
          return nil
        end
        return {
          image = "shop/web",
          labels = { app = "web", ["com.docker.compose.service"] = "web" },
        }
      end,
    },
    log = { info = function() end },
  })

  before_each(function()
    services = {}
  end)

  it("clones the first container until the mean is near the target", function()
    local compose = "com.docker.compose.service"
    containers = {
      container("web", 180, { ["setpoint.metric"] = "cpu", ["setpoint.target"] = "60", [compose] = "web" }),
    }
    local policy
    policy = load_policy({
      task = function()
        return { cpu = 180 / (policy:running() + 1) }
      end,
    })
    local decision = policy:tick()
    expect(decision.sample).to_equal(180)
    expect(decision).to_launch(2)
    containers[1].cpu_percent = 60
    for _, later in ipairs(policy:advance("1m")) do
      expect(later).to_hold()
    end
    expect(policy.table.workload.labels).to_equal({ app = "web" })
  end)

  it("takes clones in when fewer have been enough for a while, and never the container itself", function()
    containers = { container("web", 10, { ["setpoint.metric"] = "cpu" }) }
    local policy = load_policy({ start = 3, task = { cpu = 5 } })
    policy:advance("30s")
    expect(policy:running()).to_equal(3)
    policy:advance("60s")
    expect(policy:running()).to_equal(0)
    policy:advance("2m")
    expect(policy:timeline()).to_match_golden("a load that goes")
  end)

  it("names groups by label, by Compose's service, or by the container", function()
    containers = {
      container("a", 60, { ["setpoint.metric"] = "cpu", ["setpoint.group"] = "front end" }),
      container("b", 60, { ["setpoint.metric"] = "cpu" }, { project = "shop", service = "api" }),
      container("c", 60, { ["setpoint.metric"] = "memory" }),
      container("clone", 60, { ["setpoint.metric"] = "cpu", ["setpoint.task"] = "x" }),
      container("gone", 60, { ["setpoint.metric"] = "cpu" }),
    }
    for _, name in ipairs({ "front-end", "shop_api", "c" }) do
      expect(load_policy({ row = name }).table.interval).to_equal("2s")
    end
    expect(function()
      load_policy({ row = "clone" })
    end).to_error("it found front-end, shop_api, c")
  end)

  it("holds memory by its share of the limit", function()
    local limit = 100 * 1048576
    containers = { container("cache", 1, { ["setpoint.metric"] = "memory", ["setpoint.max"] = "3" }) }
    containers[1].memory_percent = 95
    local policy = load_policy({ start = 1, task = { memory = 0.95 * limit, memory_limit = limit } })
    local decision = policy:tick({ advance = "1m" })
    expect(decision.sample).to_be_near(95)
    expect(decision.setpoint).to_equal(80)
    expect(policy:running()).to_be_at_most(2)
  end)

  it("changes nothing while a figure is missing", function()
    containers = { container("web", nil, { ["setpoint.metric"] = "cpu" }) }
    local policy = load_policy({ start = 2, task = { cpu = 0 } })
    for _, decision in ipairs(policy:advance("2m")) do
      expect(decision.sample_kind).to_equal("missing")
      expect(decision).to_hold()
    end
  end)

  it("scales a service of a Swarm itself, within its own bounds, and none that a policy has already", function()
    local labels = { ["setpoint.metric"] = "cpu", ["setpoint.min"] = "2", ["setpoint.max"] = "4" }
    containers = {}
    services = {
      { name = "api", replicas = 2, labels = labels },
      { name = "taken", replicas = 1, labels = { ["setpoint.metric"] = "cpu", ["setpoint.policy"] = "x" } },
      { name = "global", labels = labels },
    }
    local policy
    policy = load_policy({
      start = 2,
      task = function()
        return { cpu = 240 / policy:running() }
      end,
    })
    expect(policy.table.workload.service).to_equal("api")
    expect(policy:tick({ advance = "30s" })).to_launch(2)
    expect(function()
      load_policy({ row = "taken" })
    end).to_error("it found api")
  end)

  it("makes a load of a trace in simulations, beside the container that was there", function()
    containers = { container("web", 1, { ["setpoint.metric"] = "cpu" }) }
    expect(load_policy().table.simulate.metric({ trace = 90, running = 2 })).to_equal(30)
    containers, services = {}, { { name = "api", replicas = 1, labels = { ["setpoint.metric"] = "cpu" } } }
    local metric = load_policy().table.simulate.metric
    expect(metric({ trace = 90, running = 2 })).to_equal(45)
    expect(metric({ trace = 90, running = 0 })).to_be_nil()
  end)

  it("says which label is wrong", function()
    containers = { container("web", 1, { ["setpoint.metric"] = "disk" }) }
    expect(load_policy).to_error("expected cpu or memory, got disk")
    containers = { container("web", 1, { ["setpoint.metric"] = "cpu", ["setpoint.target"] = "much" }) }
    expect(load_policy).to_error("label setpoint.target: expected a number, got much")
  end)

  it("finds nothing where nobody asks", function()
    containers = {}
    expect(load_policy).to_error("this fleet found no rows")
  end)
end)
