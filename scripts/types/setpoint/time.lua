---@meta setpoint.time

---@type setpoint.time
local time

return time
