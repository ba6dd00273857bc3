---@meta setpoint.prometheus

---@type setpoint.prometheus
local prometheus

return prometheus
