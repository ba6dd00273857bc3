//! The `setpoint` command: parse, do what the verb says, report, exit.
//!
//! A user of the library like any other program: it sees nothing that an embedder does not see. What it prints
//! about a failure is the chain of errors, then a hint where there is something to do. A panic is a bug of ours and
//! is reported as one.

use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind};
use std::process::ExitCode;

mod cli;

use cli::exit::Exit;

fn main() -> ExitCode {
    std::panic::set_hook(Box::new(report_bug));
    match catch_unwind(AssertUnwindSafe(|| cli::main(std::env::args_os()))) {
        Ok(code) => ExitCode::from(code),
        // The hook has said all there is to say.
        Err(_) => ExitCode::from(Exit::Bug.code()),
    }
}

fn report_bug(panic: &PanicHookInfo<'_>) {
    let payload = panic.payload();
    let text = payload.downcast_ref::<&str>().copied().or_else(|| payload.downcast_ref().map(String::as_str));
    let what = text.unwrap_or("a panic without a message");
    let place = panic.location().map_or_else(|| "an unknown place".to_owned(), ToString::to_string);
    cli::term::eprint(&format!(
        "error: this is a bug in setpoint {}: {what}\n  at {place}\nhint: please report it with these lines and what \
         led to them\n",
        env!("CARGO_PKG_VERSION"),
    ));
}
