---@meta setpoint.redis

---@type setpoint.redis
local redis

return redis
