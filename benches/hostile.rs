//! How late a policy ticks beside hostile ones: `cargo bench --bench hostile -- [SECONDS]`.
//!
//! One good policy and the hostile ones below, a file each, all at an interval of 100 ms. Measured from the good
//! policy's tick events: how long after it was due each tick began, and how long after it was due its decision was out
//! (after its metric and target had had their turn on the script threads). Three runs: alone; with the hostile ones as
//! the engine treats them (who breaks a limit is left alone for longer and longer); and with the hostile files saved
//! anew over and over, which ends that each time, so that all of them are at it all the time.

#![expect(clippy::print_stdout, reason = "its figures are its output")]

mod support;

use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use setpoint::runtime::EngineHandle;
use setpoint::runtime::view::{PolicySnapshot, StreamEvent};
use support::{arguments, between, dry_run, load, memory_mb, policy, runtime, summary};
use tokio::sync::broadcast::error::RecvError;

/// What hostile metrics do.
const BODIES: &[&str] = &[
    // Loops.
    "while true do end",
    "repeat until false",
    "for i = 1, 1e18 do end",
    "local function f() return f() end f()",
    "local f f = function(n) return f(n + 1) end f(1)",
    "for x in function() return 1 end do end",
    "local function a(n) if n == 0 then while true do end end a(n - 1) end a(100)",
    // Catching the limit.
    "while true do pcall(function() while true do end end) end",
    "pcall(function() while true do end end) return 1",
    "while true do xpcall(function() while true do end end, function() while true do end end) end",
    "local function f() pcall(f) pcall(f) end f()",
    "while true do coroutine.resume(coroutine.create(function() while true do end end)) end",
    // Coroutines.
    "coroutine.wrap(function() while true do end end)()",
    "local function f() coroutine.wrap(f)() end f()",
    "local co = coroutine.wrap(function() while true do coroutine.yield() end end) while true do co() end",
    "local t = {} while true do t[#t + 1] = coroutine.create(function() end) end",
    // Patterns and strings, one C call each.
    "string.find(('a'):rep(30000), ('a-'):rep(6) .. 'b')",
    "(('a'):rep(30000)):gsub(('a*'):rep(8) .. 'b', '')",
    "for x in (('a'):rep(30000)):gmatch(('a-'):rep(6) .. 'b') do end",
    "local s, p = ('a'):rep(3000000), ('a'):rep(1000000) .. 'b' for i = 1, 1e9 do s:find(p, 1, true) end",
    "(('a'):rep(3000000)):find('[' .. ('b'):rep(1000000) .. ']*c')",
    "(('('):rep(1000000)):find('%b()')",
    "local s = 'x' while true do s = s:gsub('x', 'xxxxxxxxxx') end",
    "return #('a'):rep(1e9)",
    "local s = 'x' while true do s = s .. s end",
    "local s, t = ('x'):rep(1e6), {} for i = 1, 1000 do t[i] = s end return #table.concat(t)",
    "for i = 1, 1e7 do string.format('%99.99f', -1e308) end",
    "string.byte(('x'):rep(1e6), 1, -1)",
    // Tables.
    "local t = {} while true do t[#t + 1] = {} end",
    "local t = {} for i = 1, 1e9 do t[i] = ('x'):rep(1000) .. i end",
    "local t = {} for i = 1, 1e4 do t[i] = i end table.sort(t, function() return true end)",
    "local t = {} for i = 1, 1e5 do t[i] = (i * 7919) % 100003 end table.sort(t, function() while true do end end)",
    "local a, t = ('x'):rep(3000000), {} for i = 1, 2 do t[i] = a .. i end for i = 3, 100000 do t[i] = t[i % 2 + 1] end table.sort(t)",
    "local t = {} for i = 1, 1e5 do t[i] = i end while true do table.sort(t, rawequal) end",
    // Metatables.
    "local t = {} setmetatable(t, { __index = t }) return t.x",
    "return setmetatable({}, { __index = function(t, k) return t[k .. 'x'] end }).x",
    "local m = { __lt = function() while true do end end } table.sort({ setmetatable({}, m), setmetatable({}, m) })",
    "for x in setmetatable({}, { __iter = function() return function() return 1 end end }) do end",
    "local t = setmetatable({}, { __mode = 'kv' }) for i = 1, 1e9 do t[{}] = {} end",
    // Error objects, escapes, output, state.
    "error(('x'):rep(1e6))",
    "error(setmetatable({}, { __tostring = function() while true do end end }))",
    "loadstring('return 1')",
    "while true do print(('x'):rep(1000)) end",
    "print(setmetatable({}, { __tostring = function() while true do end end }))",
    "ctx.state.x = ctx.state",
    "ctx.state.x = ('x'):rep(100000) return 1",
    "for i = 1, 1e5 do ctx.state[i] = i end return 1",
];

