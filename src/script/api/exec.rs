//! `setpoint.exec`: commands of the host's machine, when the host allows it (`[policy] exec = true`).
//!
//! A command gets a process group of its own, a bare environment (the host's may hold secrets), no terminal
//! and no more time than its timeout and the tick's deadline; then the whole group is killed. Output beyond
//! its limit ends it too. Nothing goes through a shell.

use std::io;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use mlua::{Lua, Table, Value};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, Command};

use super::args::{Args, Problem, list, outside, quoted, text, waiting};
use super::{Access, FunctionDoc, ModuleDoc};
use crate::script::call::{HostShared, Refused, ScriptDir};

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);
/// Where programs are looked for.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const PARAMS: &[(&str, &str)] = &[("command", "string[]"), ("options?", "setpoint.exec.Options")];

pub(super) const MODULE: ModuleDoc = ModuleDoc {
    name: "exec",
    doc: "Runs commands, when the host allows it (`[policy] exec = true`). A command is a list (no shell), starts in the policy's \
          folder with a bare environment (PATH and what `env` says), and is killed with its process group when its time is over.",
    types: &[
        "@class (exact) setpoint.exec.Options",
        "@field timeout? string|number `\"10s\"` unless given; the tick's deadline holds anyway.",
        "@field stdin? string What the command reads; nothing unless given.",
        "@field env? table<string, string> Further environment variables.",
        "@field max_output? string|number Most bytes of standard output, and of standard error; the host's `body` limit unless given.",
        "@class (exact) setpoint.exec.Result",
        "@field code? integer Exit code; nil when a signal ended it.",
        "@field signal? integer The signal that ended it.",
        "@field ok boolean Whether the exit code is 0.",
        "@field stdout string",
        "@field stderr string",
        "@field stub? boolean True when nothing was run: in a dry run, or while a file loads.",
    ],
    fields: &[],
    functions: &[
        FunctionDoc {
            name: "read",
            params: PARAMS,
            returns: &["setpoint.exec.Result"],
            access: Access::Read,
            doc: "Runs a command that only looks, e.g. for a metric; it runs in a dry run too. A command that cannot be started, takes \
                  too long or writes too much raises; an exit code does not. While a file loads: `code = 0` and no output.",
        },
        FunctionDoc {
            name: "run",
            params: PARAMS,
            returns: &["setpoint.exec.Result"],
            access: Access::Effect,
            doc: "Runs a command that changes something, like `exec.read` otherwise. In a dry run: `code = 0`, no output, `stub = true`.",
        },
    ],
    register,
};

fn register(lua: &Lua) -> mlua::Result<Table> {
    let module = lua.create_table()?;
    module.raw_set("read", function(lua, "exec.read", false)?)?;
    module.raw_set("run", function(lua, "exec.run", true)?)?;
    Ok(module)
}

fn function(lua: &Lua, name: &'static str, effect: bool) -> mlua::Result<mlua::Function> {
    waiting(lua, name, 2, move |lua, scope, args| async move {
        let shared = HostShared::of(&lua)?;
        let job = Job::read(&lua, &args, shared.limits.body)?;
        if scope.trial {
            return Outcome::stub(&lua);
        }
        if !shared.permissions.exec {
            let text = format!("{name}: the host does not allow commands (`exec = true` under [policy] does)");
            return Err(Refused::error(text));
        }
        if effect && !scope.effect(|| format!("{name} {}", job.shown()))? {
            return Outcome::stub(&lua);
        }
        outside(&shared, &scope, name, job.run()).await?.table(&lua)
    })
}

/// One command to run.
struct Job {
    argv: Vec<String>,
    env: Vec<(String, String)>,
    folder: Option<std::path::PathBuf>,
    stdin: Option<Vec<u8>>,
    timeout: Duration,
    most_output: usize,
}

/// How it ended.
struct Outcome {
    status: ExitStatus,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
}

impl Job {
    fn read(lua: &Lua, args: &Args, most_output: usize) -> mlua::Result<Self> {
        let expected = "a command as a list, such as { \"df\", \"-h\" }";
        let argv = list(&args.table(1, expected)?, text)?.filter(|argv| !argv.is_empty());
        let argv = argv.ok_or_else(|| args.wrong(1, expected))?;
        let options = args.options(2, &["timeout", "stdin", "env", "max_output"])?;
        let mut env = Vec::new();
        if let Some(table) = options.table("env", "a table of variables")? {
            for pair in table.pairs::<Value, Value>() {
                let (key, value) = pair?;
                match (text(&key), text(&value)) {
                    (Some(key), Some(value)) if is_variable(&key) && !value.contains('\0') => env.push((key, value)),
                    _ => return Err(options.wrong("env", "names and values as text", &key)),
                }
            }
        }
        if argv.iter().any(|word| word.contains('\0')) {
            return Err(args.error("argument 1: expected text without NUL, got some"));
        }
        Ok(Self {
            argv,
            env,
            folder: lua.app_data_ref::<ScriptDir>().map(|folder| folder.0.clone()),
            stdin: options.bytes("stdin", "text")?,
            timeout: options.duration("timeout")?.unwrap_or(DEFAULT_TIMEOUT),
            most_output: options.size("max_output", most_output)?.unwrap_or(most_output),
        })
    }

