-- jobs_test.lua: a fixed number of jobs at work, free places filled at multiples of the wait.

describe("jobs", function()
  it("fills all places at once", function()
    local policy = load_policy({ params = { maxtasks = 3 } })
    expect(policy:tick()).to_launch(3)
    for _, decision in ipairs(policy:advance("2m")) do
      expect(decision).to_hold()
    end
  end)

  it("leaves a place free until the next multiple of the wait", function()
    local policy = load_policy({ params = { maxtasks = 3, wait = 60 } })
    policy:tick()
    policy:advance("70s")
    -- The minute came while all were at work: the first free place is filled at once.
    policy:finish(1)
    expect(policy:tick()).to_launch(1)
    policy:finish(2)
    policy:advance("40s")
    expect(policy:running()).to_equal(1)
    policy:advance("10s")
    expect(policy:running()).to_equal(3)
    expect(policy:timeline()).to_match_golden("places that become free")
  end)

  it("fills a place as soon as it is free without a wait", function()
    local policy = load_policy({ params = { wait = 0 } })
    policy:tick()
    policy:finish(2)
    expect(policy:tick()).to_launch(2)
  end)

  it("ends when too many have failed", function()
    local policy = load_policy({ params = { max_failures = 2, wait = 0 } })
    policy:tick()
    policy:finish(2, 1)
    expect(policy:ended()).to_contain("2 failures")
  end)

  it("asks for what its parameters say", function()
    local params = { backend = "docker", img = "shop/etl", cmd = "", mem = 128, user = "etl" }
    local workload = load_policy({ params = params }).table.workload
    expect(workload.command).to_be_nil()
    expect(workload.image).to_equal("shop/etl")
    expect(workload.memory).to_equal("128MiB")
    expect(workload.user).to_equal("etl")
  end)
end)
