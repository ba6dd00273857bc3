---@meta setpoint.xml

---@type setpoint.xml
local xml

return xml
