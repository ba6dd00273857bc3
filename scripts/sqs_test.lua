-- sqs_test.lua: a consumer for every few messages, none for an empty queue, all kept while SQS refuses.

describe("sqs", function()
  -- What the queue holds: the spec's own here, the plant's under `setpoint simulate --fakes`.
  local depth, asked

  fakes(function(world)
    return {
      sqs = {
        depth = function(url, options)
          asked = { url = url, options = options }
          if world.queue then
            return { visible = world.queue, in_flight = world.served, delayed = 0 }
          elseif depth == nil then
            error("expected status 403, got 403: InvalidClientTokenId")
          end
          return depth
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

  before_each(function()
    depth = { visible = 0, in_flight = 0, delayed = 0 }
  end)

  it("launches what the messages are worth and comes down when they are gone", function()
    local policy = load()
    depth.visible = 47
    expect(policy:tick()).to_launch(5)
    depth.visible, depth.in_flight = 0, 12
    policy:advance("5m")
    expect(policy:running()).to_equal(2)
    depth.in_flight = 0
    policy:advance("1m")
    expect(policy:running()).to_equal(2)
    policy:advance("2m")
    expect(policy:running()).to_equal(0)
    expect(policy:timeline()).to_match_golden("a backlog")
  end)

  it("counts what it is told to count", function()
    depth = { visible = 10, in_flight = 20, delayed = 30 }
    expect(load():tick().sample).to_equal(30)
    expect(load({ in_flight = false }):tick().sample).to_equal(10)
    expect(load({ delayed = true }):tick().sample).to_equal(60)
  end)

  it("signs with the secrets that it is told", function()
    load({ session_token = "session", secret_key = "mine", region = "" }):tick()
    expect(asked.url).to_equal("http://127.0.0.1:4566/000000000000/jobs")
    expect(asked.options).to_equal({
      access_key = "secret aws_access_key",
      secret_key = "secret mine",
      session_token = "secret session",
      timeout = "5s",
    })
    load():tick()
    expect(asked.options.region).to_equal("eu-west-1")
    expect(asked.options.session_token).to_be_nil()
  end)

  it("keeps every consumer while SQS refuses", function()
    local policy = load(nil, 6)
    depth = nil
    for _, decision in ipairs(policy:advance("30m")) do
      expect(decision).to_have_failed("InvalidClientTokenId")
      expect(decision).to_hold()
    end
    expect(policy:running()).to_equal(6)
  end)

  it("has at most max consumers and always one while there are messages", function()
    for_all({ backlog = gen.trace({ max = 400 }), max = gen.integer({ min = 1, max = 30 }), runs = 30 }, function(input)
      local policy = load({ max = input.max })
      for _, messages in ipairs(input.backlog) do
        depth.visible = messages
        policy:tick()
        expect(policy:running()).to_be_at_most(input.max)
        expect(policy:running()).to_be_at_least(messages > 0 and 1 or 0)
      end
    end)
  end)

  it("asks for what its parameters say", function()
    local workload = load({ backend = "docker", image = "shop/consumer" }).table.workload
    expect(workload.command).to_be_nil()
    expect(workload.image).to_equal("shop/consumer")
    expect(workload.env.QUEUE_URL).to_contain("/jobs")
    expect(load({ command = "exec ./x" }).table.workload.command).to_equal("exec ./x")
    expect(load().table.simulate.metric({ plant = { queue = 7, served = 2 } })).to_equal(9)
  end)
end)
