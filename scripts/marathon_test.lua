-- marathon_test.lua: absolute numbers to a Marathon that answers, and nothing while it does not. The server is a fake.

describe("marathon", function()
  local app, load_now, told, fault, asked, policy

  local function response(status, value)
    return {
      status = status,
      ok = status >= 200 and status < 300,
      json = function()
        return value
      end,
      number = function()
        return value
      end,
    }
  end

  local server = {
    get = function(url, options)
      asked[#asked + 1] = { url = url, options = options }
      if url:find("/v2/apps/", 1, true) then
        if fault == "away" then
          error("connection refused")
        elseif fault == "garbage" then
          return response(200, { message = "hello" })
        end
        return response(200, { app = app })
      end
      return response(200, load_now)
    end,
    put = function(url, options)
      expect(url).to_contain("/v2/apps/shop/consumer")
      if fault == "hang" then
        error("expected an answer within 4s, got none")
      elseif fault == "error" then
        return response(500)
      elseif fault == "locked" then
        return response(409)
      end
      told[#told + 1] = options.json.instances
      app.instances = options.json.instances
      return response(200, {})
    end,
  }

  local function load(params, start)
    params = params or {}
    params.app = params.app or "/shop/consumer"
    policy = load_policy({
      params = params,
      start = start or app.instances,
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
    -- The loop asks for the number before everything else.
    expect(policy.table.workload.count()).to_equal(app.instances)
    return policy
  end

  local function tick(options)
    pcall(policy.table.workload.count)
    return policy:tick(options)
  end

  before_each(function()
    app, load_now, told, fault, asked = { instances = 1, deployments = {} }, 0, {}, nil, {}
  end)

  it("adds one at a time until each has its share, and takes them away again", function()
    load()
    load_now = 35
    for _ = 1, 5 do
      tick()
    end
    expect(told).to_equal({ 2, 3, 4 })
    load_now = 5
    for _ = 1, 20 do
      tick()
    end
    expect(told).to_equal({ 2, 3, 4, 3, 2, 1 })
  end)

  it("goes as far at once as it may, and no further than max", function()
    load({ at_once = 3, max = 6 })
    load_now = 1000
    for _ = 1, 4 do
      tick()
    end
    expect(told).to_equal({ 4, 6 })
  end)

  it("leaves what is within the tolerance alone", function()
    app.instances = 2
    load()
    load_now = 21
    expect(tick()).to_hold()
    load_now = 23
    expect(tick()).to_launch(1)
  end)

  it("asks nothing of a Marathon that deploys, refuses, is locked, hangs or talks nonsense", function()
    app.instances = 3
    load()
    load_now = 100
    app.deployments = { { id = "d" } }
    tick()
    app.deployments = {}
    for _, what in ipairs({ "error", "locked", "hang", "away", "garbage" }) do
      fault = what
      for _ = 1, 5 do
        tick()
      end
    end
    expect(told).to_equal({})
    expect(policy:running()).to_equal(3)
    fault = nil
    tick()
    expect(told).to_equal({ 4 })
    fault = "garbage"
    expect(policy.table.workload.count).to_error("expected `app.instances`")
  end)

  it("changes nothing while there is no sample", function()
    app.instances = 5
    load()
    for _ = 1, 20 do
      expect(tick({ missing = true })).to_hold()
    end
    load_now = "many"
    load({ field = "queue.length" }, 5)
    load_now = { queue = {} }
    expect(tick()).to_have_failed("expected a number at `queue.length`")
    expect(told).to_equal({})
  end)

  it("finds the number within the metric's JSON, and holds an average", function()
    app.instances = 4
    load({ field = "hosts.2.cpu", of = "average", target = 50, at_once = 5 })
    load_now = { hosts = { { cpu = 1 }, { cpu = 50 } } }
    local decision = tick()
    expect(decision.sample).to_equal(50)
    expect(decision.setpoint).to_equal(50)
    expect(decision).to_hold()
  end)

  it("gives its secrets to Marathon only", function()
    load({ user = "scaler", password = "marathon" })
    tick()
    expect(asked[1].options.basic).to_equal({ user = "scaler", password = "secret marathon" })
    expect(asked[#asked].url).to_contain("/length")
    expect(asked[#asked].options.basic).to_be_nil()
    asked = {}
    load({ token = "dcos" })
    expect(asked[1].options.headers.Authorization).to_equal("secret dcos")
  end)

  it("makes a load of a trace in simulations", function()
    local metric = load().table.simulate.metric
    expect(metric({ trace = 30, running = 2 })).to_equal(30)
    expect(load({ of = "average" }).table.simulate.metric({ trace = 30, running = 2 })).to_equal(15)
  end)

  it("refuses what it does not know", function()
    expect(function()
      load({ of = "some" })
    end).to_error("of: expected total or average, got some")
  end)
end)
