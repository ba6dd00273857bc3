-- by-hour.lua: a number of tasks by the time of day and the day of the week, in a time zone.
--   setpoint run by-hour --set command='exec ./consumer' --set zone=America/New_York
--   setpoint run by-hour --set plan='mon-fri 07:00-19:00 12; fri 19:00-02:00 20; sat,sun 10:00-16:00 4'
--
-- `plan` is a list of windows: days, hours, number of tasks. The first window that is open counts; outside all of
-- them `otherwise` does. A window that goes over midnight belongs to the day on which it begins; 00:00-24:00 is a
-- whole day. Hours are what the clocks on the walls of `zone` show: an hour that a clock change skips is not missed,
-- and one that it repeats is open both times.
-- Needs nothing.

local time = require("setpoint.time")

local p = require("setpoint.params")({
  plan = "mon-fri 08:00-18:00 10; mon-fri 18:00-22:00 4; sat 09:00-14:00 2",
  otherwise = 1,
  zone = "Europe/Berlin",
  command = "exec sleep 86400", -- a consumer
})

local DAYS = { mon = 1, tue = 2, wed = 3, thu = 4, fri = 5, sat = 6, sun = 7 }

local function day(word)
  return DAYS[word:lower()] or error("plan: expected a day such as `mon`, got `" .. word .. "`")
end

local function minutes(text, window)
  local hour, minute = text:match("^(%d%d?):(%d%d)$")
  local at = hour and tonumber(hour) * 60 + tonumber(minute)
  if not at or at > 24 * 60 or tonumber(minute) > 59 then
    error("plan: expected a time such as `08:00`, got `" .. text .. "` in `" .. window .. "`")
  end
  return at
end

-- `mon-wed,sat` → { true, true, true, [6] = true }
local function days(text)
  local set = {}
  for part in text:gmatch("[^,]+") do
    local first, last = part:match("^(%a+)-(%a+)$")
    local from, to = day(first or part), day(last or part)
    for offset = 0, (to - from) % 7 do
      set[(from - 1 + offset) % 7 + 1] = true
    end
  end
  return set
end

local windows = {}
for window in p.plan:gmatch("[^;]+") do
  local on, from, to, tasks = window:match("^%s*([%a,-]+)%s+([%d:]+)-([%d:]+)%s+(%d+)%s*$")
  if not on then
    error("plan: expected `mon-fri 08:00-18:00 10`, got `" .. window .. "`")
  end
  table.insert(windows, {
    days = days(on),
    from = minutes(from, window),
    to = minutes(to, window),
    tasks = tonumber(tasks),
  })
end

local function is_open(window, weekday, at)
  if window.from < window.to then
    return window.days[weekday] and window.from <= at and at < window.to
  end
  local yesterday = (weekday - 2) % 7 + 1
  return window.days[weekday] and window.from <= at or window.days[yesterday] and at < window.to
end

local function wanted(now)
  local date = time.zoned(now, p.zone)
  for _, window in ipairs(windows) do
    if is_open(window, date.weekday, date.hour * 60 + date.minute) then
      return window.tasks
    end
  end
  return p.otherwise
end

local max = p.otherwise
for _, window in ipairs(windows) do
  max = math.max(max, window.tasks)
end

---@type setpoint.Policy
return {
  interval = "5s",
  workload = { command = p.command, max = max },
  control = { law = "decide" },
  decide = function(ctx)
    return { desired = wanted(ctx.now) }
  end,
}
