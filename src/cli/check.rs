//! `setpoint check`: whether policies would load, without running any of their functions.

use std::path::{Path, PathBuf};

use serde::Serialize;
use setpoint::config::ParamKey;
use setpoint::http::dto::ScriptErrorJson;
use setpoint::script::{Content, LoadedFile, Param, ScriptError, shadow_path};

use super::exit::{CliError, Exit};
use super::host::{self, Set};
use super::sources::{self, PolicyFile};
use super::term::{self, Paint};
use super::{Globals, json_text};

/// What `check` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Policy files, folders of them, or names of bundled policies.
    #[arg(value_name = "PATH", required = true)]
    paths: Vec<PathBuf>,

    /// Set a parameter of the policies that declare it, or of one with NAME.KEY=VALUE.
    #[arg(long, value_name = "KEY=VALUE", value_parser = ParamKey::parse_assignment)]
    set: Vec<Set>,

    /// Print one JSON object with every file's errors and warnings.
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    config: super::ConfigArgs,
}

pub(crate) const EXAMPLES: &str = "\
Every file is compiled and run once with all I/O stubbed, and the table that it returns is checked. Nothing is \
launched, read or sent. A policy's `shadow` is checked with it. Ends with 0 when all is well and with 78 when a policy is wrong.

Examples:
  setpoint check queue.lua
  setpoint check queue.lua --set max=10
  setpoint check policies/ --json";

/// What came of one file.
struct Checked {
    file: PolicyFile,
    /// The shadow that it names, and where that is.
    shadow: Option<(String, PathBuf)>,
    sha256: Option<String>,
    warnings: Vec<String>,
    params: Vec<Param>,
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
    let loader = host::Loader::new(&args.config, &args.set)?;
    let mut checked = Vec::with_capacity(files.len());
    for file in files {
        checked.push(match loader.load(&file).await {
            Ok(loaded) => of_loaded(&loader, file, loaded).await,
            Err(errors) => {
                Checked { file, shadow: None, sha256: None, warnings: Vec::new(), params: Vec::new(), errors }
            }
        });
    }
    warn_of_shadows(&mut checked);
    let wrong = checked.iter().any(|checked| !checked.errors.is_empty());
    if !wrong {
        loader.check_sets(checked.iter().map(|checked| (checked.file.name.as_str(), checked.params.as_slice())))?;
    }
    if args.json {
        let files: Vec<_> = checked.iter().map(Checked::json).collect();
        term::print(&json_text(&serde_json::json!({ "files": files })))?;
    } else {
        let paint = globals.color.stdout();
        term::print(&checked.iter().map(|checked| checked.text(paint)).collect::<String>())?;
    }
    Ok(if wrong { Exit::Config } else { Exit::Ok })
}

/// Shadows that stand among the files themselves would be policies of their own where these are run.
fn warn_of_shadows(checked: &mut [Checked]) {
    let real = |path: &Path| path.canonicalize().ok();
    let files: Vec<_> = checked.iter().filter_map(|checked| real(&checked.file.path)).collect();
    for checked in checked {
        let Some((named, path)) = &checked.shadow else { continue };
        if real(path).is_some_and(|path| files.contains(&path)) {
            checked.warnings.push(format!(
                "shadow {named}: it is run as a policy of its own too where this folder is run; keep it in a folder below"
            ));
        }
    }
}

/// A file that loads, with what is wrong with its shadow, if it has one.
async fn of_loaded(loader: &host::Loader, file: PolicyFile, loaded: LoadedFile) -> Checked {
    let LoadedFile { sha256, mut warnings, params, content, .. } = loaded;
    let (mut errors, mut shadow) = (Vec::new(), None);
    if let Content::Policy(policy) = content
        && let Some(named) = &policy.spec.shadow
    {
        shadow = Some((named.clone(), shadow_path(&file.path, named)));
        match loader.load_shadow(&file, named).await {
            Ok(shadow) => warnings.extend(shadow.warnings.iter().map(|warning| format!("shadow {named}: {warning}"))),
            Err(of_shadow) => errors = of_shadow,
        }
    }
    Checked { file, shadow, sha256: Some(sha256), warnings, params, errors }
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
