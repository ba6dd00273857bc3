//! Logs of the command: text on a terminal, a JSON object a line otherwise; always on standard error.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

use super::Globals;
use super::exit::{CliError, Exit};
use super::live::Screen;
use super::names;

/// Starts logging for the whole process. Lines go through the screen, so that they and the live block do not garble
/// each other.
pub(crate) fn start(globals: &Globals, screen: &Screen) -> Result<(), CliError> {
    let filter = filter(globals)?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(screen.clone());
    let started = if std::io::stderr().is_terminal() {
        let colour = globals.color.stderr().0;
        builder.with_ansi(colour).with_target(false).compact().try_init()
    } else {
        builder.json().flatten_event(true).with_current_span(false).try_init()
    };
    started.map_err(|error| CliError::new(Exit::Bug, "cannot start logging").because(error))
}

/// `--log` or its variable as it is; otherwise our own messages by -v and -q, and of other crates the warnings.
fn filter(globals: &Globals) -> Result<EnvFilter, CliError> {
    if let Some(text) = &globals.log {
        return EnvFilter::builder().parse(text).map_err(|error| {
            CliError::new(Exit::Usage, format!("--log: expected a filter, got `{text}`"))
                .because(error)
                .hint(format!("a level, or levels by module: --log info,setpoint::script=debug ({})", names::ENV_LOG))
        });
    }
    let level = match i16::from(globals.verbose) - i16::from(globals.quiet) {
        ..=-2 => "error",
        -1 => "warn",
        0 => "info",
        1 => "debug",
        2.. => "trace",
    };
    let others = if level == "error" { "error" } else { "warn" };
    Ok(EnvFilter::new(format!("{others},setpoint={level}")))
}
