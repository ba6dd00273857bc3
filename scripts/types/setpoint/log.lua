---@meta setpoint.log

---@type setpoint.log
local log

return log
