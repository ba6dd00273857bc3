//! One VM: a Lua state with its limits, its sealed environment and its turn-taking.
//!
//! A call is a coroutine that is polled under the VM's turn: calls of one VM interleave where they wait or have used
//! their time slice, and never run at once. A call ends by returning, raising, breaking a limit, or being let go at its
//! deadline; in each case the VM is free for the next.
//!
//! Invariants: a [`CallScope`] is set exactly while a coroutine of its call runs; no Lua runs without a meter.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::{Duration, SystemTime};

use mlua::{Function, IntoLuaMulti, Lua, MultiValue, Table, Thread, VmState};
use once_cell::sync::OnceCell;
use tokio::sync::Semaphore;
use tokio_util::sync::PollSemaphore;

use crate::core::model::PolicyName;

use super::call::{CallScope, HostShared, Outside};
use super::error::{ScriptError, ScriptErrorKind};
use super::fault::{Fault, PRELUDE, Sources};
use super::meter::{Answer, Budget, Meter, Trip};
use super::params::Params;
use super::pool::Pool;
use super::require::Files;
use super::{Hook, Limits, Mode, stdlib};

/// One file's VM.
pub(super) struct Vm {
    pub(super) lua: Lua,
    pub(super) shared: Arc<HostShared>,
    pub(super) pool: Arc<Pool>,
    pub(super) sources: Arc<Sources>,
    /// The file as its user names it; also its chunk's name.
    pub(super) chunk: String,
    /// The policy's name, or the fleet's.
    pub(super) name: PolicyName,
    environment: Table,
    coverage: bool,
    /// Whether what it holds is let go of by who drops it, who has the VM's turn anyway.
    pub(super) let_go_here: bool,
    idle: Function,
    turn: Arc<Semaphore>,
    meter: Arc<Meter>,
    /// Bytes in use after the last collection of `make_room`.
    live: AtomicUsize,
}

/// One call.
pub(super) struct Job<'a> {
    /// The coroutine to run it in, free at the moment.
    pub(super) thread: &'a Thread,
    /// What to call.
    pub(super) function: &'a Function,
    /// On whose behalf, and until when.
    pub(super) scope: Arc<CallScope>,
    /// CPU time that it may use.
    pub(super) cpu: Duration,
    /// Number of the tick, which seeds its random numbers.
    pub(super) tick: u64,
}

/// What came of a call.
pub(super) struct Done<R> {
    pub(super) result: Result<R, Fault>,
    pub(super) cpu: Duration,
}

