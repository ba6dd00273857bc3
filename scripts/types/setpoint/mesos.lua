---@meta setpoint.mesos

---@type setpoint.mesos
local mesos

return mesos
