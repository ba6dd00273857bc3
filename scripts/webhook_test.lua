-- webhook_test.lua: what is promised is waited for, a no is asked again, and silence is taken for a promise.

describe("webhook", function()
  local workers, length, calls, fault, policy, headers

  local function response(status, body)
    return {
      status = status,
      ok = status >= 200 and status < 300,
      number = function()
        return body
      end,
      json = function()
        if type(body) ~= "table" then
          error("not JSON")
        end
        return body
      end,
    }
  end

  local server = {
    get = function(url, options)
      headers = options
      if fault == "away" then
        error("connection refused")
      end
      local at = url:match("^http://farm:9000/(%a+)$")
      local value = at == "workers" and workers or at == "length" and length
      return response(200, value or { queue = { 7, length }, count = workers })
    end,
    post = function(url, options)
      if fault == "error" then
        return response(503)
      elseif fault == "refused" then
        error("http://farm:9000: connection refused")
      end
      calls[#calls + 1] = { url = url, json = options.json, key = options.headers["Idempotency-Key"] }
      local n = fault == "half" and math.floor(options.json.n / 2) or options.json.n
      workers = workers + (url:find("warmer", 1, true) and -n or n)
      if fault == "hang" then
        error("expected an answer within 3s, got none")
      elseif fault == "half" then
        return response(202, { accepted = n })
      end
      return response(204)
    end,
  }

  local function load(params)
    params = params or {}
    params.base = "http://farm:9000/"
    policy = load_policy({
      params = params,
      start = workers,
      fakes = {
        http = server,
        log = { warn = function() end },
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
    workers, length, calls, fault = 0, 0, {}, nil
  end)

  it("calls the cooler when the load is too much, with all that one needs to know", function()
    load({ token = "farm" })
    length = 35
    local decision = policy:tick()
    expect(decision).to_launch(4)
    expect(#calls).to_equal(1)
    expect(calls[1].url).to_equal("http://farm:9000/cooler")
    expect(calls[1].json.n).to_equal(4)
    expect(calls[1].json.desired).to_equal(4)
    expect(calls[1].json.running).to_equal(0)
    expect(calls[1].json.sample).to_equal(35)
    expect(calls[1].json.policy).to_equal("webhook")
    expect(calls[1].key).to_equal(calls[1].json.key)
    expect(headers.bearer).to_equal("secret farm")
  end)

  it("calls the warmer when fewer have been enough for a while", function()
    workers = 5
    load({ cooler = "https://else.example/c" })
    length = 12
    for _ = 1, 10 do
      policy:tick()
    end
    expect(#calls).to_equal(1)
    expect(calls[1].url).to_equal("http://farm:9000/warmer")
    expect(calls[1].json.n).to_equal(3)
    expect(calls[1].json.desired).to_equal(2)
    length = 100
    policy:tick()
    expect(calls[2].url).to_equal("https://else.example/c")
  end)

  it("asks again after a no, and takes silence for a promise", function()
    load({ max = 3 })
    length = 100
    for _, what in ipairs({ "error", "refused" }) do
      fault = what
      for _ = 1, 3 do
        expect(policy:tick()).to_hold()
      end
    end
    expect(#calls).to_equal(0)
    fault = "hang"
    expect(policy:tick()).to_launch(3)
    for _ = 1, 5 do
      policy:tick()
    end
    expect(#calls).to_equal(1)
  end)

  it("believes what was promised, and no more than was asked for", function()
    load()
    length, fault = 40, "half"
    expect(policy:tick()).to_launch(2)
    expect(policy:tick()).to_launch(1)
  end)

  it("changes nothing while it is away", function()
    workers = 6
    load()
    fault = "away"
    for _ = 1, 20 do
      local decision = policy:tick()
      expect(decision).to_have_failed("connection refused")
      expect(decision).to_hold()
    end
    expect(calls).to_equal({})
  end)

  it("finds numbers in JSON, and says when there is none", function()
    workers, length = 3, 30
    load({ metric = "all", metric_field = "queue.2", count = "all", count_field = "count", at_once = 2 })
    expect(policy.table.workload.count()).to_equal(3)
    expect(policy:tick().sample).to_equal(30)
    load({ metric = "all", metric_field = "queue.length" })
    expect(policy:tick()).to_have_failed("expected a number at `queue.length`")
  end)

  it("holds an average, which workers may heat as well", function()
    workers, length = 4, 10
    load({ of = "average" })
    expect(policy:tick()).to_hold()
    load({ of = "average", effect = "heats", target = 50 })
    policy:tick()
    expect(calls[1].url).to_equal("http://farm:9000/warmer")
    expect(calls[1].json.desired > 4).to_be_true()
  end)

  it("never promises itself more than max", function()
    for_all({ load = gen.trace({ max = 300 }), max = gen.integer({ min = 1, max = 20 }), runs = 30 }, function(input)
      load({ max = input.max })
      for _, value in ipairs(input.load) do
        length = value
        policy:tick()
        expect(policy:running()).to_be_at_most(input.max)
      end
    end)
  end)

  it("makes a load of a trace in simulations", function()
    expect(load().table.simulate.metric({ trace = 30, running = 2 })).to_equal(30)
    expect(load({ of = "average" }).table.simulate.metric({ trace = 30, running = 2 })).to_equal(15)
  end)

  it("refuses what it does not know", function()
    expect(function()
      load({ of = "some" })
    end).to_error("of: expected total or average, got some")
    expect(function()
      load({ effect = "heats" })
    end).to_error("expected effect=cools")
  end)
end)
