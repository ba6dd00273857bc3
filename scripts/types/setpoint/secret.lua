---@meta setpoint.secret

---@type setpoint.secret
local secret

return secret
