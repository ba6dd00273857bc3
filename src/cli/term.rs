//! Standard output and error: whether they are terminals, how wide, and in colour.
//!
//! Nothing else in the crate prints. A reader that goes away (`setpoint status | head`) is no error.

use std::io::{self, IsTerminal, Write};

use super::exit::CliError;

/// When to colour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum ColorChoice {
    /// On a terminal, unless NO_COLOR is set or TERM is `dumb`.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

impl ColorChoice {
    /// Whether to colour a stream.
    pub(crate) fn on(self, terminal: bool) -> bool {
        match self {
            Self::Always => true,
            Self::Never => false,
            Self::Auto => {
                let is = |name: &str, plain: fn(&std::ffi::OsStr) -> bool| {
                    std::env::var_os(name).is_some_and(|value| plain(&value))
                };
                terminal && !is("NO_COLOR", |value| !value.is_empty()) && !is("TERM", |value| value == "dumb")
            }
        }
    }

    /// Colours for standard output.
    pub(crate) fn stdout(self) -> Paint {
        Paint(self.on(io::stdout().is_terminal()))
    }

    /// Colours for standard error.
    pub(crate) fn stderr(self) -> Paint {
        Paint(self.on(io::stderr().is_terminal()))
    }
}

/// Puts text into colours, or leaves it alone.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Paint(pub(crate) bool);

impl Paint {
    fn wrap(self, code: &str, text: &str) -> String {
        if self.0 && !text.is_empty() { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    /// Headings and names.
    pub(crate) fn bold(self, text: &str) -> String {
        self.wrap("1", text)
    }

    /// What matters less.
    pub(crate) fn dim(self, text: &str) -> String {
        self.wrap("2", text)
    }

    /// Errors.
    pub(crate) fn red(self, text: &str) -> String {
        self.wrap("31", text)
    }

    /// Things to look at.
    pub(crate) fn yellow(self, text: &str) -> String {
        self.wrap("33", text)
    }
}

/// Writes to standard output.
pub(crate) fn print(text: &str) -> Result<(), CliError> {
    write_all(&mut io::stdout().lock(), text).map_err(|error| CliError::io("cannot write to standard output", error))
}

/// Writes to standard error. There is nobody to tell when that fails.
pub(crate) fn eprint(text: &str) {
    write_all(&mut io::stderr().lock(), text).ok();
}

/// Writes a line over the one that the cursor is in, and leaves it there; nothing takes the line away.
pub(crate) fn status(line: &str) {
    eprint(&format!("\r\x1b[K{line}"));
}

fn write_all(out: &mut impl Write, text: &str) -> io::Result<()> {
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

/// Columns and rows of the terminal behind standard output or error.
pub(crate) fn size() -> Option<(usize, usize)> {
    let size = rustix::termios::tcgetwinsize(io::stderr())
        .or_else(|_| rustix::termios::tcgetwinsize(io::stdout()))
        .ok()
        .filter(|size| size.ws_col > 0 && size.ws_row > 0)?;
    Some((usize::from(size.ws_col), usize::from(size.ws_row)))
}

/// Cuts plain text to `width` characters; the last one says that something is missing.
pub(crate) fn fit(text: &str, width: usize) -> String {
    // Control characters of a script's message must not steer the terminal.
    let clean = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    let mut cut: String = clean.take(width + 1).collect();
    if cut.chars().count() > width {
        cut = cut.chars().take(width.saturating_sub(1)).collect();
        if width > 0 {
            cut.push('…');
        }
    }
    cut
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_cut_to_the_width() {
        assert_eq!(fit("held: too cold", 20), "held: too cold");
        assert_eq!(fit("held: too cold", 14), "held: too cold");
        assert_eq!(fit("held: too cold", 6), "held:…");
        assert_eq!(fit("a\x1b[2Jb\nc", 20), "a [2Jb c");
        assert_eq!(fit("abc", 0), "");
    }
}
