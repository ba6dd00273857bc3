//! Logs of the command: text on a terminal, a JSON object a line otherwise; always on standard error.

use std::io::IsTerminal as _;

use setpoint::telemetry::{self, TelemetryError};

use super::Globals;
use super::exit::{CliError, Exit};
use super::live::Screen;
use super::names;

/// Starts logging for the whole process; `filter` stands in for `--log`. Lines go through the screen, so that they and
/// the live block do not garble each other.
pub(crate) fn start(globals: &Globals, filter: Option<&str>, screen: &Screen) -> Result<(), CliError> {
    let filter = globals.log.as_deref().or(filter);
    let verbosity = i8::try_from(i16::from(globals.verbose) - i16::from(globals.quiet)).unwrap_or(i8::MAX);
    let json = !std::io::stderr().is_terminal();
    let screen = screen.clone();
    telemetry::init_to(move || screen.clone(), filter, verbosity, json, globals.color.stderr().0).map_err(|error| {
        let exit = if matches!(error, TelemetryError::Twice) { Exit::Bug } else { Exit::Usage };
        let told = CliError::new(exit, error.to_string());
        let told = match std::error::Error::source(&error) {
            Some(cause) => told.because(cause.to_string()),
            None => told,
        };
        told.hint(format!("--log, {} and `log` of setpoint.toml take a level, or levels by module", names::ENV_LOG))
    })
}
