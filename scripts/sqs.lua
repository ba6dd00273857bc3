-- sqs.lua: as many consumers as the messages in a queue of Amazon SQS are worth, none when it is empty.
--   setpoint run sqs --set queue=https://sqs.eu-west-1.amazonaws.com/123456789012/jobs --set command='exec ./consumer'
--   setpoint run sqs --set queue=https://sqs.eu-west-1.amazonaws.com/123456789012/jobs --set backend=docker
--     --set image=shop/consumer --set per_task=50 --set max=40
--
-- Messages that consumers have in hand count too, and fewer consumers have to have been enough for a while before one
-- goes, since SQS counts about. The numbers are those of GetQueueAttributes, which is all that the key has to be
-- allowed (sqs:GetQueueAttributes). While SQS refuses or does not answer, nothing is changed.
-- Credentials are secrets of setpoint.toml, by these names unless told otherwise:
--   [secrets]
--   aws_access_key = { env = "AWS_ACCESS_KEY_ID" }
--   aws_secret_key = { env = "AWS_SECRET_ACCESS_KEY" }
-- Consumers find the queue in QUEUE_URL; how they get credentials is their own business.

local secret = require("setpoint.secret")
local sqs = require("setpoint.sqs")

local p = require("setpoint.params")({
  queue = "http://127.0.0.1:4566/000000000000/jobs", -- the queue's URL
  region = "eu-west-1", -- of the signature; empty: as the URL of a queue of Amazon's own says
  access_key = "aws_access_key", -- a secret's name
  secret_key = "aws_secret_key", -- a secret's name
  session_token = "", -- a secret's name, for temporary credentials
  in_flight = true, -- whether messages that consumers have in hand count
  delayed = false, -- whether messages count that nobody can have yet
  per_task = 10, -- messages that one consumer is worth
  min = 0,
  max = 10,
  wait = "2m", -- how long fewer must have been enough before one goes
  interval = "10s",
  timeout = "5s",
  backend = "local", -- local, docker or mesos
  executor = "", -- on Mesos: "setpoint", or empty for the cluster's own
  command = "", -- for `sh -c`; empty: the image's own, or one that only sleeps
  image = "", -- container image; empty: a plain command
  cpus = 0.1,
  memory = "64MiB",
  grace = "60s", -- for the messages that a consumer has in hand
})

-- Empty text stands for nothing at all.
local function given(text)
  if text ~= "" then
    return text
  end
  return nil
end

local asleep = "exec sleep 86400"

---@type setpoint.Policy
return {
  interval = p.interval,
  workload = {
    backend = p.backend,
    executor = given(p.executor),
    command = given(p.command) or (p.image == "" and asleep or nil),
    image = given(p.image),
    env = { QUEUE_URL = p.queue },
    cpus = p.cpus,
    memory = p.memory,
    grace = p.grace,
    effect = "cools",
    min = p.min,
    max = p.max,
  },
  control = { law = "decide", stabilization = { down = p.wait } },
  target = 0,
  metric = function()
    local depth = sqs.depth(p.queue, {
      access_key = secret.get(p.access_key),
      secret_key = secret.get(p.secret_key),
      session_token = p.session_token ~= "" and secret.get(p.session_token) or nil,
      region = given(p.region),
      timeout = p.timeout,
    })
    return depth.visible + (p.in_flight and depth.in_flight or 0) + (p.delayed and depth.delayed or 0)
  end,
  decide = function(ctx)
    return ctx.sample and { desired = math.ceil(ctx.sample / p.per_task) } or { adjust = 0 }
  end,
  simulate = {
    metric = function(ctx)
      return ctx.plant.queue + ctx.plant.served
    end,
  },
}
