//! Hostile scripts: each comes back as the right fault, or as a harmless value, while others go on.
//!
//! Times in here are generous bounds that tell "stopped" from "not stopped"; none is about speed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use setpoint::core::model::Sample;
use setpoint::script::error::ScriptErrorKind::{self, Cpu, Memory, Refused, Runtime, Shape, Syntax, Type};
use setpoint::script::{Content, Hook, Limits, Mode, ScriptError};

use crate::script::{Bench, WALL, ctx, policy, reports};

/// Within this, on however busy a machine, everything has been stopped.
const STOPPED: Duration = Duration::from_secs(20);

/// What may come of a script: one of these faults, or (`None` among them) no fault at all.
type Outcomes = &'static [Option<ScriptErrorKind>];

const CPU: Outcomes = &[Some(Cpu)];
const MEMORY: Outcomes = &[Some(Memory)];
const CPU_OR_MEMORY: Outcomes = &[Some(Cpu), Some(Memory)];
const RUNTIME: Outcomes = &[Some(Runtime)];
const TYPE: Outcomes = &[Some(Type)];
const HARMLESS: Outcomes = &[None];
const BOUNDED: Outcomes = &[None, Some(Cpu), Some(Memory), Some(Runtime), Some(Type)];

/// Bodies of a function, with what must come of them.
const BODIES: &[(&str, &str, Outcomes)] = &[
    // Loops.
    ("empty loop", "while true do end", CPU),
    ("repeat", "repeat until false", CPU),
    ("numeric for", "for i = 1, 1e18 do end", CPU),
    ("goto-less recursion", "local function f() return f() end f()", RUNTIME),
    ("tail call storm", "local f f = function(n) return f(n + 1) end f(1)", RUNTIME_OR_MEMORY),
    ("iterator without end", "for x in function() return 1 end do end", CPU),
    ("loop in a nested call", "local function a(n) if n == 0 then while true do end end a(n - 1) end a(100)", CPU),
    // Catching the limit.
    ("pcall loop", "while true do pcall(function() while true do end end) end", CPU),
    ("pcall and return", "pcall(function() while true do end end) return 1", CPU),
    (
        "xpcall handler loops",
        "while true do xpcall(function() while true do end end, function() while true do end end) end",
        CPU,
    ),
    ("pcall recursion", "local function f() pcall(f) pcall(f) end f()", BOUNDED),
    (
        "nested pcalls",
        "local f = function() while true do end end for i = 1, 150 do local g = f f = function() pcall(g) while true do end end end f()",
        CPU,
    ),
    ("error in handler", "xpcall(error, function() error('again') end)", HARMLESS),
    (
        "swallow in coroutine",
        "while true do coroutine.resume(coroutine.create(function() while true do end end)) end",
        CPU,
    ),
    // Coroutines.
    ("loop in a coroutine", "coroutine.wrap(function() while true do end end)()", CPU),
    ("coroutines in coroutines", "local function f() coroutine.wrap(f)() end f()", BOUNDED),
    (
        "coroutine ping-pong",
        "local co = coroutine.wrap(function() while true do coroutine.yield() end end) while true do co() end",
        CPU,
    ),
    ("coroutine hoard", "local t = {} while true do t[#t + 1] = coroutine.create(function() end) end", CPU_OR_MEMORY),
    ("yield outside", "coroutine.yield()", RUNTIME),
    (
        "resume oneself",
        "local co co = coroutine.create(function() return coroutine.resume(co) end) return coroutine.resume(co) and 1",
        HARMLESS,
    ),
    ("resume no coroutine", "coroutine.resume(1)", RUNTIME),
    // Patterns and strings, one C call each.
    ("backtracking find", "string.find(('a'):rep(30000), ('a-'):rep(6) .. 'b')", CPU),
    ("backtracking gsub", "(('a'):rep(30000)):gsub(('a*'):rep(8) .. 'b', '')", CPU),
    ("backtracking gmatch", "for x in (('a'):rep(30000)):gmatch(('a-'):rep(6) .. 'b') do end", CPU),
    (
        "quadratic plain find",
        "local s, p = ('a'):rep(2000000), ('a'):rep(700000) .. 'b' for i = 1, 1e9 do s:find(p, 1, true) end",
        CPU,
    ),
    (
        "quadratic find without specials",
        "local s, p = ('a'):rep(2000000), ('a'):rep(700000) .. 'b' for i = 1, 1e9 do s:find(p) end",
        CPU,
    ),
    ("huge character set", "(('a'):rep(3000000)):find('[' .. ('b'):rep(1000000) .. ']*c')", TYPE),
    ("unclosed set", "(('a'):rep(3000000)):find('[' .. ('b'):rep(1000000))", BOUNDED),
    ("balance", "(('('):rep(1000000)):find('%b()')", CPU),
    ("deep pattern", "(('a'):rep(1000)):find(('(a'):rep(40))", RUNTIME),
    ("malformed pattern", "('x'):find('%')", RUNTIME),
    ("captures", "(('a'):rep(100)):match(('(a)'):rep(33))", RUNTIME),
    ("gsub grows", "local s = 'x' while true do s = s:gsub('x', 'xxxxxxxxxx') end", CPU_OR_MEMORY),
    ("rep", "return #('a'):rep(1e9)", MEMORY),
    ("rep of nothing", "for i = 1, 100 do (''):rep(2^31 - 1) end", BOUNDED),
    ("rep overflow", "('abc'):rep(2^31 - 1)", RUNTIME),
    ("concat doubles", "local s = 'x' while true do s = s .. s end", MEMORY),
    ("table.concat", "local s, t = ('x'):rep(1e6), {} for i = 1, 1000 do t[i] = s end return #table.concat(t)", MEMORY),
    ("format width", "string.format('%9999d', 1)", RUNTIME),
    ("format wide", "for i = 1, 1e7 do string.format('%99.99f', -1e308) end", CPU),
    ("byte of everything", "string.byte(('x'):rep(1e6), 1, -1)", RUNTIME),
    ("char of everything", "string.char(unpack({}, 1, 1e6))", RUNTIME),
    ("unpack range", "return select('#', unpack({}, 1, 1e8))", RUNTIME),
    ("unpack overflow", "return unpack({}, -2147483648, 2147483647)", RUNTIME),
    ("select abuse", "return select(-5, 1)", RUNTIME),
    ("tonumber", "return tonumber(('9'):rep(1e6)) or 1", BOUNDED),
    // Tables.
    ("table grows", "local t = {} while true do t[#t + 1] = {} end", CPU_OR_MEMORY),
    ("table of strings", "local t = {} for i = 1, 1e9 do t[i] = ('x'):rep(1000) .. i end", CPU_OR_MEMORY),
    (
        "sort with a liar",
        "local t = {} for i = 1, 1e4 do t[i] = i end table.sort(t, function() return true end)",
        BOUNDED,
    ),
    (
        "sort never ends",
        "local t = {} for i = 1, 1e5 do t[i] = (i * 7919) % 100003 end table.sort(t, function(a, b) while true do end end)",
        CPU,
    ),
    (
        "sort of long strings",
        "local a, t = ('x'):rep(3000000), {} for i = 1, 2 do t[i] = a .. i end for i = 3, 100000 do t[i] = t[i % 2 + 1] end table.sort(t)",
        CPU_OR_MEMORY,
    ),
    ("sort of mixed", "table.sort({ 1, 'x', {} })", RUNTIME),
    (
        "sort with a C function",
        "local t = {} for i = 1, 1e5 do t[i] = i end while true do table.sort(t, rawequal) end",
        &[Some(Cpu), Some(Runtime)],
    ),
    ("insert far out", "local t = {} table.insert(t, 2^53, 1) return #t", BOUNDED),
    ("length of holes", "local t = {} for i = 1, 60 do t[2 ^ i] = 1 end return #t", HARMLESS),
    ("next with a stranger", "return next({}, 'no such key')", RUNTIME),
    ("nan key", "local t = {} t[0/0] = 1", RUNTIME),
    // Metatables.
    (
        "__index chain",
        "local t = {} for i = 1, 1e4 do t = setmetatable({}, { __index = t }) end return t.x or 1",
        &[None, Some(Runtime)],
    ),
    ("__index loop", "local t = {} setmetatable(t, { __index = t }) return t.x", RUNTIME),
    (
        "__index function",
        "return setmetatable({}, { __index = function(t, k) return t[k .. 'x'] end }).x",
        &[Some(Runtime), Some(Memory), Some(Cpu)],
    ),
    (
        "__eq storm",
        "local m = {} m.__eq = function(a, b) return a == b end local a, b = setmetatable({}, m), setmetatable({}, m) return a == b",
        RUNTIME,
    ),
    (
        "__lt in sort",
        "local m = { __lt = function() while true do end end } table.sort({ setmetatable({}, m), setmetatable({}, m) })",
        CPU,
    ),
    (
        "__concat",
        "local m = {} m.__concat = function(a, b) return a .. b end return setmetatable({}, m) .. setmetatable({}, m)",
        RUNTIME,
    ),
    ("__call chain", "local f = print for i = 1, 1e4 do f = setmetatable({}, { __call = f }) end f()", BOUNDED),
    ("__iter", "for x in setmetatable({}, { __iter = function() return function() return 1 end end }) do end", CPU),
    ("__gc", "setmetatable({}, { __gc = function() while true do end end }) return 1", HARMLESS),
    ("__mode", "local t = setmetatable({}, { __mode = 'kv' }) for i = 1, 1e9 do t[{}] = {} end", CPU_OR_MEMORY),
    ("string metatable", "getmetatable('').__index = nil", RUNTIME),
    ("string library", "string.rep = nil", TYPE_OR_RUNTIME),
    ("rawset of the library", "rawset(string, 'rep', nil)", RUNTIME),
    ("setmetatable of the library", "setmetatable(string, {})", RUNTIME),
    ("globals through _G", "_G.print = nil", TYPE_OR_RUNTIME),
    ("rawset of _G", "rawset(_G, 'x', 1)", RUNTIME),
    // Error objects.
    ("error nil", "error(nil)", RUNTIME),
    ("error table", "error({})", RUNTIME),
    ("error function", "error(print)", RUNTIME),
    ("error huge", "error(('x'):rep(1e6))", RUNTIME),
    ("__tostring loops", "error(setmetatable({}, { __tostring = function() while true do end end }))", CPU),
    ("__tostring raises", "error(setmetatable({}, { __tostring = function() error('x') end }))", RUNTIME),
    ("__tostring is no text", "error(setmetatable({}, { __tostring = function() return {} end }))", RUNTIME),
    (
        "__tostring recursion",
        "local t t = setmetatable({}, { __tostring = function() return tostring(t) end }) print(t)",
        RUNTIME,
    ),
    ("error with bytes", "error('\\255\\254\\0x')", RUNTIME),
    ("traceback in message", "error('x\\nstack traceback:\\n\\tp.lua:99: in function y')", RUNTIME),
    // Escapes.
    ("loadstring", "loadstring('return 1')", RUNTIME),
    ("os.execute", "os.execute('touch /tmp/x')", RUNTIME),
    ("io", "io.open('/etc/passwd')", RUNTIME),
    ("getfenv", "getfenv(2).x = 1", RUNTIME),
    ("newproxy", "newproxy(true)", RUNTIME),
    ("debug", "debug.getregistry()", RUNTIME),
    ("collectgarbage", "collectgarbage('stop')", RUNTIME),
    ("require late", "require('x')", RUNTIME),
    ("intents from anywhere", "ctx.workload:launch(1)", &[Some(Refused)]),
    ("keep ctx", "kept = ctx", RUNTIME),
    // Output.
    ("print flood", "while true do print(('x'):rep(1000)) end", TYPE),
    ("print of a loop", "print(setmetatable({}, { __tostring = function() while true do end end }))", CPU),
    // State.
    ("state of a loop", "ctx.state.x = ctx.state", TYPE),
    ("state too big", "ctx.state.x = ('x'):rep(100000) return 1", TYPE),
    ("state of many", "for i = 1, 1e5 do ctx.state[i] = i end return 1", TYPE_OR_MEMORY),
    ("state deep", "local t = ctx.state for i = 1, 1000 do t.x = {} t = t.x end return 1", TYPE),
    (
        "state with a metatable",
        "setmetatable(ctx.state, { __index = function() while true do end end, __iter = error }) ctx.state.n = 1 return 1",
        HARMLESS,
    ),
    ("state of nan", "ctx.state.x = 0/0 return 1", TYPE),
];

