---@meta setpoint.json

---@type setpoint.json
local json

return json
