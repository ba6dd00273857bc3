---@meta setpoint.memcached

---@type setpoint.memcached
local memcached

return memcached
