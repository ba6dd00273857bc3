//! The command line: one file a verb.
//!
//! This folder and `main.rs` are the only places that read the environment, print or exit. A verb takes its own
//! arguments and gives back how the process ends; it does not end it itself.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Parser, Subcommand};
use serde_json::Value;

mod bundled;
mod check;
mod client;
mod completion;
#[cfg(feature = "docker")]
mod docker;
mod dto;
mod engine;
mod eval;
#[cfg(feature = "mesos")]
mod executor;
pub(crate) mod exit;
mod explain;
mod files;
mod fleets;
mod host;
mod import;
mod init;
mod live;
mod log;
mod man;
#[cfg(feature = "mesos")]
mod mesos;
mod names;
mod overrides;
mod pause;
mod policies;
mod reload;
mod replay;
mod resume;
mod rows;
mod run;
mod simulate;
mod sources;
mod status;
pub(crate) mod term;
mod test;
mod types;
mod units;

use exit::{CliError, Exit};
use live::Screen;

const LONG_ABOUT: &str = "Hold a metric at a target by launching and killing tasks.\n\n\
    A policy is a Lua file with four functions: `metric` says what is, `target` what should be, and `warmer` and \
    `cooler` what to do about the difference (launch or kill that many tasks, when left out). setpoint calls them on \
    every tick, decides within the limits that the policy sets, and carries the decision out. Files are edited while \
    it runs.";

const EXAMPLES: &str = "\
Examples:
  setpoint run thermostat     a bundled policy; its page is at http://127.0.0.1:8080
  setpoint init               a first policy of your own, with its spec and editor types
  setpoint check queue.lua    is it right?
  setpoint eval queue.lua     what would it do now?
  setpoint run queue.lua      hold it
  setpoint status --watch     from another terminal";

/// Hold a metric at a target by launching and killing tasks.
#[derive(Debug, Parser)]
#[command(name = "setpoint", version, long_about = LONG_ABOUT, after_help = EXAMPLES,
          after_long_help = format!("{EXAMPLES}\n\n{}", Exit::table()), max_term_width = 110,
          arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    globals: Globals,

    #[command(subcommand)]
    verb: Verb,
}

/// What every verb takes.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Globals {
    /// Log more; twice, everything.
    #[arg(short, long, action = clap::ArgAction::Count, global = true)]
    verbose: u8,

    /// Log less: warnings; twice, only errors.
    #[arg(short, long, action = clap::ArgAction::Count, global = true)]
    quiet: u8,

    /// Log by a filter, such as `info,setpoint::script=debug`.
    #[arg(long, value_name = "FILTER", env = names::ENV_LOG, hide_env_values = true, global = true)]
    log: Option<String>,

    /// When to colour; `auto` is on a terminal, unless NO_COLOR is set.
    #[arg(long, value_name = "WHEN", value_enum, default_value_t, hide_possible_values = true, global = true)]
    color: term::ColorChoice,
}

/// Where the host's configuration is.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct ConfigArgs {
    /// Configuration file; setpoint.toml in the present folder when left out, if it is there.
    #[arg(long, value_name = "FILE", env = names::ENV_CONFIG, hide_env_values = true)]
    config: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run policies: hold their metrics at their targets.
    #[command(after_help = run::EXAMPLES)]
    Run(run::Args),
    /// Check that policies are right, without running their functions.
    #[command(after_help = check::EXAMPLES)]
    Check(check::Args),
    /// Evaluate one tick of a policy and say why, without acting.
    #[command(after_help = eval::EXAMPLES)]
    Eval(eval::Args),
    /// Run specs of policies: their functions under a virtual clock, with fakes for all that is outside.
    #[command(after_help = test::EXAMPLES)]
    Test(test::Args),
    /// Run a policy against a recorded or made-up load, under a virtual clock.
    #[command(after_help = simulate::EXAMPLES)]
    Simulate(simulate::Args),
    /// Search values of a policy's control settings on a load.
    #[command(after_help = simulate::tune::EXAMPLES)]
    Tune(simulate::tune::Args),
    /// Say in words why a policy did, or did not, scale.
    #[command(after_help = explain::EXAMPLES)]
    Explain(explain::Args),
    /// Make recorded decisions again, and compare.
    #[command(after_help = replay::EXAMPLES)]
    Replay(replay::Args),
    /// Write a first policy with its spec and editor settings.
    #[command(after_help = init::EXAMPLES)]
    Init(init::Args),
    /// Write a policy from what another autoscaler is told.
    #[command(after_help = import::EXAMPLES)]
    Import(import::Args),
    /// The bundled policies, and retired ones.
    #[command(after_help = policies::EXAMPLES)]
    Policies(policies::Args),
    /// Show the policies of a running setpoint.
    #[command(after_help = status::EXAMPLES)]
    Status(status::Args),
    /// Stop a policy's decisions.
    #[command(after_help = pause::EXAMPLES)]
    Pause(pause::Args),
    /// Let a paused policy decide again.
    Resume(resume::Args),
    /// Replace a policy's min and max for a while.
    #[command(after_help = overrides::EXAMPLES)]
    Override(overrides::Args),
    /// Read policy files again now.
    #[command(after_help = reload::EXAMPLES)]
    Reload(reload::Args),
    /// Write the editor types of everything that a policy may use.
    #[command(after_help = types::EXAMPLES)]
    Types(types::Args),
    /// Run tasks for a Mesos agent, which starts this.
    #[cfg(feature = "mesos")]
    #[command(after_help = executor::EXAMPLES)]
    Executor(executor::Args),
    /// Print the completion script of a shell.
    #[command(after_help = completion::EXAMPLES)]
    Completion(completion::Args),
    /// Print or write the manual pages.
    #[command(after_help = man::EXAMPLES)]
    Man(man::Args),
}

