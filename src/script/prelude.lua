-- The environment of policy files: the functions that Lua 5.1 and Luau share, less those that reach outside or
-- let a script escape its limits. Runs once in each VM, before the VM is sealed; returns the environment.
--
-- Three rules hold for everything in here:
--   * nothing runs long in one C call: Luau asks the host whether to go on at loops, calls and pattern steps only,
--     so functions that work without asking are bounded by size, cut up, or driven from Lua;
--   * a limit that was broken stays broken: the host raises at every question from then on, so wrapping pcall
--     needs no help from here;
--   * errors point at the user's line (`error(…, 2)`).

local host = ...

local error, getmetatable, pairs, select, setmetatable, tostring, type, unpack =
  error, getmetatable, pairs, select, setmetatable, tostring, type, unpack
local freeze, pack = table.freeze, table.pack
local raw_pcall, raw_xpcall = pcall, xpcall

-- A table whose unknown keys raise, and that nobody can change.
local function strict(what, members)
  local names = {}
  for name in pairs(members) do
    names[#names + 1] = name
  end
  local meta = {
    __index = function(_, key)
      error(host.unknown(what, key, names), 2)
    end,
    __newindex = function(_, key)
      error(host.sealed(what, key), 2)
    end,
  }
  setmetatable(members, meta)
  freeze(members)
  meta.__metatable = false
  freeze(meta)
  return members
end

-- Strings ------------------------------------------------------------------------------------------------------

-- Up to this product of lengths a search is over in a few milliseconds, whatever the pattern.
local QUICK = 4194304

local raw_find = string.find

local function bounded(search)
  return function(subject, pattern, ...)
    if type(subject) == "number" then
      subject = tostring(subject)
    end
    if type(subject) == "string" and type(pattern) == "string" and #subject * #pattern > QUICK then
      host.check_pattern(subject, pattern)
    end
    return search(subject, pattern, ...)
  end
end

local pattern_find = bounded(raw_find)

local function find(subject, pattern, init, plain)
  if type(subject) == "string" and type(pattern) == "string" and #subject * #pattern > QUICK then
    -- The plain search of the C library is quadratic at worst and asks nobody; the host's is linear.
    if plain or raw_find(pattern, "[%^%$%*%+%?%.%(%)%[%]%%%-]") == nil then
      return host.find_plain(subject, pattern, init)
    end
  end
  return pattern_find(subject, pattern, init, plain)
end

local strings = {
  byte = string.byte,
  char = string.char,
  find = find,
  format = string.format,
  gmatch = bounded(string.gmatch),
  gsub = bounded(string.gsub),
  len = string.len,
  lower = string.lower,
  match = bounded(string.match),
  rep = string.rep,
  reverse = string.reverse,
  sub = string.sub,
  upper = string.upper,
}

-- Tables -------------------------------------------------------------------------------------------------------

local raw_sort = table.sort

local function natural(a, b)
  return a < b
end

-- Sorting always compares through Lua, so that the host is asked at each comparison: comparing two long strings, or
-- calling a C function, asks nobody.
local function sort(list, less)
  if less == nil then
    return raw_sort(list, natural)
  end
  if type(less) ~= "function" then
    error("bad argument #2 to `table.sort`: expected a function, got " .. type(less), 2)
  end
  return raw_sort(list, function(a, b)
    return less(a, b)
  end)
end

local tables = {
  concat = table.concat,
  insert = table.insert,
  maxn = table.maxn,
  remove = table.remove,
  sort = sort,
}

-- Time and chance ----------------------------------------------------------------------------------------------

local floor, raw_date, raw_time = math.floor, os.date, os.time

local times = {
  clock = host.now,
  date = function(format, at)
    return raw_date(format, at or floor(host.now()))
  end,
  difftime = os.difftime,
  time = function(parts)
    if parts == nil then
      return floor(host.now())
    end
    return raw_time(parts)
  end,
}

local maths = { random = host.random, randomseed = host.randomseed }
for _, name in
  {
    "abs", "acos", "asin", "atan", "atan2", "ceil", "cos", "cosh", "deg", "exp", "floor", "fmod", "frexp", "huge",
    "ldexp", "log", "log10", "max", "min", "modf", "pi", "pow", "rad", "sin", "sinh", "sqrt", "tan", "tanh",
  }
do
  maths[name] = math[name]
end

-- Errors -------------------------------------------------------------------------------------------------------

-- Errors of host functions are objects; scripts get their text, as from any Lua function.
local function text_of(problem)
  if type(problem) == "userdata" then
    return host.error_text(problem)
  end
  return problem
end

local function caught(ok, ...)
  if ok then
    return true, ...
  end
  return false, text_of((...))
end

local function protected(f, ...)
  return caught(raw_pcall(f, ...))
end

local function protected_with(f, handler, ...)
  if type(handler) ~= "function" then
    error("bad argument #2 to `xpcall`: expected a function, got " .. type(handler), 2)
  end
  return raw_xpcall(f, function(problem)
    return handler(text_of(problem))
  end, ...)
end

-- Coroutines ---------------------------------------------------------------------------------------------------

-- A coroutine is suspended either by the script, or by the host: its time slice is over, or a host function waits. What
-- the host does passes through all coroutines up to the call itself, unseen by the script.
local raw_create, raw_resume, raw_running, raw_status, raw_yield, yieldable =
  coroutine.create, coroutine.resume, coroutine.running, coroutine.status, coroutine.yield, coroutine.isyieldable

local BY_SCRIPT = freeze({})
local own = setmetatable({}, { __mode = "k" })

local function create(f)
  if type(f) ~= "function" then
    error("bad argument #1 to `coroutine.create`: expected a function, got " .. type(f), 2)
  end
  local co = raw_create(f)
  own[co] = true
  return co
end

local function resume(co, ...)
  if not own[co] then
    error("bad argument #1 to `coroutine.resume`: expected a coroutine, got " .. type(co), 2)
  end
  local results = pack(raw_resume(co, ...))
  while results[1] and results[2] ~= BY_SCRIPT and raw_status(co) == "suspended" do
    if results.n > 1 then
      raw_yield(results[2])
    elseif yieldable() then
      raw_yield()
    end
    results = pack(raw_resume(co))
  end
  if not results[1] then
    return false, text_of(results[2])
  end
  if results[2] == BY_SCRIPT then
    return true, unpack(results, 3, results.n)
  end
  return unpack(results, 1, results.n)
end

local function unwrapped(ok, ...)
  if ok then
    return ...
  end
  error((...), 0)
end

local coroutines = {
  create = create,
  resume = resume,
  running = function()
    local co = raw_running()
    if own[co] then
      return co
    end
    return nil
  end,
  status = function(co)
    if not own[co] then
      error("bad argument #1 to `coroutine.status`: expected a coroutine, got " .. type(co), 2)
    end
    return raw_status(co)
  end,
  wrap = function(f)
    local co = create(f)
    return function(...)
      return unwrapped(resume(co, ...))
    end
  end,
  yield = function(...)
    if not own[raw_running()] then
      error("attempt to yield outside a coroutine", 2)
    end
    return raw_yield(BY_SCRIPT, ...)
  end,
}

-- Modules ------------------------------------------------------------------------------------------------------

local LOADING = freeze({})
local setpoint = strict("`setpoint`", { fleet = host.fleet })

-- `require` for the files that see `environment()`. `loaded` is what is there already.
local function requiring(loaded, environment)
  loaded["setpoint"] = setpoint
  loaded["setpoint.params"] = host.params
  return function(name)
    if type(name) ~= "string" then
      error("bad argument #1 to `require`: expected a string, got " .. type(name), 2)
    end
    local module = loaded[name]
    if module == LOADING then
      error("`" .. name .. "` requires itself, directly or through others", 2)
    end
    if module ~= nil then
      return module
    end
    local ok, found, chunk = host.find_module(name, environment())
    if not ok then
      error(found, 2)
    end
    if chunk then
      loaded[name] = LOADING
      local done
      done, found = raw_pcall(chunk, name)
      if not done then
        loaded[name] = nil
        error(found, 0)
      end
      if found == nil then
        found = true
      end
    end
    loaded[name] = found
    return found
  end
end

-- Everything ---------------------------------------------------------------------------------------------------

local function print(...)
  local words = {}
  for i = 1, select("#", ...) do
    words[i] = tostring((select(i, ...)))
  end
  host.print(tables.concat(words, "\t"))
end

getmetatable("").__index = strict("`string`", strings)

-- Rows of `ctx.tasks` and `ctx.history`.
host.row_meta = function(what, names)
  local known = {}
  for _, name in names do
    known[name] = true
  end
  return freeze({
    __index = function(_, key)
      if not known[key] then
        error(host.unknown(what, key, names), 2)
      end
      return nil
    end,
    __metatable = false,
  })
end

local coroutine_library, math_library = strict("`coroutine`", coroutines), strict("`math`", maths)
local os_library, table_library = strict("`os`", times), strict("`table`", tables)

-- An environment, with `loaded` modules that stand before the host's, and with `more` globals.
host.new_environment = function(loaded, more)
  local environment
  environment = {
    _VERSION = _VERSION,
    assert = assert,
    coroutine = coroutine_library,
    error = error,
    getmetatable = getmetatable,
    ipairs = ipairs,
    math = math_library,
    next = next,
    os = os_library,
    pairs = pairs,
    pcall = protected,
    print = print,
    rawequal = rawequal,
    rawget = rawget,
    rawset = rawset,
    select = select,
    setmetatable = setmetatable,
    setpoint = setpoint,
    string = strings,
    table = table_library,
    tonumber = tonumber,
    tostring = tostring,
    type = type,
    unpack = unpack,
    xpcall = protected_with,
  }
  environment.require = requiring(loaded, function()
    return environment
  end)
  environment._G = environment
  for name, value in more do
    environment[name] = value
  end
  return strict("global", environment)
end

return host.new_environment({}, {})
