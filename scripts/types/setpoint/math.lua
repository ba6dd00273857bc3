---@meta setpoint.math

---@type setpoint.math
local math

return math
