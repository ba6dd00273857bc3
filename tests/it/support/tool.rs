//! Finding the programs and recordings that a test needs.

use std::env;
use std::path::PathBuf;

/// The path of a program: from `SETPOINT_TEST_TOOLS`, where `tests/run` puts what is not installed, then from `PATH`.
///
/// When it is in neither, a test under `CI` fails, and any other says so and is skipped:
/// `let Some(redis) = tool("redis-server") else { return };`
pub(crate) fn tool(program: &str) -> Option<PathBuf> {
    let folders = ["SETPOINT_TEST_TOOLS", "PATH"].into_iter().filter_map(env::var_os);
    let found = folders
        .flat_map(|folders| env::split_paths(&folders).collect::<Vec<_>>())
        .map(|folder| folder.join(program))
        .find(|path| path.is_file());
    if found.is_none() {
        missing(&format!("`{program}`"));
    }
    found
}

/// Something that a test needs is not there: under `CI` that fails the test, elsewhere it is said.
pub(crate) fn missing(what: &str) {
    let on_ci = env::var_os("CI").is_some_and(|value| value == "true" || value == "1");
    assert!(!on_ci, "{what} is missing; tests/run sees to it");
    eprintln!("skipped: {what} is missing; tests/run sees to it");
}

/// A recording of a real system, where `SETPOINT_TEST_DATA` names a folder that has it.
pub(crate) fn data(file: &str) -> Option<PathBuf> {
    let path = PathBuf::from(env::var_os("SETPOINT_TEST_DATA")?).join(file);
    path.is_file().then_some(path)
}
