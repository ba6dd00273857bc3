---@meta setpoint.http

---@type setpoint.http
local http

return http
