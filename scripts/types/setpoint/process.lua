---@meta setpoint.process

---@type setpoint.process
local process

return process