const RUNTIME_OR_MEMORY: Outcomes = &[Some(Runtime), Some(Memory)];
const TYPE_OR_RUNTIME: Outcomes = &[Some(Type), Some(Runtime)];
const TYPE_OR_MEMORY: Outcomes = &[Some(Type), Some(Memory), Some(Cpu)];

fn limits() -> Limits {
    let memory = 8 << 20;
    Limits { cpu: Duration::from_millis(50), load_cpu: Duration::from_millis(200), memory, ..Limits::default() }
}

/// What is wrong with the outcome of a script, in words; empty when it is as it must be.
fn check(name: &str, place: &str, outcomes: Outcomes, error: Option<&ScriptError>, took: Duration) -> String {
    let kind = error.map(|error| error.kind);
    let report = error.map(ScriptError::report).unwrap_or_default();
    if !outcomes.contains(&kind) {
        return format!("{name} in {place}: {kind:?}, expected {outcomes:?}\n{report}\n");
    }
    if took >= STOPPED {
        return format!("{name} in {place} took {took:?}\n");
    }
    let message = error.map(|error| error.message.as_str()).unwrap_or_default();
    if message.chars().count() > 300 || message.contains('\n') {
        return format!("{name} in {place}: a message that is no line: {message}\n");
    }
    String::new()
}

