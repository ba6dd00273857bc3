---@meta setpoint.exec

---@type setpoint.exec
local exec

return exec
