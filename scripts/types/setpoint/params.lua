---@meta setpoint.params

---Declares the policy's parameters with their defaults; `--set name=value` overrides them. Unknown keys of the result
---raise.
---@generic T: table<string, boolean|number|string>
---@param defaults T
---@return T
return function(defaults) end
