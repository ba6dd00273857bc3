-- queue.lua: keep a Redis list empty with as many consumers as its length is worth, none when it is empty.
--   setpoint run queue
--   setpoint run queue --set url=redis://10.0.0.5:6379 --set list=mails --set command=./send --set max=40
--
-- Producers RPUSH; a consumer runs `command` for each job, which it gets on its standard input, and records it in
-- LIST:done or, on any exit code but 0, in LIST:failed. While a consumer has a job in hand it is in the hash LIST:work
-- under the consumer's name. Taking and finishing are one step each in Redis, and only who still holds a job can
-- finish it: so each is finished once, also when consumers are killed. A consumer whose connection is gone for three
-- seconds is dead; idle ones put its job back in front.
-- Needs python3 for the consumers (no packages) and a Redis of 2.6 or newer.

local redis = require("setpoint.redis")

local p = require("setpoint.params")({
  url = "redis://127.0.0.1:6379",
  list = "jobs",
  command = "cat >/dev/null", -- for `sh -c`
  per_consumer = 5, -- jobs that one consumer is worth
  max = 20,
})

local consumer = [==[
import os, signal, socket, subprocess, time, urllib.parse

url, jobs, me = urllib.parse.urlsplit(os.environ["QUEUE_URL"]), os.environ["QUEUE_LIST"], os.environ["SETPOINT_TASK_ID"]
done, failed, work = jobs + ":done", jobs + ":failed", jobs + ":work"
running = True

# What a consumer holds already is a job whose reply was lost with the connection.
TAKE = """local job = redis.call('HGET', KEYS[2], ARGV[1])
  if job then return job end
  job = redis.call('LPOP', KEYS[1])
  if job then redis.call('HSET', KEYS[2], ARGV[1], job) end
  return job"""
FINISH = """if redis.call('HGET', KEYS[2], ARGV[1]) ~= ARGV[2] then return 0 end
  redis.call('HDEL', KEYS[2], ARGV[1])
  return redis.call(ARGV[3], KEYS[1], ARGV[2])"""

def stop(*_):
    global running
    running = False

class Redis:
    def __init__(self):
        self.socket = socket.create_connection((url.hostname, url.port or 6379), timeout=10)
        self.file = self.socket.makefile("rb")
        if url.password:
            self(*filter(None, ["AUTH", url.username, urllib.parse.unquote(url.password)]))
        if url.path.strip("/"):
            self("SELECT", url.path.strip("/"))
        self("CLIENT", "SETNAME", me)

    def __call__(self, *words):
        words = [word if isinstance(word, bytes) else str(word).encode() for word in words]
        parts = [b"*%d\r\n" % len(words)] + [b"$%d\r\n%s\r\n" % (len(word), word) for word in words]
        self.socket.sendall(b"".join(parts))
        return self.reply()

    def reply(self):
        line = self.file.readline()
        if not line.endswith(b"\r\n"):
            raise ConnectionError("Redis closed the connection")
        kind, rest = line[:1], line[1:-2]
        if kind == b"-":
            raise ConnectionError(rest.decode())
        if kind == b"$":
            return None if rest == b"-1" else self.file.read(int(rest) + 2)[:-2]
        return [self.reply() for _ in range(int(rest))] if kind == b"*" else rest

def finish(redis, owner, job, to, push="RPUSH"):
    redis("EVAL", FINISH, 2, to, work, owner, job, push)

absent = {}

def put_back(redis):
    global absent
    # In this order: who holds a job now and is not connected after that will not come back to it, unless it only lost
    # its connection, as all do when Redis starts anew. So it has a while to come back.
    held, now = redis("HGETALL", work), time.monotonic()
    names = {field[5:] for field in redis("CLIENT", "LIST").split() if field.startswith(b"name=")}
    lost = [(owner, job) for owner, job in zip(held[::2], held[1::2]) if owner not in names]
    absent = {owner: absent.get(owner, now) for owner, _ in lost}
    for owner, job in lost:
        if now - absent[owner] > 3:
            finish(redis, owner, job, jobs, "LPUSH")

def perform(job):
    # Only the consumer is told to end; what it has in hand is finished first.
    command = "trap '' TERM\n" + os.environ["COMMAND"]
    if subprocess.run(["sh", "-c", command], input=job).returncode == 0:
        return done, "RPUSH"
    # A failure while the consumer is being stopped may be the stop's own: another one shall try.
    return (failed, "RPUSH") if running else (jobs, "LPUSH")

signal.signal(signal.SIGTERM, stop)
redis = job = end = None
while running or job is not None:
    try:
        redis = redis or Redis()
        job = job if job is not None else redis("EVAL", TAKE, 2, jobs, work, me)
        if job is None:
            put_back(redis)
            time.sleep(0.2)
            continue
        end = end or perform(job)
        finish(redis, me, job, *end)
        job = end = None
    except OSError as error:
        print("redis:", error, flush=True)
        redis = None
        time.sleep(0.5)
]==]

local jobs = redis.connect(p.url)
-- What was counted last; nil while it could not be.
local backlog

---@type setpoint.Policy
return {
  interval = "500ms",
  workload = {
    command = { "python3", "-c", consumer },
    env = { QUEUE_URL = p.url, QUEUE_LIST = p.list, COMMAND = p.command },
    effect = "cools",
    max = p.max,
    grace = "60s", -- for the job that a consumer has in hand
  },
  backoff = { min = "200ms", max = "10s" },
  control = { law = "decide", stabilization = { down = "2s" } },
  target = 0,
  metric = function()
    backlog = nil
    -- Jobs in hand count too: nobody may leave while there is one that a dead consumer left behind.
    backlog = jobs:llen(p.list) + jobs:hlen(p.list .. ":work")
    return backlog
  end,
  decide = function()
    return backlog and { desired = math.ceil(backlog / p.per_consumer) } or { adjust = 0 }
  end,
  simulate = {
    -- What was served in the last second stands for what is in hand.
    metric = function(ctx)
      backlog = ctx.plant.queue + ctx.plant.served
      return backlog
    end,
  },
}
