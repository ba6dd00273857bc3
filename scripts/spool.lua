-- spool.lua: work through a folder of job files with as many workers as the backlog is worth, none when it is empty.
--   mkdir spool && cp jobs/* spool && setpoint run spool
--   setpoint run spool --set folder=/srv/spool --set max=16 --set command='convert "$1" "out/$JOB.png"'
--
-- A job is a file in `folder` (put large ones there by renaming: what is still being written would be taken half).
-- A worker claims it by renaming it into work/, runs `command` in the folder with the claim's path as "$1" and the
-- job's name as $JOB, puts what it printed into out/, and renames the claim into done/ or failed/. That last rename
-- is the one moment at which a job is done: a worker that is killed before it leaves a claim, and the next idle worker
-- puts that back.
-- Needs a POSIX shell and flock(1). A folder beyond the policy's own needs `[policy] read_dirs` in setpoint.toml.

local fs = require("setpoint.fs")

local p = require("setpoint.params")({
  folder = "spool",
  command = 'sha256sum <"$1"', -- for `sh -c`; a failure is any exit code but 0
  per_worker = 1, -- backlog that one worker is worth
  max = 8,
})

local worker = [[
cd "$SPOOL" && mkdir -p work out done failed .run || exit 1
me=$SETPOINT_TASK_ID
stop=
trap 'stop=1' TERM

# The lock says that this worker lives. The kernel lets go of it, however the worker and its command end.
exec 9>".run/$me.lock"
flock -n 9 || exit 1

# Only the worker is told to end; what it has in hand is finished first.
finish() (
  trap '' TERM
  exec "$@"
)

# Dead workers leave their locks. A minute is more than a new one needs from its lock's file to its lock.
find .run -name '*.lock' -mmin +1 -exec flock -n {} rm -f {} ';'

# Puts back what dead workers had claimed. A claim is made after its owner's lock and gone before it.
put_back() {
  for claim in work/*@*; do
    [ -f "$claim" ] || continue
    owner=${claim#work/}
    lock=.run/${owner%%@*}.lock
    if [ ! -e "$lock" ] || flock -n "$lock" true; then
      finish mv -n -- "$claim" "./${claim#*@}" 2>/dev/null && rm -f "$lock" "${lock%.lock}.out"
    fi
  done
}

while [ -z "$stop" ]; do
  idle=1
  for job in *; do
    [ -z "$stop" ] || break
    claim=work/$me@$job
    # Another worker may be faster at any moment: the rename decides.
    [ -f "$job" ] && finish mv -n -- "$job" "$claim" 2>/dev/null || continue
    idle=
    end=done/$job
    # A failure while the worker is being stopped may be the stop's own: another worker shall try.
    JOB=$job finish sh -c "$COMMAND" sh "$claim" >".run/$me.out" 2>&1 || end=${stop:+./$job}
    finish mv -- ".run/$me.out" "out/$job" && finish mv -- "$claim" "${end:-failed/$job}"
  done
  [ -z "$idle" ] || { put_back; sleep 0.2; }
done
rm -f ".run/$me.lock"
]]

-- What was counted last; nil while it could not be.
local backlog

---@type setpoint.Policy
return {
  interval = "500ms",
  workload = {
    command = worker,
    env = { SPOOL = p.folder, COMMAND = p.command },
    effect = "cools",
    max = p.max,
    grace = "60s", -- for the job that a worker has in hand
  },
  backoff = { min = "200ms", max = "10s" },
  control = { law = "decide", stabilization = { down = "2s" } },
  target = 0,
  metric = function()
    backlog = nil
    local waiting = fs.count(p.folder)
    -- Claims count too: nobody may leave while there is one that a dead worker left behind.
    local claimed = fs.exists(p.folder .. "/work") and fs.count(p.folder .. "/work") or 0
    backlog = waiting + claimed
    return backlog
  end,
  decide = function()
    return backlog and { desired = math.ceil(backlog / p.per_worker) } or { adjust = 0 }
  end,
  simulate = {
    -- What was served in the last second stands for what is in hand.
    metric = function(ctx)
      backlog = ctx.plant.queue + ctx.plant.served
      return backlog
    end,
  },
}
