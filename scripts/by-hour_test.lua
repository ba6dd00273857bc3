-- by-hour_test.lua: the plan on the walls of its time zone, over midnight and over changes of the clocks.

describe("by-hour", function()
  local function running(now, params)
    local policy = load_policy({ now = now, params = params })
    policy:tick()
    return policy:running()
  end

  it("has the plan's numbers in Berlin by default", function()
    -- A Wednesday in winter: Berlin is an hour ahead.
    expect(running("2026-01-14T06:59:59Z")).to_equal(1)
    expect(running("2026-01-14T07:00:00Z")).to_equal(10)
    expect(running("2026-01-14T16:59:59Z")).to_equal(10)
    expect(running("2026-01-14T17:00:00Z")).to_equal(4)
    expect(running("2026-01-14T21:00:00Z")).to_equal(1)
    -- In summer two.
    expect(running("2026-07-15T06:00:00Z")).to_equal(10)
    -- Saturday and Sunday.
    expect(running("2026-01-17T09:00:00Z")).to_equal(2)
    expect(running("2026-01-18T09:00:00Z")).to_equal(1)
  end)

  it("changes when the hour does, up and down", function()
    local policy = load_policy({ now = "2026-01-14T16:59:40Z" })
    policy:advance("40s")
    expect(policy:running()).to_equal(4)
    expect(policy:timeline()).to_match_golden("the end of a working day")
  end)

  it("gives a window over midnight to the day on which it begins", function()
    local params = { plan = "fri 22:00-02:00 7", zone = "UTC", otherwise = 0 }
    expect(running("2026-01-16T21:59:00Z", params)).to_equal(0)
    expect(running("2026-01-16T22:00:00Z", params)).to_equal(7)
    expect(running("2026-01-17T01:59:00Z", params)).to_equal(7)
    expect(running("2026-01-17T02:00:00Z", params)).to_equal(0)
    expect(running("2026-01-16T01:00:00Z", params)).to_equal(0)
  end)

  it("opens an hour that the clocks repeat both times", function()
    local params = { plan = "sun 02:00-03:00 5", otherwise = 0 }
    -- The 25th of October 2026 in Berlin: 02:30 is at 00:30 and at 01:30 UTC.
    expect(running("2026-10-25T00:30:00Z", params)).to_equal(5)
    expect(running("2026-10-25T01:30:00Z", params)).to_equal(5)
    expect(running("2026-10-25T02:30:00Z", params)).to_equal(0)
  end)

  it("reads ranges of days that go over the week's end", function()
    local params = { plan = "sat-mon 00:00-24:00 3", zone = "UTC", otherwise = 1 }
    expect(running("2026-01-17T12:00:00Z", params)).to_equal(3)
    expect(running("2026-01-19T12:00:00Z", params)).to_equal(3)
    expect(running("2026-01-20T12:00:00Z", params)).to_equal(1)
  end)

  it("says what is wrong with a plan", function()
    for plan, told in pairs({
      ["mon 8-9 1"] = "expected a time such as `08:00`",
      ["mon 08:00-25:00 1"] = "expected a time such as `08:00`",
      ["moon 08:00-09:00 1"] = "expected a day such as `mon`, got `moon`",
      ["nonsense"] = "expected `mon-fri 08:00-18:00 10`, got `nonsense`",
    }) do
      expect(function()
        load_policy({ params = { plan = plan } })
      end).to_error(told)
    end
  end)
end)