/// Parses, does what the verb says, reports a failure; gives the exit code.
pub(crate) fn main(args: impl IntoIterator<Item = OsString>) -> u8 {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version come this way too. A reader that has gone away is no error.
            error.print().ok();
            return if error.use_stderr() { Exit::Usage.code() } else { Exit::Ok.code() };
        }
    };
    match dispatch(&cli) {
        Ok(code) => code,
        Err(error) => {
            term::eprint(&error.report(cli.globals.color.stderr()));
            error.exit.code()
        }
    }
}

fn dispatch(cli: &Cli) -> Result<u8, CliError> {
    let Cli { globals, verb } = cli;
    let screen = Screen::new();
    // A run starts its log itself: the configuration file may have a filter for it.
    if !matches!(verb, Verb::Run(_)) {
        log::start(globals, None, &screen)?;
    }
    let exit = match verb {
        Verb::Init(args) => init::run(args)?,
        Verb::Import(args) => import::run(args)?,
        Verb::Types(args) => types::run(args)?,
        Verb::Completion(args) => completion::run(args)?,
        Verb::Man(args) => man::run(args)?,
        verb => return wait(async_verb(verb, globals, &screen)),
    };
    Ok(exit.code())
}

async fn async_verb(verb: &Verb, globals: &Globals, screen: &Screen) -> Result<u8, CliError> {
    let exit = match verb {
        Verb::Run(args) => return run::run(args, globals, screen).await,
        Verb::Check(args) => check::run(args, globals).await?,
        Verb::Eval(args) => eval::run(args, globals).await?,
        Verb::Test(args) => test::run(args, globals).await?,
        Verb::Simulate(args) => simulate::run(args).await?,
        Verb::Tune(args) => simulate::tune::run(args).await?,
        Verb::Explain(args) => explain::run(args).await?,
        Verb::Replay(args) => replay::run(args).await?,
        Verb::Policies(args) => policies::run(args, globals).await?,
        Verb::Status(args) => status::run(args, globals).await?,
        Verb::Pause(args) => pause::run(args).await?,
        Verb::Resume(args) => resume::run(args).await?,
        Verb::Override(args) => overrides::run(args).await?,
        Verb::Reload(args) => reload::run(args).await?,
        #[cfg(feature = "mesos")]
        Verb::Executor(args) => executor::run(args).await?,
        Verb::Init(_) | Verb::Import(_) | Verb::Types(_) | Verb::Completion(_) | Verb::Man(_) => Exit::Ok,
    };
    Ok(exit.code())
}

fn wait(verb: impl Future<Output = Result<u8, CliError>>) -> Result<u8, CliError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| CliError::io("cannot start the runtime", error))?;
    let ended = runtime.block_on(verb);
    // A worker that hangs must not keep the process: all that matters has been awaited.
    runtime.shutdown_background();
    ended
}

/// JSON as people and programs can both read it.
fn json_text(value: &Value) -> String {
    format!("{value:#}\n")
}

/// The answer to a command: the API's own with `--json`, else one line.
fn answer(reply: &Value, json: bool, said: &str) -> Result<Exit, CliError> {
    term::print(&if json { json_text(reply) } else { format!("{said}\n") })?;
    Ok(Exit::Ok)
}
