-- Policies keep to what Lua 5.1 and Luau share; `setpoint` is the one global that the host adds.
std = "lua51"
read_globals = { "setpoint" }
max_line_length = 120
-- The type files declare and do nothing.
exclude_files = { "scripts/types" }
-- Specs see these, too.
files["**/*_test.lua"] = {
  read_globals = {
    "after_each", "before_each", "describe", "expect", "fakes", "for_all", "gen", "it", "load_policy", "skip",
  },
}