/// Texts for 0, 1, 2, … one after the other.
fn repeated(n: usize, text: impl FnMut(usize) -> String) -> String {
    (0..n).map(text).collect::<Vec<_>>().concat()
}

/// A second file's policy, called without pause while the hostile ones run.
struct Bystander {
    over: Arc<AtomicBool>,
    calls: Arc<AtomicU32>,
    worker: tokio::task::JoinHandle<()>,
}

impl Bystander {
    async fn start(bench: &Bench) -> Self {
        let policy = bench.with_fields("local n = 0", "metric = function() n = n + 1 return n end, target = 1").await;
        let (over, calls) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
        let (done, count) = (Arc::clone(&over), Arc::clone(&calls));
        let worker = tokio::spawn(async move {
            while !done.load(Ordering::Relaxed) {
                let seen = policy.script.observe(ctx(), WALL).await;
                let expected = count.fetch_add(1, Ordering::Relaxed) + 1;
                assert_eq!(seen.sample, Sample::value(f64::from(expected)));
                tokio::task::yield_now().await;
            }
        });
        Self { over, calls, worker }
    }

    async fn finish(self, at_least: u32) {
        self.over.store(true, Ordering::Relaxed);
        self.worker.await.expect("the bystander's calls all gave its count");
        let calls = self.calls.load(Ordering::Relaxed);
        assert!(calls >= at_least, "only {calls} calls went through");
    }
}

