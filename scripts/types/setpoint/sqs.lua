---@meta setpoint.sqs

---@type setpoint.sqs
local sqs

return sqs
