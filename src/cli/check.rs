//! `setpoint check`: whether policies would load, without running any of their functions.

use std::path::PathBuf;

use serde::Serialize;
use setpoint::http::dto::ScriptErrorJson;
use setpoint::script::ScriptError;

use super::exit::{CliError, Exit};
use super::host;
use super::sources::{self, PolicyFile};
use super::term::{self, Paint};
use super::{Globals, json_text};

/// What `check` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Policy files, folders of them, or names of bundled policies.
    #[arg(value_name = "PATH", required = true)]
    paths: Vec<PathBuf>,

    /// Print one JSON object with every file's errors and warnings.
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    config: super::ConfigArgs,
}

pub(crate) const EXAMPLES: &str = "\
Every file is compiled and run once with all I/O stubbed, and the table that it returns is checked. Nothing is \
launched, read or sent. Ends with 0 when all is well and with 78 when a policy is wrong.

Examples:
  setpoint check queue.lua
  setpoint check policies/ --json";

/// What came of one file.
struct Checked {
    file: PolicyFile,
    sha256: Option<String>,
    warnings: Vec<String>,
    errors: Vec<ScriptError>,
}

/// One file as JSON.
#[derive(Serialize)]
struct CheckedJson<'a> {
    policy: &'a str,
    path: String,
    ok: bool,
    sha256: Option<&'a str>,
    warnings: &'a [String],
    errors: Vec<ScriptErrorJson<'a>>,
}

/// Checks every file, and says all that is wrong, not only the first of it.
pub(crate) async fn run(args: &Args, globals: &Globals) -> Result<Exit, CliError> {
    let files = sources::files(&sources::resolve(&args.paths)?)?;
    let loader = host::Loader::new(&args.config, &[])?;
    let mut checked = Vec::with_capacity(files.len());
    for file in files {
        checked.push(match loader.load(&file).await {
            Ok(loaded) => Checked { file, sha256: Some(loaded.sha256), warnings: loaded.warnings, errors: Vec::new() },
            Err(errors) => Checked { file, sha256: None, warnings: Vec::new(), errors },
        });
    }
    if args.json {
        let files: Vec<_> = checked.iter().map(Checked::json).collect();
        term::print(&json_text(&serde_json::json!({ "files": files })))?;
    } else {
        let paint = globals.color.stdout();
        term::print(&checked.iter().map(|checked| checked.text(paint)).collect::<String>())?;
    }
    let wrong = checked.iter().any(|checked| !checked.errors.is_empty());
    Ok(if wrong { Exit::Config } else { Exit::Ok })
}

impl Checked {
    fn json(&self) -> CheckedJson<'_> {
        CheckedJson {
            policy: &self.file.name,
            path: self.file.path.display().to_string(),
            ok: self.errors.is_empty(),
            sha256: self.sha256.as_deref(),
            warnings: &self.warnings,
            errors: self.errors.iter().map(Into::into).collect(),
        }
    }

    fn text(&self, paint: Paint) -> String {
        let path = self.file.path.display();
        let mut text = String::new();
        for error in &self.errors {
            text.push_str(&format!("{} {}\n", paint.red("error:"), error.report()));
        }
        for warning in &self.warnings {
            text.push_str(&format!("{} {path}: {warning}\n", paint.yellow("warning:")));
        }
        if self.errors.is_empty() {
            text.push_str(&format!("{path}: ok\n"));
        }
        text
    }
}
