-- NAME_test.lua: what NAME.lua promises. Files that end in _test.lua are specs, not policies.

local policy = require("NAME")

describe("NAME", function()
  it("wants the folder empty", function()
    expect(policy.target).equals(0)
  end)

  it("never runs more workers than its parameter says", function()
    expect(policy.workload.max).equals(8)
  end)
end)