    fn shown(&self) -> String {
        quoted(&self.argv.join(" "))
    }

    fn problem(&self, text: impl std::fmt::Display) -> Problem {
        Problem::Failed(format!("{}: {text}", self.shown()))
    }

    fn spawn(&self) -> io::Result<Child> {
        let mut command = Command::new(&self.argv[0]);
        command.args(&self.argv[1..]).env_clear().env("PATH", PATH).envs(self.env.iter().cloned());
        if let Some(folder) = &self.folder {
            command.current_dir(folder);
        }
        let stdin = if self.stdin.is_some() { Stdio::piped() } else { Stdio::null() };
        command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0).kill_on_drop(true).spawn()
    }

    async fn run(self) -> Result<Outcome, Problem> {
        let mut child = self.spawn().map_err(|error| self.problem(error))?;
        // From here on the group dies with this future, whether it ends, times out or is dropped.
        let group = Group::of(&child);
        let ended = tokio::time::timeout(self.timeout, self.attend(&mut child)).await;
        match ended {
            Ok(Ok(outcome)) => {
                group.forget();
                Ok(outcome)
            }
            Ok(Err(problem)) => Err(problem),
            Err(_) => Err(self.problem(format!("expected it to end within {:?}, killed it", self.timeout))),
        }
    }

    /// Feeds the child, reads it out and waits for it.
    async fn attend(&self, child: &mut Child) -> Result<Outcome, Problem> {
        let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let feed = async {
            if let (Some(mut pipe), Some(input)) = (stdin, &self.stdin) {
                match pipe.write_all(input).await {
                    // A command need not read all that it is given.
                    Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(self.problem(error)),
                    _ => {}
                }
            }
            Ok(())
        };
        let ((), stdout, stderr) =
            tokio::try_join!(feed, self.drain(stdout, "standard output"), self.drain(stderr, "standard error"))?;
        let status = child.wait().await.map_err(|error| self.problem(error))?;
        Ok(Outcome { status, stdout, stderr })
    }

    async fn drain(&self, pipe: Option<impl AsyncRead + Unpin>, which: &str) -> Result<Vec<u8>, Problem> {
        let mut output = Vec::new();
        if let Some(pipe) = pipe {
            let most = self.most_output as u64 + 1;
            pipe.take(most).read_to_end(&mut output).await.map_err(|error| self.problem(error))?;
        }
        if output.len() > self.most_output {
            return Err(self.problem(format!("expected at most {} bytes of {which}, got more", self.most_output)));
        }
        Ok(output)
    }
}

fn is_variable(name: &str) -> bool {
    !name.is_empty() && !name.contains(['=', '\0'])
}

/// Kills a process group when it is dropped.
struct Group(Option<Pid>);

impl Group {
    /// The group of a child that leads one and has not been waited for, so that its number is still its own.
    fn of(child: &Child) -> Self {
        Self(child.id().and_then(|pid| Pid::from_raw(pid.cast_signed())))
    }

    /// The child has ended and nothing holds its output any more; whatever it left behind is meant to stay.
    fn forget(mut self) {
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(leader) = self.0 {
            // It may have ended by itself in the meantime, which is as good.
            kill_process_group(leader, Signal::KILL).ok();
        }
    }
}

impl Outcome {
    fn table(self, lua: &Lua) -> mlua::Result<Table> {
        use std::os::unix::process::ExitStatusExt as _;
        let table = lua.create_table()?;
        table.raw_set("code", self.status.code())?;
        table.raw_set("signal", self.status.signal())?;
        table.raw_set("ok", self.status.success())?;
        table.raw_set("stdout", lua.create_string(self.stdout)?)?;
        table.raw_set("stderr", lua.create_string(self.stderr)?)?;
        Ok(table)
    }

    fn stub(lua: &Lua) -> mlua::Result<Table> {
        let table = Self { status: ExitStatus::default(), stdout: Vec::new(), stderr: Vec::new() }.table(lua)?;
        table.raw_set("stub", true)?;
        Ok(table)
    }
}
