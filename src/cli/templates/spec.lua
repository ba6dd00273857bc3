-- NAME_test.lua: what NAME.lua promises. Files that end in _test.lua are specs, not policies.
--   setpoint test NAME_test.lua
--
-- The policy's functions run under a virtual clock, with fakes in the place of the modules that reach outside; the
-- decisions are made by the code that makes them in earnest.

describe("NAME", function()
  local waiting, policy

  before_each(function()
    waiting = 0
    policy = load_policy({
      fakes = {
        fs = {
          count = function(folder)
            expect(folder).to_equal("jobs")
            return waiting
          end,
        },
      },
    })
  end)

  it("launches what the backlog is worth, and no more than its parameter says", function()
    waiting = 10
    expect(policy:tick()).to_launch(2)
    waiting = 1000
    policy:advance("10s")
    expect(policy:running()).to_equal(8)
  end)

  it("changes nothing while nothing waits, or while nobody knows", function()
    expect(policy:tick()).to_hold()
    waiting = 10
    policy:tick()
    expect(policy:tick({ missing = true })).to_have_reason("sample is missing")
    expect(policy:running()).to_equal(2)
  end)

  it("never runs more than max, whatever waits", function()
    for_all({ backlog = gen.trace({ max = 500 }) }, function(input)
      local fresh = load_policy({ fakes = { fs = { count = function() return waiting end } } })
      for _, files in ipairs(input.backlog) do
        waiting = files
        fresh:tick()
        expect(fresh:running()).to_be_at_most(fresh.table.workload.max)
      end
    end)
  end)
end)
