-- thermostat_test.lua: the number of tasks follows the shape, one for one.

describe("thermostat", function()
  it("comes to a fixed target at once and replaces what ends", function()
    local policy = load_policy({ params = { shape = "fixed", target = 20 } })
    expect(policy:tick()).to_launch(20)
    expect(policy:tick()).to_hold()
    expect(policy:finish(3)).to_equal(3)
    expect(policy:tick()).to_launch(3)
    expect(policy:running()).to_equal(20)
  end)

  it("goes down when the target does", function()
    local policy = load_policy({ params = { shape = "fixed" }, start = 30 })
    expect(policy:tick({ target = 12 })).to_kill(18)
    expect(policy:tasks()).to_have_length(12)
  end)

  it("never asks for what is on its way already", function()
    local policy = load_policy({ params = { shape = "fixed" }, startup = "300ms" })
    expect(policy:tick()).to_launch(20)
    for _, decision in ipairs(policy:advance("1s")) do
      expect(decision).to_hold()
    end
    expect(policy:running()).to_equal(20)
  end)

  it("follows the square wave", function()
    local policy = load_policy({ params = { shape = "square" } })
    policy:advance("31s")
    expect(policy:timeline()).to_match_golden("square wave")
  end)

  it("stays within its bounds whatever the target", function()
    local inputs = { targets = gen.trace({ max = 300 }), max = gen.integer({ min = 1, max = 150 }), runs = 20 }
    for_all(inputs, function(input)
      local policy = load_policy({ params = { max = input.max } })
      for _, target in ipairs(input.targets) do
        policy:tick({ target = target })
        expect(policy:running()).to_equal(math.min(target, input.max))
      end
    end)
  end)

  it("obeys Relay's law when it is told to", function()
    local policy = load_policy({ params = { law = "relay", shape = "fixed" } })
    policy:advance("20s")
    expect(policy:running()).to_equal(20)
  end)

  it("refuses a shape that it does not know", function()
    expect(function()
      load_policy({ params = { shape = "round" } })
    end).to_error("expected fixed, oscillating, square or sine, got round")
  end)
end)
