-- queue_test.lua: a consumer for every few jobs, none for an empty list.

describe("queue", function()
  -- What waits and what is in hand: the spec's own here, the plant's under `setpoint simulate --fakes`.
  local list, url
  local asked = {}

  fakes(function(world)
    return {
      redis = {
        connect = function(address)
          url = address
          return {
            llen = function(_, key)
              asked.list = key
              return world.queue
            end,
            hlen = function(_, key)
              asked.hash = key
              return world.served
            end,
          }
        end,
      },
    }
  end)

  local function load(options)
    options = options or {}
    options.world = list
    options.params = options.params or {}
    options.params.list = "mails"
    return load_policy(options)
  end

  before_each(function()
    list = { queue = 0, served = 0 }
  end)

  it("launches what the backlog is worth and comes down when it is gone", function()
    local policy = load()
    list.queue = 23
    expect(policy:tick()).to_launch(5)
    expect(asked).to_equal({ list = "mails", hash = "mails:work" })
    expect(url).to_equal("redis://127.0.0.1:6379")
    list.queue, list.served = 0, 5
    policy:advance("3s")
    expect(policy:running()).to_equal(1)
    list.served = 0
    policy:advance("3s")
    expect(policy:running()).to_equal(0)
    expect(policy:timeline()).to_match_golden("a backlog")
  end)

  it("keeps one while a job is in hand", function()
    local policy = load({ start = 1 })
    list.served = 1
    for _, decision in ipairs(policy:advance("10s")) do
      expect(decision).to_hold()
    end
  end)

  it("holds through an outage of Redis", function()
    local policy = load({ params = { url = "redis://queue:6379" } })
    list.queue = 12
    policy:tick()
    list.queue = nil
    for _, decision in ipairs(policy:advance("30s")) do
      expect(decision.sample_kind).to_equal("error")
      expect(decision).to_hold()
    end
    expect(policy:running()).to_equal(3)
  end)

  it("takes the plant's queue for the list in simulations", function()
    expect(load().table.simulate.metric({ plant = { queue = 7, served = 2 } })).to_equal(9)
  end)

  it("has at most max consumers and always one while jobs wait", function()
    for_all({ backlog = gen.trace({ max = 400 }), max = gen.integer({ min = 1, max = 40 }) }, function(input)
      local policy = load({ params = { max = input.max } })
      for _, jobs in ipairs(input.backlog) do
        list.queue = jobs
        policy:tick()
        expect(policy:running()).to_be_at_most(input.max)
        expect(policy:running()).to_be_at_least(jobs > 0 and 1 or 0)
      end
    end)
  end)
end)
