//! `setpoint run`: hold every policy's metric at its target until told to stop.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use setpoint::config::{DEFAULT_LISTEN, ParamKey, Settings, TokenSource};
use setpoint::runtime::Signal;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use super::engine::{self, Plan};
use super::exit::CliError;
use super::host::{self, Set};
use super::live::Screen;
use super::{ConfigArgs, Globals, log, sources, units};

/// What `run` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Policy files, folders of them, or names of bundled policies (a file of that name comes first).
    #[arg(value_name = "PATH", required = true)]
    paths: Vec<PathBuf>,

    /// Address of the page and the API, 127.0.0.1:8080 by default [env: SETPOINT_LISTEN]. Beyond loopback a token is
    /// needed.
    #[arg(long, value_name = "ADDR", value_parser = address, conflicts_with = "no_listen")]
    listen: Option<SocketAddr>,

    /// Serve no page and no API.
    #[arg(long)]
    no_listen: bool,

    /// Token that every request must carry [env: SETPOINT_TOKEN].
    #[arg(long, value_name = "TOKEN")]
    token: Option<String>,

    /// Keep state in this folder: tasks go on running after the end, and the next run adopts them
    /// [env: SETPOINT_STATE_DIR].
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,

    #[command(flatten)]
    config: ConfigArgs,

    /// Set a parameter of the policies that declare it, or of one with NAME.KEY=VALUE.
    #[arg(long, value_name = "KEY=VALUE", value_parser = ParamKey::parse_assignment)]
    set: Vec<Set>,

    /// End after this long, with exit code 0.
    #[arg(long = "for", value_name = "DURATION", value_parser = units::parse_duration)]
    for_: Option<Duration>,

    /// Decide and say so, but carry nothing out.
    #[arg(long)]
    dry_run: bool,

    /// Stop all tasks at the end, also with --state-dir.
    #[arg(long)]
    stop_tasks: bool,

    /// End as soon as one policy has ended, not when all have.
    #[arg(long)]
    exit_on_stop: bool,
}

pub(crate) const EXAMPLES: &str = "\
A folder is watched: policies in it start when they appear, and files that end in _test.lua are specs, not \
policies. Saved files take effect at the next tick; a file that is wrong never replaces the version that runs. \
Without --state-dir nothing is kept, and the tasks are stopped at the end.

Signals: HUP reads all files again; TERM or INT stops in order, twice at once.

Examples:
  setpoint run thermostat
  setpoint run queue.lua --set max=10 --dry-run
  setpoint run policies/ --state-dir /var/lib/setpoint --listen 127.0.0.1:9090
  setpoint run policies/ --set queue.max=10 --for 30s --exit-on-stop";

/// Runs; the exit code is 0, or that of the first policy which ended with another one.
pub(crate) async fn run(args: &Args, globals: &Globals, screen: &Screen) -> Result<u8, CliError> {
    let config = host::configure(layer(args))?;
    log::start(globals, config.log.as_deref(), screen)?;
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    let signals = signals().map_err(|error| CliError::io("cannot listen for signals", error))?;
    let sources = sources::resolve(&args.paths)?;
    let plan = Plan { sources, config, listen: !args.no_listen, run_for: args.for_ };
    engine::run(plan, signals, screen, globals.color.stderr()).await
}

/// The flags as a layer of settings. A flag without a value can only say yes.
fn layer(args: &Args) -> Settings {
    let yes = |name, given: bool| host::flag(name, given.then_some(true));
    Settings {
        listen: host::flag("--listen", args.listen),
        token: host::flag("--token", args.token.clone().map(TokenSource::Literal)),
        state_dir: host::flag("--state-dir", args.state_dir.clone()),
        dry_run: yes("--dry-run", args.dry_run),
        stop_tasks: yes("--stop-tasks", args.stop_tasks),
        exit_on_stop: yes("--exit-on-stop", args.exit_on_stop),
        ..host::flags(&args.config, &args.set)
    }
}

fn address(text: &str) -> Result<SocketAddr, String> {
    let numeric = text.strip_prefix("localhost:").map(|port| format!("127.0.0.1:{port}"));
    numeric
        .as_deref()
        .unwrap_or(text)
        .parse()
        .map_err(|_| format!("expected an address and a port such as `{DEFAULT_LISTEN}` or `[::1]:8080`, got `{text}`"))
}

/// From now on signals do not end the process but are told to the run.
fn signals() -> std::io::Result<mpsc::Receiver<Signal>> {
    let mut hang_up = signal(SignalKind::hangup())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let (sender, receiver) = mpsc::channel(4);
    tokio::spawn(async move {
        let mut draining = false;
        loop {
            let told = tokio::select! {
                Some(()) = hang_up.recv() => Signal::Reload,
                Some(()) = terminate.recv() => stop(&mut draining),
                Some(()) = interrupt.recv() => stop(&mut draining),
                else => return,
            };
            if sender.send(told).await.is_err() {
                return;
            }
        }
    });
    Ok(receiver)
}

const fn stop(draining: &mut bool) -> Signal {
    if std::mem::replace(draining, true) { Signal::Now } else { Signal::Drain }
}