#[tokio::test]
async fn bodies_are_stopped_in_metric_and_the_file_goes_on() {
    let bench = Bench::with(limits());
    let bystander = Bystander::start(&bench).await;
    let mut wrong = String::new();
    for (name, body, outcomes) in BODIES {
        let source = policy(
            "local hostile = true",
            &format!(
                "metric = function(ctx) if ctx.in_flight == 1 and hostile then hostile = false do {body} end end return 7 end, target = 1"
            ),
        );
        let loaded = bench.policy(&source).await;
        let start = Instant::now();
        let seen = loaded.script.observe(ctx(), WALL).await;
        wrong += &check(name, "metric", outcomes, seen.errors.first(), start.elapsed());
        // The same VM serves the next tick.
        let again = loaded.script.observe(ctx(), WALL).await;
        if again.sample != Sample::value(7.0) {
            wrong += &format!("{name}: not usable afterwards: {}\n", reports(&again.errors));
        }
    }
    assert_eq!(wrong, "");
    bystander.finish(u32::try_from(BODIES.len()).unwrap()).await;
}

#[tokio::test]
async fn bodies_are_stopped_in_every_other_function() {
    let bench = Bench::with(limits());
    let bystander = Bystander::start(&bench).await;
    let mut wrong = String::new();
    for (name, body, outcomes) in BODIES.iter().filter(|(_, _, outcomes)| *outcomes != HARMLESS) {
        // A launch is what a cooler is for, and there is no limit on what it remembers that it does not have elsewhere.
        if *name == "intents from anywhere" {
            continue;
        }
        let wrapped = format!("do {body} end");
        let source = policy(
            "",
            &format!(
                "metric = function(ctx) return 1 end, target = function(ctx) {wrapped} return 1 end,
                 cooler = function(n, ctx) {wrapped} end, stop = function(ctx) {wrapped} end,
                 victims = function(tasks, n, ctx) {wrapped} return {{}} end, drain = function(task, ctx) {wrapped} end"
            ),
        );
        let policy = bench.policy(&source).await.script;
        let start = Instant::now();
        let seen = policy.observe(ctx(), WALL).await;
        wrong += &check(name, "target", outcomes, seen.errors.first(), start.elapsed());
        let start = Instant::now();
        let acted = policy.act(Hook::Cooler, 1, ctx(), Mode::Live, WALL).await;
        wrong += &check(name, "cooler", outcomes, acted.error.as_ref(), start.elapsed());
        let start = Instant::now();
        let stopped = policy.stop(ctx(), Mode::Live, WALL).await;
        wrong += &check(name, "stop", outcomes, stopped.as_ref().err(), start.elapsed());
    }
    assert_eq!(wrong, "");
    bystander.finish(u32::try_from(BODIES.len()).unwrap()).await;
}

