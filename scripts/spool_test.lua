-- spool_test.lua: as many workers as files wait and claims are held.

describe("spool", function()
  local files, policy

  local function load(options)
    options = options or {}
    options.fakes = {
      fs = {
        count = function(folder)
          return files[folder] or error("no folder " .. folder)
        end,
        exists = function(path)
          return files[path] ~= nil
        end,
      },
    }
    return load_policy(options)
  end

  before_each(function()
    files = { spool = 0 }
    policy = load()
  end)

  it("launches a worker for each file, up to max", function()
    files.spool = 3
    expect(policy:tick()).to_launch(3)
    files.spool = 50
    local decision = policy:tick()
    expect(decision).to_launch(5)
    expect(decision).to_have_reason("max")
  end)

  it("counts claims that dead workers left", function()
    files["spool/work"] = 2
    local decision = policy:tick()
    expect(decision.sample).to_equal(2)
    expect(decision).to_launch(2)
  end)

  it("lets workers go once fewer have been enough for two seconds", function()
    files.spool = 4
    policy:tick()
    files.spool = 0
    expect(policy:tick()).to_have_reason("stabilization")
    policy:advance("3s")
    expect(policy:running()).to_equal(0)
    expect(policy:timeline()).to_match_golden("a burst")
  end)

  it("changes nothing while the folder cannot be counted", function()
    files.spool = 4
    policy:tick()
    files = {}
    for _ = 1, 10 do
      local decision = policy:tick()
      expect(decision).to_have_failed("no folder spool")
      expect(decision).to_hold()
    end
    expect(policy:running()).to_equal(4)
  end)

  it("replaces a worker that dies", function()
    files.spool = 2
    policy:tick()
    policy:finish(1, 1)
    policy:advance("5s")
    expect(policy:running()).to_equal(2)
  end)

  it("takes its parameters", function()
    policy = load({ params = { folder = "in", per_worker = 5, max = 3 } })
    files["in"] = 11
    expect(policy:tick()).to_launch(3)
    expect(policy.table.workload.env.SPOOL).to_equal("in")
    expect(policy.table.simulate.metric({ plant = { queue = 7, served = 2 } })).to_equal(9)
  end)
end)
