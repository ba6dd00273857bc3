---@meta setpoint.fs

---@type setpoint.fs
local fs

return fs