#[tokio::test]
async fn files_are_stopped_while_they_load() {
    let bench = Bench::with(limits());
    let bystander = Bystander::start(&bench).await;
    let mut wrong = String::new();
    let nested = |open: &str, close: &str, n: usize| format!("return {}1{}", open.repeat(n), close.repeat(n));
    let many = |n: usize| repeated(n, |i| format!("[{i}]={i},"));
    for (name, source, outcomes) in [
        ("loop", "while true do end".to_owned(), CPU),
        ("pcall loop", "while true do pcall(function() while true do end end) end".to_owned(), CPU),
        ("memory", "local t = {} while true do t[#t+1] = ('x'):rep(1e5) .. #t end".to_owned(), CPU_OR_MEMORY),
        ("parentheses", nested("(", ")", 100_000), &[Some(Syntax)] as Outcomes),
        ("braces", nested("{", "}", 100_000), &[Some(Syntax)]),
        ("functions", nested("function() return ", " end", 50_000), &[Some(Syntax)]),
        ("operators", format!("return {}1", "- ".repeat(200_000)), &[Some(Syntax)]),
        ("concatenation", format!("return {}1", "1 ..".repeat(200_000)), &[Some(Syntax), Some(Shape)]),
        ("constants", format!("return {{{}}}", many(60_000)), &[Some(Shape), Some(Memory)]),
        ("locals", repeated(300, |i| format!("local a{i} = print\n")), &[Some(Syntax)]),
        ("upvalues", repeated(150, |i| format!("local a{i} ")) + "return 1", &[Some(Shape)]),
        ("long name", format!("return {}", "x".repeat(500_000)), &[Some(Runtime), Some(Type)]),
        ("too long", " ".repeat((1 << 20) + 1), &[Some(Syntax)]),
        ("bytecode", "\u{1b}Lua\u{1}\u{2}\u{3}".to_owned(), &[Some(Syntax)]),
        ("zero bytes", "return\0 {}".to_owned(), &[Some(Syntax), Some(Shape)]),
        ("self-reference", "local t = {} t.workload = t t.control = t return t".to_owned(), &[Some(Shape)]),
        ("proxy", "return setmetatable({}, { __index = function() while true do end end })".to_owned(), &[Some(Shape)]),
        ("huge table", "local t = {} for i = 1, 1e5 do t['k' .. i] = i end return t".to_owned(), &[Some(Shape), Some(Cpu), Some(Memory)]),
        (
            "huge strings",
            "local s, env = ('x'):rep(2e6), {} for i = 1, 900 do env['k' .. i] = s end return { workload = { env = env } }".to_owned(),
            &[Some(Shape)],
        ),
        ("many parameters", "local t = {} for i = 1, 1e4 do t['k' .. i] = i end require('setpoint.params')(t)".to_owned(), TYPE),
        ("returns a coroutine", "return coroutine.create(print)".to_owned(), &[Some(Shape)]),
        ("yields", "coroutine.yield(1)".to_owned(), RUNTIME),
    ] {
        let start = Instant::now();
        let loaded = bench.load(&source).await;
        let errors = loaded.err().unwrap_or_default();
        wrong += &check(name, "load", outcomes, errors.first(), start.elapsed());
    }
    assert_eq!(wrong, "");
    bystander.finish(10).await;
}

#[tokio::test]
async fn a_hostile_row_leaves_its_fleet_alone() {
    let bench = Bench::with(limits());
    let source = r#"
        return setpoint.fleet {
          discover = function() return { { name = "bad" }, { name = "good" }, { name = "worse" } } end,
          policy = function(row)
            if row.name == "worse" then while true do pcall(error) end end
            return {
              interval = "10s", workload = { command = "x", max = 3 }, target = 1,
              metric = function(ctx)
                if row.name == "bad" then while true do pcall(function() while true do end end) end end
                return 7
              end,
            }
          end,
        }"#;
    let Ok(file) = bench.load(source).await else { panic!("refused") };
    let Content::Fleet(fleet) = file.content else { panic!("one policy") };
    let rows = fleet.discover(WALL).await.unwrap();
    let kind = |at: usize| rows[at].policy.as_ref().err().map(|error| error.kind);
    assert_eq!((kind(0), kind(1), kind(2)), (None, None, Some(Cpu)));
    let (bad, good) = (rows[0].policy.clone().unwrap().script, rows[1].policy.clone().unwrap().script);
    for _ in 0..5 {
        let (bad, good) = tokio::join!(bad.observe(ctx(), WALL), good.observe(ctx(), WALL));
        assert_eq!(good.sample, Sample::value(7.0), "{}", reports(&good.errors));
        assert_eq!(check("row", "metric", CPU, bad.errors.first(), Duration::ZERO), "");
    }
}

