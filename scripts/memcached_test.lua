-- memcached_test.lua: one server more when they fill up, one less when the others can take its requests.

describe("memcached", function()
  local MiB = 1048576
  local use, cpu, requests, away

  local function load(options)
    options = options or {}
    options.start = options.start or 1
    options.fakes = {
      memcached = {
        stats = function(_, port)
          if away then
            error("connection refused")
          end
          return { cmd_get = requests[port] or 0, cmd_set = 0 }
        end,
      },
    }
    local ports, last = {}, 20000
    options.task = function(task)
      if not ports[task.id] then
        ports[task.id], last = last, last + 1
      end
      return { memory = use * MiB, cpu = cpu, ports = { memcached = ports[task.id] } }
    end
    local policy = load_policy(options)
    -- The first servers are to count as grown up.
    policy:tick({ advance = "2m" })
    return policy
  end

  before_each(function()
    use, cpu, requests, away = 10, 1, {}, false
  end)

  it("launches one when memory is short, and waits before the next", function()
    local policy = load()
    use = 60
    expect(policy:tick()).to_launch(1)
    for _, decision in ipairs(policy:advance("55s")) do
      expect(decision).to_hold()
    end
    policy:advance("10s")
    expect(policy:running()).to_equal(3)
  end)

  it("launches one when the processors are busy", function()
    local policy = load()
    cpu = 31
    local decision = policy:tick()
    expect(decision.sample).to_be_near(31 / 30)
    expect(decision).to_launch(1)
  end)

  it("never takes one in unless it is told to", function()
    local policy = load({ start = 5 })
    use, cpu = 0, 0
    for _, decision in ipairs(policy:advance("1h")) do
      expect(decision).to_hold()
    end
  end)

  it("takes one in when the others would not be busy, and not two at once", function()
    local policy = load({ start = 4, params = { scale_in = 500 } })
    -- 300 a second on each of four.
    for second = 5, 60, 5 do
      for slot = 0, 3 do
        requests[20000 + slot] = second * 300
      end
      policy:tick()
    end
    expect(policy:running()).to_equal(3)
  end)

  it("keeps all while one does not say how busy it is", function()
    local policy = load({ start = 3, params = { scale_in = 500 } })
    away = true
    for _, decision in ipairs(policy:advance("2m")) do
      expect(decision).to_hold()
    end
  end)

  it("never grows beyond max and always keeps min", function()
    for_all({ used = gen.trace({ max = 64, length = 60 }), max = gen.integer({ min = 1, max = 5 }) }, function(input)
      local policy = load({ params = { max = input.max, throttle = "5s" } })
      for _, value in ipairs(input.used) do
        use = value
        policy:tick()
        expect(policy:running()).to_be_at_most(input.max)
        expect(policy:running()).to_be_at_least(1)
      end
    end)
  end)

  it("fills up with a trace in simulations", function()
    local metric = load().table.simulate.metric
    expect(metric({ trace = 96, running = 3 })).to_be_near(50 / 80)
    expect(metric({ trace = 900, running = 3 })).to_be_near(100 / 80)
    expect(metric({ trace = 1, running = 0 })).to_be_nil()
  end)

  it("gives items nine tenths of the memory, and runs without an engine, too", function()
    expect(load({ params = { memory = 1000 } }).table.workload.command).to_equal({ "-m", "900" })
    local here = load({ params = { backend = "local", memory = 64 } }).table.workload
    expect(here.command).to_contain("-m 57")
    expect(here.image).to_be_nil()
  end)
end)
