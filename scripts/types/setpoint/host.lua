---@meta setpoint.host

---Functions of the program that setpoint is embedded in; each gives a number, or nil for a missing sample. In the command
---there are none.
---@type table<string, fun(): number?>
local host

return host
