-- What specs see beyond what policies do: describe and it, expect, fakes, load_policy, for_all and gen. Runs once in a
-- spec's VM; returns the globals, the list of cases, what ends their collection, and what gives the file's fakes.
--
-- Failures are raised by the host (`host.fail`), which knows where they were raised; the words are made here.

local host = ...

local error, ipairs, next, pairs, pcall, rawequal, rawget, setmetatable, tostring, type, unpack =
  error, ipairs, next, pairs, pcall, rawequal, rawget, setmetatable, tostring, type, unpack
local abs, floor, huge = math.abs, math.floor, math.huge
local concat, insert, remove, sort, freeze = table.concat, table.insert, table.remove, table.sort, table.freeze
local find, format, sub = string.find, string.format, string.sub
local info = debug.info

-- Values in words ----------------------------------------------------------------------------------------------------

local DECISION = { __metatable = false }

-- Most characters of a value in a message.
local LONG = 400

local function sorted_keys(value)
  local keys = {}
  for key in next, value do
    keys[#keys + 1] = key
  end
  sort(keys, function(a, b)
    if type(a) == type(b) and (type(a) == "number" or type(a) == "string") then
      return a < b
    end
    return type(a) < type(b)
  end)
  return keys
end

local function written(value, depth)
  if type(value) == "string" then
    return format("%q", value):gsub("\\\n", "\\n")
  elseif type(value) == "number" and value == floor(value) and abs(value) < 1e15 then
    return format("%d", value)
  elseif type(value) ~= "table" then
    return tostring(value)
  elseif depth == 0 then
    return "{…}"
  end
  local parts, length = {}, 0
  for _, key in sorted_keys(value) do
    local text = written(rawget(value, key), depth - 1)
    if type(key) ~= "number" then
      local plain = type(key) == "string" and find(key, "^[%a_][%w_]*$")
      text = (plain and key or "[" .. written(key, 1) .. "]") .. " = " .. text
    end
    parts[#parts + 1] = text
    length = length + #text
    if length > LONG then
      parts[#parts + 1] = "…"
      break
    end
  end
  return #parts == 0 and "{}" or "{ " .. concat(parts, ", ") .. " }"
end

local function words(value)
  local text = written(value, 5)
  return #text > LONG and sub(text, 1, LONG) .. "…" or text
end

-- The path of the first difference of two values; nil where there is none.
local function difference(a, b, path, depth)
  if rawequal(a, b) or (a ~= a and b ~= b) then
    return nil
  elseif type(a) ~= "table" or type(b) ~= "table" or depth == 0 then
    return path
  end
  for _, key in sorted_keys(a) do
    local inner = type(key) == "number" and "[" .. tostring(key) .. "]" or "." .. tostring(key)
    local found = difference(rawget(a, key), rawget(b, key), path .. inner, depth - 1)
    if found then
      return found
    end
  end
  for _, key in sorted_keys(b) do
    if rawget(a, key) == nil then
      return path .. (type(key) == "number" and "[" .. tostring(key) .. "]" or "." .. tostring(key))
    end
  end
  return nil
end

local function equal(a, b)
  return difference(a, b, "", 50) == nil
end

local function check(what, value, wanted)
  if type(value) ~= wanted then
    error(what .. ": expected a " .. wanted .. ", got " .. words(value), 3)
  end
end

local function check_keys(what, options, known)
  for key in pairs(options) do
    local found = false
    for _, name in ipairs(known) do
      found = found or name == key
    end
    if not found then
      error(host.unknown(what, key, known), 3)
    end
  end
end

-- Expectations -------------------------------------------------------------------------------------------------------

-- Each gives whether it holds, and how an expectation of it is told: what was expected, and what came.
local matchers = {}

function matchers.to_equal(value, expected)
  local path = difference(value, expected, "", 50)
  local got = words(value)
  if path and path ~= "" then
    got = got .. ", which differs at " .. path
  end
  return path == nil, words(expected), got
end

function matchers.to_be(value, expected)
  return rawequal(value, expected), words(expected) .. " itself", words(value)
end

function matchers.to_be_near(value, expected, within)
  within = within or 1e-9
  local near = type(value) == "number" and abs(value - expected) <= within
  return near, words(expected) .. " ± " .. tostring(within), words(value)
end

function matchers.to_be_at_least(value, least)
  return type(value) == "number" and value >= least, "at least " .. words(least), words(value)
end

function matchers.to_be_at_most(value, most)
  return type(value) == "number" and value <= most, "at most " .. words(most), words(value)
end

function matchers.to_be_true(value)
  return value == true, "true", words(value)
end

function matchers.to_be_false(value)
  return value == false, "false", words(value)
end

function matchers.to_be_nil(value)
  return value == nil, "nil", words(value)
end

function matchers.to_be_a(value, kind)
  return type(value) == kind, "a " .. kind, words(value)
end

function matchers.to_have_length(value, length)
  local is = (type(value) == "table" or type(value) == "string") and #value or nil
  return is == length, "a length of " .. words(length), is and words(is) .. ": " .. words(value) or words(value)
end

function matchers.to_match(value, pattern)
  return type(value) == "string" and find(value, pattern) ~= nil, "text like " .. words(pattern), words(value)
end

function matchers.to_contain(value, item)
  local found = false
  if type(value) == "string" then
    found = type(item) == "string" and find(value, item, 1, true) ~= nil
  elseif type(value) == "table" then
    for _, other in pairs(value) do
      found = found or equal(other, item)
    end
  end
  return found, "something that contains " .. words(item), words(value)
end

function matchers.to_error(value, part)
  if type(value) ~= "function" then
    error("to_error: expected a function, got " .. words(value), 3)
  end
  local ok, problem = pcall(value)
  local expected = part and "an error that contains " .. words(part) or "an error"
  if ok then
    return false, expected, "none"
  end
  local text = host.error_text(problem)
  return part == nil or find(text, part, 1, true) ~= nil, expected, words(text)
end

local function decision(value, matcher)
  if type(value) ~= "table" or value.kind ~= "decision" then
    error(matcher .. ": expected a decision, as `policy:tick()` gives it, got " .. words(value), 4)
  end
  return value
end

local function told(value)
  local parts = {}
  for _, reason in ipairs(value.reasons) do
    parts[#parts + 1] = reason.text
  end
  for _, problem in ipairs(value.errors) do
    parts[#parts + 1] = problem
  end
  local text = value.launched > 0 and "a launch of " .. value.launched or nil
  if value.killed > 0 then
    text = (text and text .. " and " or "") .. "a kill of " .. value.killed
  end
  text = (text or "a hold") .. format(" (raw %+d)", value.raw)
  return #parts > 0 and text .. ": " .. concat(parts, "; ") or text
end

function matchers.to_launch(value, n)
  local got = decision(value, "to_launch")
  local holds = got.launched == (n or got.launched) and got.launched > 0 and got.killed == 0
  return holds, "a launch of " .. words(n or "any number"), told(got)
end

function matchers.to_kill(value, n)
  local got = decision(value, "to_kill")
  local holds = got.killed == (n or got.killed) and got.killed > 0 and got.launched == 0
  return holds, "a kill of " .. words(n or "any number"), told(got)
end

function matchers.to_hold(value)
  local got = decision(value, "to_hold")
  return got.launched == 0 and got.killed == 0, "a hold", told(got)
end

function matchers.to_have_reason(value, part)
  local got = decision(value, "to_have_reason")
  local found = false
  for _, reason in ipairs(got.reasons) do
    found = found or reason.guard == part or find(reason.text, part, 1, true) ~= nil
  end
  return found, "a reason of the guard, or with the words, " .. words(part), told(got)
end

function matchers.to_have_failed(value, part)
  local got = decision(value, "to_have_failed")
  local found = false
  for _, problem in ipairs(got.errors) do
    found = found or part == nil or find(problem, part, 1, true) ~= nil
  end
  return found, part and "an error of the policy that contains " .. words(part) or "an error of the policy", told(got)
end

function matchers.to_match_golden(value, name)
  check("to_match_golden", value, "string")
  check("to_match_golden", name, "string")
  local expected, got = host.golden(name, value)
  return expected == nil, expected, got
end

local matcher_names = {}
for name in pairs(matchers) do
  insert(matcher_names, name)
end
insert(matcher_names, "never")
sort(matcher_names)

local function expectation(value, wanted)
  return setmetatable({}, {
    __metatable = false,
    __index = function(_, name)
      if name == "never" then
        return expectation(value, not wanted)
      end
      local matcher = matchers[name]
      if not matcher then
        error(host.unknown("expect(…)", name, matcher_names), 2)
      end
      return function(...)
        local holds, expected, got = matcher(value, ...)
        if holds ~= wanted then
          local never = wanted and "" or "anything but "
          host.fail("expected " .. never .. expected .. ", got " .. got)
        end
      end
    end,
  })
end

-- Cases --------------------------------------------------------------------------------------------------------------

local cases, names, befores, afters = {}, {}, {}, {}
local collecting = true

local function collect(what)
  if not collecting then
    error(what .. ": expected while the spec is loaded, not within `it`", 3)
  end
end

local function describe(name, body)
  collect("describe")
  check("describe", name, "string")
  check("describe", body, "function")
  insert(names, name)
  local before, after = #befores, #afters
  body()
  while #befores > before do
    remove(befores)
  end
  while #afters > after do
    remove(afters)
  end
  remove(names)
end

local function case(name, body, skipped)
  local mine, first, last = { unpack(names) }, { unpack(befores) }, { unpack(afters) }
  insert(mine, name)
  insert(cases, {
    names = mine,
    line = math.max(0, info(body, "l") or 0),
    skipped = skipped,
    run = function()
      for _, before in first do
        before()
      end
      if #last == 0 then
        return body()
      end
      local ok, problem = pcall(body)
      for index = #last, 1, -1 do
        last[index]()
      end
      if not ok then
        error(problem, 0)
      end
    end,
  })
end

local function it(name, body)
  collect("it")
  check("it", name, "string")
  check("it", body, "function")
  case(name, body, false)
end

local function skip(name, body)
  collect("skip")
  check("skip", name, "string")
  check("skip", body, "function")
  case(name, body, true)
end

local function before_each(body)
  collect("before_each")
  check("before_each", body, "function")
  insert(befores, body)
end

local function after_each(body)
  collect("after_each")
  check("after_each", body, "function")
  insert(afters, body)
end

-- Policies -----------------------------------------------------------------------------------------------------------

local TICK_KEYS = { "advance", "age", "error", "metric", "missing", "target", "task" }
local LOAD_KEYS = { "fakes", "name", "now", "params", "row", "start", "startup", "stop", "task", "world" }

local policies = setmetatable({}, { __mode = "k" })
local Policy = {}

local function handle(policy, method)
  local own = policies[policy]
  if not own then
    error("policy:" .. method .. ": expected a policy, as load_policy gives it: write policy:" .. method .. "(…)", 3)
  end
  return own
end

-- What the tasks show, by their ids: `task(task)`, or the same table for all.
local function figures(own, source)
  if source == nil then
    return nil
  end
  local all = {}
  for _, task in host.tasks(own.number) do
    local shows = source
    if type(source) == "function" then
      shows = source(task)
    end
    all[task.id] = shows
  end
  return all
end

local function tick(own, options)
  return setmetatable(host.tick(own.number, options, figures(own, options.task or own.task)), DECISION)
end

local function ticking(options, what)
  options = options or {}
  if type(options) ~= "table" then
    error("policy:" .. what .. ": expected a table, got " .. words(options), 3)
  end
  check_keys("policy:" .. what, options, TICK_KEYS)
  return options
end

function Policy.tick(policy, options)
  local own = handle(policy, "tick")
  options = ticking(options, "tick")
  host.go(own.number, options.advance)
  return tick(own, options)
end

function Policy.advance(policy, duration, options)
  local own = handle(policy, "advance")
  options = ticking(options, "advance")
  if options.advance ~= nil then
    error("policy:advance: expected the duration as its first argument only", 2)
  end
  local finish = host.now(own.number) + host.milliseconds(duration)
  local decisions = {}
  while host.due(own.number) <= finish do
    host.go(own.number)
    decisions[#decisions + 1] = tick(own, options)
  end
  host.go_to(own.number, finish)
  return decisions
end

function Policy.tasks(policy)
  return host.tasks(handle(policy, "tasks").number)
end

function Policy.running(policy)
  local n = 0
  for _, task in Policy.tasks(policy) do
    n = n + (task.state == "running" and 1 or 0)
  end
  return n
end

function Policy.finish(policy, n, code)
  return host.finish(handle(policy, "finish").number, n, code or 0)
end

function Policy.timeline(policy)
  return host.timeline(handle(policy, "timeline").number)
end

function Policy.ended(policy)
  return host.ended(handle(policy, "ended").number)
end

local policy_names = {}
for name in pairs(Policy) do
  insert(policy_names, name)
end
insert(policy_names, "table")
sort(policy_names)

local POLICY = {
  __metatable = false,
  __index = function(policy, key)
    if key == "table" then
      return policies[policy].table
    end
    local method = Policy[key]
    if not method then
      error(host.unknown("a policy under test", key, policy_names), 2)
    end
    return method
  end,
  __newindex = function(_, key)
    error("a policy under test is read-only, and " .. words(key) .. " cannot be set", 2)
  end,
}

local function fake(name, members)
  return setmetatable({}, {
    __index = function(_, key)
      local value = members[key]
      if value == nil then
        error("the fake of setpoint." .. name .. " has no " .. words(key), 2)
      end
      return value
    end,
  })
end

local function check_modules(what, modules)
  check(what, modules, "table")
  check_keys(what, modules, host.modules)
  for name, members in pairs(modules) do
    check(what .. "." .. tostring(name), members, "table")
  end
end

-- The file's own fakes: modules by their names, or a function that makes them of a world.
local own_fakes

local function fakes(modules)
  collect("fakes")
  if own_fakes ~= nil then
    error("fakes: the file has given its fakes already", 2)
  end
  if type(modules) ~= "function" then
    check_modules("fakes", modules)
  end
  own_fakes = modules
end

-- Adds modules to those that stand before the host's.
local function stand_in(loaded, what, modules)
  check_modules(what, modules)
  for name, members in pairs(modules) do
    loaded["setpoint." .. name] = fake(name, members)
  end
end

-- The file's own fakes in a world.
local function made_fakes(world)
  local loaded = {}
  if type(own_fakes) == "function" then
    stand_in(loaded, "fakes", own_fakes(world))
  elseif own_fakes ~= nil then
    stand_in(loaded, "fakes", own_fakes)
  end
  return loaded
end

local function load_policy(options)
  if options == nil or type(options) == "string" then
    options = { name = options }
  end
  check("load_policy", options, "table")
  check_keys("load_policy", options, LOAD_KEYS)
  if options.world ~= nil and type(own_fakes) ~= "function" then
    error("load_policy: world: expected none, since the file gives `fakes` no function that would take it", 2)
  end
  local loaded = made_fakes(options.world or {})
  if options.world ~= nil then
    check("load_policy: world", options.world, "table")
  end
  if options.fakes ~= nil then
    stand_in(loaded, "load_policy: fakes", options.fakes)
  end
  local number, made = host.load_policy(options, loaded)
  local policy = setmetatable({}, POLICY)
  policies[policy] = { number = number, table = made, task = options.task }
  return policy
end

-- Properties ---------------------------------------------------------------------------------------------------------

local gen = {}

-- Draws of 31 bits, the same on every machine (Park and Miller).
local function chance(seed)
  local state = (seed * 2654435761 + 1) % 2147483647
  state = state == 0 and 1 or state
  local function draw()
    state = state * 48271 % 2147483647
    return state / 2147483647
  end
  for _ = 1, 4 do
    draw()
  end
  return draw
end

local function range(what, options)
  options = options or {}
  check(what, options, "table")
  local min, max = options.min or 0, options.max or 100
  if type(min) ~= "number" or type(max) ~= "number" or not (min <= max and max - min < huge) then
    error(what .. ": expected min <= max, got " .. words(min) .. " and " .. words(max), 3)
  end
  return min, max
end

-- Towards `goal`: at once, by half, by one.
local function nearer(value, goal, whole)
  local list = {}
  if value == goal then
    return list
  end
  insert(list, goal)
  local half = goal + (value - goal) / 2
  if whole then
    half = goal + (value - goal > 0 and floor((value - goal) / 2) or -floor((goal - value) / 2))
  end
  if half ~= goal and half ~= value then
    insert(list, half)
  end
  if whole then
    insert(list, value > goal and value - 1 or value + 1)
  end
  return list
end

function gen.integer(options)
  local min, max = range("gen.integer", options)
  return {
    draw = function(random)
      return min + floor(random() * (max - min + 1))
    end,
    shrink = function(value)
      return nearer(value, min, true)
    end,
  }
end

function gen.number(options)
  local min, max = range("gen.number", options)
  return {
    draw = function(random)
      return min + random() * (max - min)
    end,
    shrink = function(value)
      local list = nearer(value, min, false)
      if floor(value) ~= value and floor(value) >= min then
        insert(list, 1, floor(value))
      end
      return list
    end,
  }
end

function gen.one_of(values)
  check("gen.one_of", values, "table")
  return {
    draw = function(random)
      return values[1 + floor(random() * #values)]
    end,
    shrink = function(value)
      return value ~= values[1] and { values[1] } or {}
    end,
  }
end

local function list_of(item, least, most)
  return {
    draw = function(random)
      local list = {}
      for index = 1, least + floor(random() * (most - least + 1)) do
        list[index] = item.draw(random)
      end
      return list
    end,
    shrink = function(list)
      local smaller = {}
      -- Without a part of it, from half of it down to one item; then with smaller items.
      local size = floor(#list / 2)
      while size >= 1 do
        for from = 1, #list - size + 1, size do
          if #list - size >= least then
            local rest = {}
            for index, value in list do
              if index < from or index >= from + size then
                insert(rest, value)
              end
            end
            insert(smaller, rest)
          end
        end
        size = floor(size / 2)
      end
      for index, value in list do
        for _, less in item.shrink(value) do
          local other = { unpack(list) }
          other[index] = less
          insert(smaller, other)
        end
      end
      return smaller
    end,
  }
end

function gen.list(item, options)
  check("gen.list", item, "table")
  local min, max = range("gen.list", options or { max = 20 })
  return list_of(item, min, max)
end

-- A load: `length` values between min and max that go up, go down, stand still and jump.
function gen.trace(options)
  local min, max = range("gen.trace", options)
  options = options or {}
  local length = options.length or 30
  local whole = options.whole ~= false
  local item = whole and gen.integer({ min = min, max = max }) or gen.number({ min = min, max = max })
  local base = list_of(item, 1, length)
  return {
    draw = function(random)
      local list, value, slope, left = {}, item.draw(random), 0, 0
      for index = 1, length do
        if left == 0 then
          left = 1 + floor(random() * 8)
          local kind = random()
          if kind < 0.3 then
            value = item.draw(random)
          end
          slope = kind < 0.6 and 0 or (random() - 0.5) * (max - min) / 4
        end
        left = left - 1
        value = math.min(max, math.max(min, value + slope))
        list[index] = whole and floor(value + 0.5) or value
      end
      return list
    end,
    shrink = base.shrink,
  }
end

-- Most attempts at a smaller counterexample.
local ATTEMPTS = 300

local function for_all(options, property)
  check("for_all", options, "table")
  check("for_all", property, "function")
  local runs, seed = options.runs or 100, options.seed or host.seed
  local inputs = {}
  for name, generator in pairs(options) do
    if name ~= "runs" and name ~= "seed" then
      if type(generator) ~= "table" or type(generator.draw) ~= "function" then
        error("for_all: expected a generator such as gen.integer{…} as `" .. tostring(name) .. "`", 2)
      end
      insert(inputs, name)
    end
  end
  sort(inputs)
  local random, mark = chance(seed), host.mark()
  for run = 1, runs do
    local drawn = {}
    for _, name in inputs do
      drawn[name] = options[name].draw(random)
    end
    host.forget(mark)
    local ok, problem = pcall(property, drawn)
    if not ok then
      local attempts, shrunk, smaller = 0, 0, true
      while smaller and attempts < ATTEMPTS do
        smaller = false
        for _, name in inputs do
          for _, candidate in options[name].shrink(drawn[name]) do
            attempts = attempts + 1
            local other = {}
            for key, value in drawn do
              other[key] = value
            end
            other[name] = candidate
            host.forget(mark)
            local holds, other_problem = pcall(property, other)
            if not holds then
              drawn, problem, smaller, shrunk = other, other_problem, true, shrunk + 1
              break
            end
            if attempts >= ATTEMPTS then
              break
            end
          end
        end
      end
      -- Once more, for the timeline of this one.
      host.forget(mark)
      ok, problem = pcall(property, drawn)
      host.note(
        format("for_all: run %d of %d with seed %s failed; the smallest input that does, after %d steps: %s",
          run, runs, tostring(seed), shrunk, written(drawn, 5))
      )
      if ok then
        host.fail("the property failed for this input and held for it the second time: it is not always the same")
      end
      error(problem, 0)
    end
  end
  host.forget(mark)
end

freeze(gen)

local globals = {
  after_each = after_each,
  before_each = before_each,
  describe = describe,
  expect = function(value)
    return expectation(value, true)
  end,
  fakes = fakes,
  for_all = for_all,
  gen = gen,
  it = it,
  load_policy = load_policy,
  skip = skip,
}

local function done()
  collecting = false
end

-- What stands before the host's modules in a simulation; nil where the file gives no fakes.
local function simulated(world)
  return own_fakes ~= nil and made_fakes(world) or nil
end

return globals, cases, done, simulated