/// A limit was broken: what the VM is stopped with. Whoever catches it is stopped again.
#[derive(Debug, thiserror::Error)]
#[error("a limit of this call was broken: {0}")]
struct Stopped(&'static str);

impl Vm {
    /// Makes a VM with its environment. Runs on a script thread: it takes about half a millisecond.
    pub(super) fn new(
        shared: Arc<HostShared>,
        pool: Arc<Pool>,
        chunk: String,
        name: PolicyName,
        params: Params,
        files: Files,
    ) -> mlua::Result<Arc<Self>> {
        let lua = Lua::new();
        let meter = Arc::new(Meter::new());
        lua.set_app_data(Arc::clone(&shared));
        lua.set_app_data(params);
        lua.set_app_data(files);
        let sources = Arc::new(Sources::default());
        lua.set_app_data(Arc::clone(&sources));
        let environment = stdlib::environment(&lua, &meter)?;
        lua.sandbox(true)?;
        let idle = lua.create_function(|_, ()| Ok(()))?;
        lua.set_memory_limit(shared.limits.memory)?;
        install_interrupt(&lua, &meter);
        let turn = Arc::new(Semaphore::new(1));
        Ok(Arc::new(Self {
            lua,
            shared,
            pool,
            sources,
            chunk,
            name,
            environment,
            coverage: false,
            let_go_here: false,
            idle,
            turn,
            meter,
            live: AtomicUsize::new(0),
        }))
    }

    /// The same VM for a file of a spec in it: with its own name and environment, and counting which of its lines run when
    /// `coverage` is set. What it holds is let go of by who drops it, who has the VM's turn anyway.
    #[cfg(feature = "sim")]
    pub(super) fn sibling(&self, chunk: String, name: PolicyName, environment: Table, coverage: bool) -> Arc<Self> {
        let within = self.within(environment);
        Arc::new(Self { chunk, name, coverage, let_go_here: true, ..within })
    }

    /// The same VM and file in another environment.
    #[cfg(feature = "sim")]
    pub(super) fn within(&self, environment: Table) -> Self {
        Self {
            lua: self.lua.clone(),
            shared: Arc::clone(&self.shared),
            pool: Arc::clone(&self.pool),
            sources: Arc::clone(&self.sources),
            chunk: self.chunk.clone(),
            name: self.name.clone(),
            environment,
            coverage: self.coverage,
            let_go_here: self.let_go_here,
            idle: self.idle.clone(),
            turn: Arc::clone(&self.turn),
            meter: Arc::clone(&self.meter),
            live: AtomicUsize::new(self.live.load(Ordering::Relaxed)),
        }
    }

    /// Limits on scripts.
    pub(super) fn limits(&self) -> &Limits {
        &self.shared.limits
    }

    /// A coroutine for calls. Only under the VM's turn.
    pub(super) fn new_thread(&self) -> mlua::Result<Thread> {
        self.lua.create_thread(self.idle.clone())
    }

    /// Compiles a source. Only under the VM's turn.
    pub(super) fn compile(&self, chunk: &str, source: &Arc<str>) -> mlua::Result<Function> {
        self.sources.insert(chunk, Arc::clone(source));
        if self.coverage {
            let compiler = mlua::chunk::Compiler::new().set_coverage_level(1);
            return chunk_of(&self.lua, &self.environment, chunk, source).set_compiler(compiler).into_function();
        }
        compile(&self.lua, &self.environment, chunk, source)
    }

    /// Does host work on the VM when it is its turn.
    pub(super) async fn in_turn<R>(&self, work: impl FnOnce(&Lua) -> R) -> R {
        // The semaphore is never closed; without a permit the work would only contend for the VM's lock.
        let _turn = self.turn.acquire().await.ok();
        work(&self.lua)
    }

    /// Tells a fault.
    pub(super) fn explain(&self, hook: Hook, fault: &Fault) -> ScriptError {
        self.sources.explain(&self.chunk, hook, fault, self.limits())
    }

    /// A fault that did not come from Lua.
    pub(super) fn error(&self, hook: Hook, kind: ScriptErrorKind, message: impl Into<String>) -> ScriptError {
        ScriptError::new(&self.chunk, hook, kind, message)
    }

    /// A scope for a call of this VM.
    pub(super) fn scope(
        &self,
        policy: PolicyName,
        hook: Hook,
        mode: Mode,
        now: SystemTime,
        wall: Duration,
    ) -> CallScope {
        CallScope {
            policy,
            hook,
            mode,
            trial: hook == Hook::Load,
            outside: Outside::Open,
            now,
            deadline: tokio::time::Instant::now() + wall,
            output_left: self.limits().output.into(),
            recorded: Mutex::default(),
            intents: Mutex::default(),
            // Waiting passes through a script's own coroutines (see the prelude), so none is singled out.
        }
    }

    /// Runs a call to its end. `arguments` and `finish` are host code that runs under the VM's turn, just before and
    /// just after; `finish` turns the results into plain data.
    pub(super) async fn call<R>(
        &self,
        job: Job<'_>,
        arguments: impl FnOnce(&Lua) -> mlua::Result<MultiValue>,
        finish: impl FnOnce(&Lua, MultiValue) -> Result<R, String>,
    ) -> Done<R> {
        let deadline = job.scope.deadline;
        let mut budget = Budget {
            cpu: job.cpu,
            deadline: deadline.into_std(),
            spent: Duration::ZERO,
            tripped: None,
            yielded: false,
            random: fastrand::Rng::with_seed(seed(&job.scope, job.tick)),
        };
        let mut turn = PollSemaphore::new(Arc::clone(&self.turn));
        let mut over = pin!(tokio::time::sleep_until(deadline));
        let mut arguments = Some(arguments);
        let mut finish = Some(finish);
        let mut running = None;
        let result = poll_fn(|cx| {
            let Poll::Ready(permit) = turn.poll_acquire(cx) else {
                return over.as_mut().poll(cx).map(|()| Err(Fault::Limit(Trip::Deadline, None)));
            };
            let before = CallScope::set_current(&self.lua, Some(Arc::clone(&job.scope)));
            let polled = self.meter.run(&mut budget, || {
                self.make_room()?;
                let call = match &mut running {
                    Some(call) => call,
                    None => running.insert(self.start(&job, arguments.take())?),
                };
                Ok(Pin::new(call).poll(cx))
            });
            CallScope::set_current(&self.lua, before);
            let result = match polled {
                Err(error) | Ok(Poll::Ready(Err(error))) => Err(Fault::Lua(error)),
                Ok(Poll::Ready(Ok(values))) => match finish.take() {
                    Some(finish) => finish(&self.lua, values).map_err(Fault::Result),
                    None => Err(Fault::Result("the call ended twice".to_owned())),
                },
                Ok(Poll::Pending) => {
                    let late = over.as_mut().poll(cx).is_ready();
                    if !late || budget.yielded {
                        // A call that was computing goes on until the meter stops it, which knows where.
                        if late {
                            cx.waker().wake_by_ref();
                        }
                        drop(permit);
                        return Poll::Pending;
                    }
                    Err(Fault::Limit(Trip::Deadline, None))
                }
            };
            let result = match budget.tripped {
                Some(trip) => Err(Fault::Limit(trip, self.meter.take_trace())),
                None => result,
            };
            running = None;
            self.clean_up(&job, &result);
            drop(permit);
            Poll::Ready(result)
        })
        .await;
        if running.is_some() {
            // The deadline came while another call had the turn; the coroutine must be let go under the turn, too.
            let call = running;
            self.in_turn(|_| drop(call)).await;
        }
        Done { result, cpu: budget.spent }
    }

    /// Runs a call to its end on this thread and in no coroutine, so that it cannot wait; only where nobody else calls
    /// this VM's functions meanwhile, unless from within this call.
    pub(super) fn call_here<R>(
        &self,
        function: &Function,
        scope: &Arc<CallScope>,
        tick: u64,
        limit: Duration,
        arguments: impl IntoLuaMulti,
        finish: impl FnOnce(&Lua, MultiValue) -> Result<R, String>,
    ) -> Result<R, Fault> {
        let before = CallScope::set_current(&self.lua, Some(Arc::clone(scope)));
        let (result, trip) = self.meter.run_here(seed(scope, tick), limit, || {
            self.make_room()?;
            function.call::<MultiValue>(arguments)
        });
        CallScope::set_current(&self.lua, before);
        match (trip, result) {
            (Some(trip), _) => Err(Fault::Limit(trip, self.meter.take_trace())),
            (None, Err(error)) => Err(Fault::Lua(error)),
            (None, Ok(values)) => finish(&self.lua, values).map_err(Fault::Result),
        }
    }

    fn start(
        &self,
        job: &Job<'_>,
        arguments: Option<impl FnOnce(&Lua) -> mlua::Result<MultiValue>>,
    ) -> mlua::Result<mlua::thread::AsyncThread<MultiValue>> {
        job.thread.reset(job.function.clone())?;
        let arguments = arguments.map_or_else(|| Ok(MultiValue::new()), |make| make(&self.lua))?;
        job.thread.clone().into_async(arguments)
    }

    /// Collects all garbage. Only under the VM's turn.
    pub(super) fn tidy(&self) -> mlua::Result<()> {
        self.lua.gc_collect()?;
        self.live.store(self.lua.used_memory(), Ordering::Relaxed);
        Ok(())
    }

    /// Collects garbage when half of the room that the last collection left is filled. Luau collects by its own schedule
    /// and not when an allocation fails, so without this the garbage of one call could be the next one's memory error. On
    /// the call's account.
    fn make_room(&self) -> mlua::Result<()> {
        let limit = self.limits().memory;
        let live = self.live.load(Ordering::Relaxed);
        if self.lua.used_memory() > live + limit.saturating_sub(live) / 2 {
            self.lua.gc_collect()?;
            self.live.store(self.lua.used_memory(), Ordering::Relaxed);
        }
        Ok(())
    }

    /// Leaves the VM as the next call needs it.
    fn clean_up<R>(&self, job: &Job<'_>, result: &Result<R, Fault>) {
        if result.is_ok() {
            return;
        }
        // A coroutine that was left in the middle holds its stack, and whatever it waits for.
        if let Err(error) = job.thread.reset(self.idle.clone()) {
            tracing::debug!(%error, policy = %job.scope.policy, "a failed call's coroutine cannot be reset");
        }
    }

    /// Bytes that the VM holds now.
    #[cfg(test)]
    pub(super) fn memory(&self) -> usize {
        self.lua.used_memory()
    }
}

/// Compiles a source in an environment.
pub(super) fn compile(lua: &Lua, environment: &Table, chunk: &str, source: &str) -> mlua::Result<Function> {
    chunk_of(lua, environment, chunk, source).into_function()
}

fn chunk_of<'a>(lua: &Lua, environment: &Table, chunk: &str, source: &'a str) -> mlua::chunk::Chunk<'a> {
    lua.load(source)
        .set_name(format!("@{chunk}"))
        .set_mode(mlua::chunk::ChunkMode::Text)
        .set_environment(environment.clone())
}

