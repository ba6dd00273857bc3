//! Bad input through the real command: what it says, with which exit code, and what it does instead.
//!
//! Everything that is said is in a snapshot, because an operator reads it: where, what was expected, what came, what
//! happens now. Many cases share a run.

mod files;
mod hooks;
mod host;

use setpoint_text::settled;

/// Making texts the same on every run.
mod setpoint_text {
    use crate::support::{Finished, Scratch};

    /// A text without the scratch folder's name.
    pub(super) fn settled(scratch: &Scratch, text: &str) -> String {
        text.replace(scratch.mark(), "SCRATCH")
    }

    impl Finished {
        /// Exit code, standard output and standard error as one text.
        pub(super) fn told(&self, scratch: &Scratch) -> String {
            let code = self.code.map_or_else(|| "by a signal".to_owned(), |code| code.to_string());
            let mut text = format!("exit {code}\n");
            for (name, part) in [("stdout", &self.stdout), ("stderr", &self.stderr)] {
                if !part.is_empty() {
                    text.push_str(&format!("--- {name}\n{}", settled(scratch, part)));
                }
            }
            text
        }
    }
}
