-- cpu_test.lua: tasks share a load, and each is held at its target; what is not known changes nothing.

describe("cpu", function()
  -- Own tasks that share `load` percent of a core.
  local function sharing(load, options)
    local policy
    options = options or {}
    options.params = options.params or {}
    options.fakes = options.fakes or { docker = {}, process = {} }
    options.task = function()
      return { cpu = load() / math.max(policy:running(), 1), container = "own" }
    end
    policy = load_policy(options)
    return policy
  end

  it("has as many tasks as bring each nearest to the target", function()
    local load = 100
    local policy = sharing(function()
      return load
    end, { start = 1 })
    policy:advance("20s")
    expect(policy:running()).to_equal(2)
    load = 220
    policy:advance("20s")
    expect(policy:running()).to_equal(4)
    load = 60
    policy:advance("20s")
    expect(policy:running()).to_equal(4)
    policy:advance("60s")
    expect(policy:running()).to_equal(1)
  end)

  it("waits until a change shows before the next one", function()
    local policy = sharing(function()
      return 500
    end, { start = 1, startup = "4s" })
    policy:advance("60s")
    expect(policy:running()).to_equal(10)
    expect(policy:timeline()).to_match_golden("a load of five cores")
  end)

  it("changes nothing while the figure of one task is missing", function()
    local policy = load_policy({ start = 3, fakes = { docker = {}, process = {} } })
    for _, decision in ipairs(policy:advance("1m")) do
      expect(decision.sample_kind).to_equal("missing")
      expect(decision).to_hold()
    end
  end)

  it("leaves a load within the tolerance alone", function()
    local policy = sharing(function()
      return 118
    end, { start = 2 })
    for _, decision in ipairs(policy:advance("2m")) do
      expect(decision).to_hold()
    end
  end)

  it("counts the containers of others", function()
    local asked
    local others = {
      { id = "web-1", labels = {}, cpu_percent = 160 },
      { id = "theirs", labels = { ["setpoint.task"] = "x" }, cpu_percent = 90 },
      { id = "own", labels = {}, cpu_percent = 80 },
    }
    local policy = load_policy({
      params = { of = "containers", project = "shop", service = "web", backend = "docker", image = "shop/web" },
      start = 1,
      task = { cpu = 80, container = "own" },
      fakes = {
        docker = {
          stats = function(which)
            asked = which
            return others
          end,
        },
        process = {},
      },
    })
    local decision = policy:tick({ advance = "10s" })
    expect(asked.project).to_equal("shop")
    expect(asked.service).to_equal("web")
    expect(decision.sample).to_equal(120)
    expect(decision).to_launch(3)
  end)

  it("burns what the machine has left", function()
    local busy = 20
    local policy = load_policy({
      params = { of = "machine", target = 60, max = 3 },
      fakes = {
        docker = {},
        process = {
          cpu_percent = function()
            return busy
          end,
        },
      },
    })
    expect(policy:tick()).to_launch(1)
    expect(policy:tick()).to_have_reason("cooldown")
    policy:advance("20s")
    expect(policy:running()).to_equal(3)
    busy = 95
    policy:advance("6s")
    expect(policy:running()).to_be_at_most(2)
  end)

  it("makes a load of a trace in simulations", function()
    local fakes = { docker = {}, process = {} }
    local function metric(params)
      return load_policy({ params = params, fakes = fakes }).table.simulate.metric
    end
    expect(metric()({ trace = 90, running = 3 })).to_equal(30)
    expect(metric()({ trace = 90, running = 0 })).to_be_nil()
    expect(metric({ of = "containers", name = "web*" })({ trace = 90, running = 2 })).to_equal(30)
    expect(metric({ of = "machine" })({ trace = 15, running = 2 })).to_equal(35)
  end)

  it("says what it cannot be of", function()
    expect(function()
      load_policy({ params = { of = "dreams" } })
    end).to_error("of: expected tasks, containers or machine, got dreams")
    expect(function()
      load_policy({ params = { of = "containers" } })
    end).to_error("expected a name, label, project, service or engine")
  end)
end)
