---@meta setpoint.docker

---@type setpoint.docker
local docker

return docker