fn main() -> Result<(), Box<dyn Error>> {
    let seconds = arguments().iter().find_map(|arg| arg.parse().ok()).unwrap_or(20);
    println!("{} hostile policies", BODIES.len());
    let runtime = runtime()?;
    for (name, hostile, anew) in
        [("alone", false, false), ("beside them", true, false), ("beside them, saved anew", true, true)]
    {
        runtime.block_on(measure(name, hostile, anew, Duration::from_secs(seconds)))?;
    }
    println!("load averages {}", load());
    Ok(())
}

async fn measure(name: &str, hostile: bool, anew: bool, time: Duration) -> Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    fs::write(dir.path().join("good.lua"), policy("100ms"))?;
    if hostile {
        save(dir.path(), 0)?;
    }
    let engine = dry_run(dir.path()).await?;
    let handle = engine.handle();
    let watched = tokio::spawn(watch(handle.clone(), time));
    let begun = Instant::now();
    let mut version = 0;
    while anew && begun.elapsed() < time {
        tokio::time::sleep(Duration::from_secs(2)).await;
        version += 1;
        save(dir.path(), version)?;
    }
    let (mut begins, mut decides) = watched.await?;
    let totals = handle.totals();
    let faults: BTreeMap<&str, u64> = totals.script_errors.iter().fold(BTreeMap::new(), |mut sums, ((_, kind), n)| {
        *sums.entry(*kind).or_default() += n;
        sums
    });
    println!("{name}: begins {}", summary(&mut begins));
    println!("  decided {}", summary(&mut decides));
    println!(
        "  faults {faults:?}, {} reloads, {} refused; {:.0} MB resident",
        totals.reloads,
        totals.reloads_refused,
        memory_mb("self").0
    );
    engine.stop().await;
    Ok(())
}

fn save(dir: &Path, version: u32) -> std::io::Result<()> {
    for (index, body) in BODIES.iter().enumerate() {
        let text = format!(
            r#"-- {version}
return {{
  interval = "100ms",
  workload = {{ command = "sleep 60", max = 4 }},
  metric = function(ctx) do {body} end end,
  target = 1,
}}
"#
        );
        fs::write(dir.join(format!("hostile{index}.lua")), text)?;
    }
    Ok(())
}

/// Lags of the good policy's ticks: to when they began, and to when they were decided.
async fn watch(handle: EngineHandle, time: Duration) -> (Vec<Duration>, Vec<Duration>) {
    let (mut begins, mut decides) = (Vec::new(), Vec::new());
    let mut events = handle.subscribe();
    let mut before: Option<Arc<PolicySnapshot>> = None;
    let until = Instant::now() + time;
    while Instant::now() < until {
        let event = match events.recv().await {
            Ok(event) => event,
            Err(RecvError::Lagged(_)) => continue,
            Err(RecvError::Closed) => break,
        };
        let now = SystemTime::now();
        let StreamEvent::Tick(tick) = &*event else { continue };
        if tick.name.as_str() != "good" {
            continue;
        }
        let due = before.as_ref().filter(|before| before.ticks + 1 == tick.ticks).and_then(|before| before.next_tick);
        if let (Some(due), Some(began)) = (due, tick.last_tick) {
            begins.push(between(due, began));
            decides.push(between(due, now));
        }
        before = Some(Arc::clone(tick));
    }
    (begins, decides)
}
