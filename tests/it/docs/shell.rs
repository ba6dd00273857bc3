//! One shell for a page: its blocks run in it one after the other, as a reader types them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::support::Scratch;

/// Longest that a block may take, with all that it waits for.
const LIMIT: Duration = Duration::from_secs(240);

/// A bash that ends at the first command that fails where none was to.
pub(super) struct Shell<'a> {
    scratch: &'a Scratch,
    child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
    blocks: u32,
}

impl<'a> Shell<'a> {
    /// Starts it in the scratch folder's `page`, with this `setpoint` and the tests' tools on the PATH.
    pub(super) fn start(scratch: &'a Scratch, setpoint: &Path, environment: &[(&str, String)]) -> Self {
        let (page, bin) = (scratch.path("page"), scratch.path("bin"));
        fs::create_dir_all(&page).unwrap();
        fs::create_dir_all(&bin).unwrap();
        fs::create_dir_all(scratch.path("blocks")).unwrap();
        std::os::unix::fs::symlink(setpoint, bin.join("setpoint")).unwrap();
        let folders = ["SETPOINT_TEST_TOOLS", "PATH"].into_iter().filter_map(std::env::var_os);
        let folders = folders.flat_map(|folders| std::env::split_paths(&folders).collect::<Vec<_>>());
        let path = std::env::join_paths([bin].into_iter().chain(folders)).unwrap();
        let mut command = Command::new("bash");
        command.args(["--noprofile", "--norc", "-e"]).current_dir(page).kill_on_drop(true);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("SETPOINT_") {
                command.env_remove(name);
            }
        }
        command.env("TEST_SCRATCH", scratch.mark()).env("PATH", path).env("NO_COLOR", "1").env("TZ", "UTC");
        command.envs(environment.iter().map(|(name, value)| (name, value)));
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let input = child.stdin.take().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { scratch, child, input, output, blocks: 0 }
    }

    /// Runs a block; gives its last command's exit code, or that of the first which failed, and where all that it
    /// prints goes to. Once a command has failed where none was to (`any_code` is false) the shell is gone.
    pub(super) async fn run(&mut self, text: &str, any_code: bool) -> (i32, PathBuf) {
        self.blocks += 1;
        let block = self.scratch.write(&format!("blocks/{}.sh", self.blocks), text);
        let printed = block.with_extension("out");
        let (before, after) = if any_code { ("set +e; ", "; code=$?; set -e") } else { ("", "; code=$?") };
        let line = format!(
            "{before}. '{}' >'{}' 2>&1 </dev/null{after}; echo \"code $code\"\n",
            block.display(),
            printed.display()
        );
        self.input.write_all(line.as_bytes()).await.unwrap();
        let told = tokio::time::timeout(LIMIT, self.output.next_line()).await;
        let told = told.unwrap_or_else(|_| panic!("a block took longer than {LIMIT:?}:\n{text}")).unwrap();
        let code = match told.as_deref().and_then(|line| line.strip_prefix("code ")) {
            Some(code) => code.parse().unwrap(),
            None => self.child.wait().await.unwrap().code().unwrap_or(-1),
        };
        (code, printed)
    }
}