#[tokio::test]
async fn deadlines_end_calls_that_wait_their_turn() {
    let limits = Limits { cpu: Duration::from_secs(3600), ..limits() };
    let bench = Bench::with(limits);
    let loaded = bench.with_fields("", "metric = function() while true do end end, target = 1").await;
    let start = Instant::now();
    let seen = loaded.script.observe(ctx(), Duration::from_millis(100)).await;
    let outcomes = &[Some(ScriptErrorKind::Deadline)];
    assert_eq!(check("loop", "metric", outcomes, seen.errors.first(), start.elapsed()), "");
    let report = reports(&seen.errors);
    assert!(report.contains("in function 'metric'"), "says where it was: {report}");
}

#[tokio::test]
async fn random_texts_and_results_never_break_the_host() {
    let cases = std::env::var_os("SETPOINT_CASES").and_then(|text| text.to_str()?.parse().ok()).unwrap_or(150_u32);
    let bench = Bench::with(limits());
    let mut random = fastrand::Rng::with_seed(20_261_121);
    let words = [
        "return", "{", "}", "workload", "=", "metric", "function", "(", ")", "end", "local", "x", "1", "1e308", "'s'",
        "..", "while", "do", "true", "nil", "pcall", ",", "[", "]", "ctx", ".", "state", "and", "not", "error", "--",
        "\n", "[[", "]]", "\"", "#", "setpoint", "require", "if", "then", "0/0", "-", "^", "%", "~=", ":", "...",
        "for", "in",
    ];
    let values = [
        "nil",
        "0/0",
        "1/0",
        "-1/0",
        "1e308",
        "-0",
        "2^63",
        "'x'",
        "''",
        "{}",
        "{1}",
        "{age=1}",
        "{desired=1}",
        "true",
        "false",
        "print",
        "ctx",
        "setpoint",
        "coroutine.create(print)",
        "ctx.tasks",
        "ctx.tasks[1]",
        "-1",
        "1.5",
        "'80%'",
        "('x'):rep(1e5)",
        "setmetatable({}, {__index=error})",
        "ctx.state",
    ];
    for case in 0..cases {
        let text: String = repeated(random.usize(1..60), |_| format!("{} ", random.choice(words).unwrap()));
        // Whatever it is, it comes back: as a policy (unlikely) or as errors.
        if let Err(errors) = bench.load(&text).await {
            assert!(!errors.is_empty(), "case {case}: {text}");
        }
        let mut pick = || *random.choice(&values[..]).unwrap();
        let [metric, target, n, ids, code] = [(); 5].map(|()| pick());
        let fields = format!(
            "metric = function(ctx) return {metric}, {target} end, target = function(ctx) return {target} end,
             cooler = function(n, ctx)
               pcall(function() ctx.workload:launch({n}, {ids}) end)
               pcall(function() ctx.workload:kill({code}) end)
               return {n}
             end,
             victims = function(t, n, ctx) return {ids} end, stop = function(ctx) return {code} end,
             drain = function(t, ctx) return {metric} end"
        );
        let script = bench.with_fields("", &fields).await.script;
        let seen = script.observe(ctx(), WALL).await;
        if let Some(value) = seen.sample.fresh() {
            assert!(value.is_finite(), "case {case}: {fields}");
        }
        assert!(seen.setpoint.is_none_or(f64::is_finite), "case {case}: {fields}");
        let acted = script.act(Hook::Cooler, 3, ctx(), Mode::Record, WALL).await;
        assert!(acted.error.is_none_or(|error| !error.message.is_empty()));
        for task in script.victims(1, ctx(), WALL).await.unwrap_or_default() {
            assert!(ctx().tasks.iter().any(|known| known.id == task), "case {case}: {fields}");
        }
        let code = script.stop(ctx(), Mode::Record, WALL).await;
        assert!(code.is_err() || code.is_ok_and(|code| code.is_none_or(|code| (0..256).contains(&code))));
    }
}
