-- keep_test.lua: the number is held, whatever becomes of tasks; those that fail over and over are not hammered.

describe("keep", function()
  it("starts them at once and holds the number", function()
    local policy = load_policy({ params = { n = 3 } })
    expect(policy:tick()).to_launch(3)
    for _, decision in ipairs(policy:advance("10m")) do
      expect(decision).to_hold()
    end
    expect(policy:running()).to_equal(3)
  end)

  it("replaces what ends, well or not", function()
    local policy = load_policy({ params = { n = 3 } })
    policy:tick()
    policy:finish(1, 0)
    policy:advance("3s")
    expect(policy:running()).to_equal(3)
    policy:finish(3, 9)
    policy:advance("10s")
    expect(policy:running()).to_equal(3)
  end)

  it("never has more than it keeps, nor for long fewer, whoever dies when", function()
    for_all({ deaths = gen.list(gen.integer({ max = 4 }), { max = 20 }), runs = 30 }, function(input)
      local policy = load_policy({ params = { n = 4, backoff_max = "4s" }, startup = "2s" })
      for _, dead in ipairs(input.deaths) do
        policy:tick()
        policy:finish(dead, 1)
        expect(#policy:tasks()).to_be_at_most(4)
      end
      policy:advance("30s")
      expect(policy:running()).to_equal(4)
    end)
  end)

  it("does not hammer what fails at once", function()
    local policy = load_policy({ params = { n = 1 } })
    local started = 0
    for _ = 1, 300 do
      policy:tick()
      started = started + policy:finish(1, 1)
    end
    -- Five minutes: after 1, 2, 4, 8, 16, 32 s and then a minute each.
    expect(started).to_be_at_most(12)
  end)

  it("asks for what its parameters say", function()
    local params = {
      backend = "docker",
      image = "redis:7",
      port = 6379,
      health = "redis-cli ping",
      user = "redis",
      rolling = true,
      n = 5,
      max = 2,
    }
    local workload = load_policy({ params = params }).table.workload
    expect(workload.command).to_be_nil()
    expect(workload.image).to_equal("redis:7")
    expect(workload.ports).to_equal({ http = 6379 })
    expect(workload.ready).to_equal("healthy")
    expect(workload.replace).to_equal("rolling")
    expect(workload.min).to_equal(5)
    expect(workload.max).to_equal(5)
    local own = load_policy({ params = { backend = "docker", image = "busybox", command = "exec ./x" } })
    expect(own.table.workload.command).to_equal("exec ./x")
    local plain = load_policy().table.workload
    expect(plain.command).to_contain("sleep")
    expect(plain.ready).to_be_nil()
    expect(plain.replace).to_equal("keep")
  end)
end)
