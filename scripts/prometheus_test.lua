-- prometheus_test.lua: a task for each share of a load, an average held, and nothing without a sample.

describe("prometheus", function()
  -- What the server says: the spec's own value here, the load under `setpoint simulate --fakes`.
  local value, asked

  fakes(function(world)
    return {
      prometheus = {
        query = function(url, query, options)
          asked = { url = url, query = query, options = options }
          if value == "down" then
            error("connection refused")
          end
          return value or world.trace
        end,
      },
      secret = {
        get = function(name)
          return "secret " .. name
        end,
      },
    }
  end)

  local function load(params, start)
    return load_policy({ params = params, start = start })
  end

  it("has a task for each share of the load", function()
    local policy = load()
    value = 730
    expect(policy:tick()).to_launch(8)
    expect(asked.url).to_equal("http://127.0.0.1:9090")
    expect(asked.query).to_contain("http_requests_total")
    expect(asked.options.bearer).to_be_nil()
    value = 850
    expect(policy:tick()).to_hold()
    value = 2000
    local decision = policy:tick()
    expect(decision).to_launch(2)
    expect(decision).to_have_reason("max")
  end)

  it("waits before it takes tasks in, and keeps min", function()
    local policy = load({ wait = "1m" }, 5)
    value = 90
    policy:advance("50s")
    expect(policy:running()).to_equal(5)
    policy:advance("30s")
    expect(policy:running()).to_equal(1)
    value = 0
    policy:advance("5m")
    expect(policy:running()).to_equal(1)
    expect(policy:timeline()).to_match_golden("a load that goes")
  end)

  it("changes nothing without a sample", function()
    local policy = load(nil, 4)
    for _, nothing in ipairs({ false, "down" }) do
      value = nothing or nil
      for _, decision in ipairs(policy:advance("20m")) do
        expect(decision.sample_kind).to_equal(nothing and "error" or "missing")
        expect(decision).to_hold()
      end
    end
  end)

  it("holds an average", function()
    local policy = load({ of = "average", target = 60, reduce = "avg", token = "prom" }, 4)
    value = 62
    expect(policy:tick()).to_hold()
    expect(asked.options.reduce).to_equal("avg")
    expect(asked.options.bearer).to_equal("secret prom")
    value = 120
    policy:advance("2m")
    expect(policy:running() > 4).to_be_true()
  end)

  it("keeps within its bounds whatever the load", function()
    for_all({ load = gen.trace({ max = 3000 }), max = gen.integer({ min = 1, max = 25 }), runs = 30 }, function(input)
      local policy = load({ max = input.max, wait = "30s" })
      for _, requests in ipairs(input.load) do
        value = requests
        policy:tick()
        expect(policy:running()).to_be_at_most(input.max)
        expect(policy:running()).to_be_at_least(1)
      end
    end)
  end)

  it("asks for what its parameters say", function()
    local params = { backend = "docker", image = "shop/web", port = 80, user = "scaler", password = "prom" }
    local policy = load(params)
    local workload = policy.table.workload
    expect(workload.command).to_be_nil()
    expect(workload.ports).to_equal({ http = 80 })
    value = 1
    policy:tick()
    expect(asked.options.basic).to_equal({ user = "scaler", password = "secret prom" })
    expect(load({ command = "exec ./web" }).table.workload.command).to_equal("exec ./web")
  end)

  it("makes a load of a trace in simulations", function()
    expect(load().table.simulate.metric({ trace = 30, running = 2 })).to_equal(30)
    expect(load({ of = "average" }).table.simulate.metric({ trace = 30, running = 2 })).to_equal(15)
  end)

  it("refuses what it does not know", function()
    expect(function()
      load({ of = "some" })
    end).to_error("of: expected total or average, got some")
  end)
end)