/// Loads a prelude. It is compiled once for all VMs: what the compiler leaves behind is several times as large as the
/// functions, and a VM's pages would come to lie in it.
pub(super) fn load_prelude(lua: &Lua, source: &str, compiled: &OnceCell<Vec<u8>>) -> mlua::Result<Function> {
    let bytecode = compiled.get_or_try_init(|| mlua::chunk::Compiler::new().compile(source))?;
    lua.load(bytecode.as_slice())
        .set_name(format!("={PRELUDE}"))
        .set_mode(mlua::chunk::ChunkMode::Binary)
        .into_function()
}

fn install_interrupt(lua: &Lua, meter: &Arc<Meter>) {
    let meter = Arc::clone(meter);
    lua.set_interrupt(move |lua| match meter.tick() {
        Answer::Continue => Ok(VmState::Continue),
        Answer::Yield => Ok(VmState::Yield),
        Answer::Raise(trip, first) => {
            if first {
                let trace = lua.traceback(None, 0).ok().map(|text| text.to_string_lossy());
                meter.keep_trace(trace);
            }
            Err(mlua::Error::external(Stopped(match trip {
                Trip::Cpu => "CPU time",
                Trip::Deadline => "the deadline",
            })))
        }
    });
}

/// The same for the same policy, function and tick, so that a replay draws the same numbers (FNV-1a).
fn seed(scope: &CallScope, tick: u64) -> u64 {
    let name = scope.policy.as_str().bytes().chain(scope.hook.as_str().bytes());
    name.chain(tick.to_le_bytes())
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::atomic::AtomicBool;

    use mlua::Value;
    use tokio::sync::Notify;

    use super::super::convert::whole;
    use super::*;
    use crate::script::Permissions;

    const WALL: Duration = Duration::from_secs(60);

    /// A VM on a pool of one thread, with generous limits.
    pub(in super::super) fn vm(pool: &Arc<Pool>) -> Arc<Vm> {
        let limits = Limits { cpu: Duration::from_secs(3600), ..Limits::default() };
        let io = tokio::runtime::Handle::current();
        let shared = Arc::new(HostShared::new(limits, Permissions::default(), crate::script::Natives::default(), io));
        let (name, params) = (PolicyName::from("p"), Params::default());
        Vm::new(
            shared,
            Arc::clone(pool),
            "p.lua".to_owned(),
            name,
            params,
            Files::new(".".into(), super::super::require::Reads::default()),
        )
        .unwrap()
    }

    /// Runs a chunk with host functions as its arguments, on the pool.
    fn run(
        vm: &Arc<Vm>,
        source: &'static str,
        wall: Duration,
        arguments: impl FnOnce(&Lua) -> mlua::Result<MultiValue> + Send + 'static,
    ) -> tokio::task::JoinHandle<Result<u32, Fault>> {
        let vm = Arc::clone(vm);
        vm.pool.clone().spawn(async move {
            let (chunk, thread) =
                vm.in_turn(|_| (vm.compile("p.lua", &source.into()).unwrap(), vm.new_thread().unwrap())).await;
            let scope = vm.scope(vm.name.clone(), Hook::Metric, Mode::Record, SystemTime::UNIX_EPOCH, wall);
            let cpu = vm.limits().cpu;
            let job = Job { thread: &thread, function: &chunk, scope: Arc::new(scope), cpu, tick: 1 };
            let read =
                |_: &Lua, values: MultiValue| whole(values.front().unwrap_or(&Value::Nil), "it returned", 0..=99);
            vm.call(job, arguments, read).await.result
        })
    }

    #[tokio::test]
    async fn waiting_passes_through_a_scripts_own_coroutines() {
        let pool = Arc::new(Pool::new(1).unwrap());
        let source = "
            local wait = ...
            local inner = function() local a = wait(1) coroutine.yield(a) return wait(10) end
            local outer = coroutine.wrap(function()
              local co = coroutine.create(inner)
              while true do
                local ok, value = coroutine.resume(co)
                if not ok then error(value) end
                coroutine.yield(value)
              end
            end)
            return outer() + outer()";
        let result = run(&vm(&pool), source, WALL, |lua| {
            let wait = lua.create_async_function(|_, n: f64| async move {
                tokio::task::yield_now().await;
                tokio::task::yield_now().await;
                Ok(n)
            })?;
            Ok(MultiValue::from_vec(vec![Value::Function(wait)]))
        });
        assert_eq!(result.await.unwrap().unwrap(), 11);
    }

    #[tokio::test]
    async fn a_call_that_waits_lets_others_of_its_vm_run() {
        let pool = Arc::new(Pool::new(1).unwrap());
        let vm = vm(&pool);
        let notify = Arc::new(Notify::new());
        let awaited = Arc::clone(&notify);
        let first = run(&vm, "local wait = ... wait() return 1", WALL, move |lua| {
            let wait = lua.create_async_function(move |_, ()| {
                let awaited = Arc::clone(&awaited);
                async move {
                    awaited.notified().await;
                    Ok(())
                }
            })?;
            Ok(MultiValue::from_vec(vec![Value::Function(wait)]))
        });
        assert_eq!(run(&vm, "return 2", WALL, |_| Ok(MultiValue::new())).await.unwrap().unwrap(), 2);
        notify.notify_one();
        assert_eq!(first.await.unwrap().unwrap(), 1);
    }

    #[tokio::test]
    async fn a_call_that_waits_too_long_is_let_go_and_the_vm_stays_usable() {
        let pool = Arc::new(Pool::new(1).unwrap());
        let vm = vm(&pool);
        let result = run(&vm, "local wait = ... wait() return 1", Duration::from_millis(20), |lua| {
            let wait = lua.create_async_function(|_, ()| std::future::pending::<mlua::Result<()>>())?;
            Ok(MultiValue::from_vec(vec![Value::Function(wait)]))
        });
        let fault = result.await.unwrap().unwrap_err();
        assert!(matches!(fault, Fault::Limit(Trip::Deadline, _)), "{fault:?}");
        assert_eq!(run(&vm, "return 2", WALL, |_| Ok(MultiValue::new())).await.unwrap().unwrap(), 2);
    }

    #[tokio::test]
    async fn a_fresh_call_does_not_wait_for_a_long_one() {
        // One thread: were the long call not cut into slices, the short ones would wait until its deadline.
        let pool = Arc::new(Pool::new(1).unwrap());
        let (long, other) = (vm(&pool), vm(&pool));
        let done = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&done);
        let looping = run(&long, "local done = ... while not done() do end return 1", WALL, move |lua| {
            let check = lua.create_function(move |_, ()| Ok(seen.load(Ordering::Relaxed)))?;
            Ok(MultiValue::from_vec(vec![Value::Function(check)]))
        });
        assert_eq!(run(&other, "return 2", WALL, |_| Ok(MultiValue::new())).await.unwrap().unwrap(), 2);
        assert_eq!(
            run(&long, "return 3", WALL, |_| Ok(MultiValue::new())).await.unwrap().unwrap(),
            3,
            "in its own VM, too"
        );
        done.store(true, Ordering::Relaxed);
        assert_eq!(looping.await.unwrap().unwrap(), 1);
    }
}
