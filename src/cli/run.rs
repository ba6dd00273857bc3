//! `setpoint run`: hold every policy's metric at its target until told to stop.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use setpoint::http::HttpConfig;
use setpoint::runtime::Signal;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use super::engine::{self, Plan};
use super::exit::CliError;
use super::host::Settings;
use super::live::Screen;
use super::params::{self, Params, Set};
use super::{ConfigArgs, Globals, names, sources, units};

/// What `run` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Policy files, folders of them, or names of bundled policies (a file of that name comes first).
    #[arg(value_name = "PATH", required = true)]
    paths: Vec<PathBuf>,

    /// Address of the page and the API. Beyond loopback a token is needed.
    #[arg(long, value_name = "ADDR", env = names::ENV_LISTEN, hide_env_values = true, default_value = names::DEFAULT_LISTEN,
          value_parser = address, conflicts_with = "no_listen")]
    listen: SocketAddr,

    /// Serve no page and no API.
    #[arg(long)]
    no_listen: bool,

    /// Name or address, without a port, under which others reach it; loopback and --listen's own need none.
    #[arg(long, value_name = "NAME", conflicts_with = "no_listen")]
    allow_host: Vec<String>,

    /// Token that every request must carry.
    #[arg(long, value_name = "TOKEN", env = names::ENV_TOKEN, hide_env_values = true)]
    token: Option<String>,

    /// Keep state in this folder: tasks go on running after the end, and the next run adopts them.
    #[arg(long, value_name = "DIR", env = names::ENV_STATE_DIR, hide_env_values = true)]
    state_dir: Option<PathBuf>,

    #[command(flatten)]
    config: ConfigArgs,

    /// Set a parameter of the policies that declare it, or of one with NAME.KEY=VALUE.
    #[arg(long, value_name = "KEY=VALUE", value_parser = params::parse)]
    set: Vec<Set>,

    /// End after this long, with exit code 0.
    #[arg(long = "for", value_name = "DURATION", value_parser = units::duration)]
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
    let signals = signals().map_err(|error| CliError::io("cannot listen for signals", error))?;
    let plan = Plan {
        sources: sources::resolve(&args.paths)?,
        params: Params::new(&args.set),
        settings: Settings::read(&args.config)?,
        listen: (!args.no_listen).then_some(args.listen),
        http: http_config(args),
        state_dir: args.state_dir.clone(),
        run_for: args.for_,
        dry_run: args.dry_run,
        stop_tasks: args.stop_tasks,
        exit_on_stop: args.exit_on_stop,
    };
    engine::run(plan, signals, screen, globals.color.stderr()).await
}

fn http_config(args: &Args) -> HttpConfig {
    let mut hosts = args.allow_host.clone();
    hosts.push(args.listen.ip().to_string());
    HttpConfig { token: args.token.clone(), hosts }
}

fn address(text: &str) -> Result<SocketAddr, String> {
    let numeric = text.strip_prefix("localhost:").map(|port| format!("127.0.0.1:{port}"));
    numeric.as_deref().unwrap_or(text).parse().map_err(|_| {
        format!("expected an address and a port such as `{}` or `[::1]:8080`, got `{text}`", names::DEFAULT_LISTEN)
    })
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
