//! `setpoint test`: specs of policies, `NAME_test.lua` beside `NAME.lua`.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use setpoint::script::spec::{SPEC_SUFFIX, SpecReport, SpecRequest};
use setpoint::script::{ScriptError, ScriptErrorKind};
use setpoint::sim::SpecStage;

use super::exit::{CliError, Exit};
use super::host::{self, BACKENDS};
use super::names::POLICY_SUFFIX;
use super::{ConfigArgs, Globals, json_text, term};

mod junit;
mod show;

/// How deep folders are searched.
const DEPTH: usize = 32;

/// What `test` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Specs, policies (their specs are meant) or folders, which are searched with what is below them.
    #[arg(value_name = "PATH", default_value = ".")]
    paths: Vec<PathBuf>,

    /// Run only cases whose full name contains this.
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,

    /// Files that run at the same time; as many as there are cores when left out.
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    jobs: Option<u16>,

    /// Where `for_all` begins to draw, unless it says so itself.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(0..=2_147_483_647))]
    seed: u64,

    /// How long one case may take.
    #[arg(long, value_name = "DURATION", default_value = "1m", value_parser = duration)]
    timeout: Duration,

    /// Write golden timelines as they come now.
    #[arg(long)]
    update: bool,

    /// Tell which lines of the policies no case ran.
    #[arg(long)]
    coverage: bool,

    /// Print the outcome as JSON.
    #[arg(long)]
    json: bool,

    /// Write the outcome in JUnit's format, too.
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,

    #[command(flatten)]
    config: ConfigArgs,
}

pub(crate) const EXAMPLES: &str = "\
A spec is `NAME_test.lua` beside `NAME.lua`. It loads the policy with fakes for the modules that reach outside, lets a \
virtual clock tick, and says what is expected of the decisions, which are made by the code that makes them in earnest:

  describe(\"queue\", function()
    it(\"launches what the backlog is worth\", function()
      local policy = load_policy({ fakes = { redis = { connect = function() return … end } } })
      expect(policy:tick({ metric = 12 })).to_launch(3)
      expect(policy:timeline()).to_match_golden(\"a backlog\")
    end)
  end)

Exit code 1 when a case fails, 78 when a spec does not load.

Examples:
  setpoint test
  setpoint test policies/queue_test.lua --filter backlog
  setpoint test policies --coverage --junit report.xml
  setpoint test policies --update";

/// A spec and what came of it.
struct Ran {
    path: PathBuf,
    result: Result<SpecReport, Vec<ScriptError>>,
}

/// Runs and prints.
pub(crate) async fn run(args: &Args, globals: &Globals) -> Result<Exit, CliError> {
    let specs = find(&args.paths)?;
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let jobs = args.jobs.map_or(cores, usize::from).min(specs.len());
    let host = host::for_specs(&args.config, jobs)?;
    let running: Vec<_> = specs
        .into_iter()
        .map(|path| {
            let host = host.clone();
            let request = SpecRequest {
                path: path.clone(),
                backends: BACKENDS.iter().map(|name| (*name).to_owned()).collect(),
                filter: args.filter.clone(),
                seed: args.seed,
                update: args.update,
                coverage: args.coverage,
                limit: args.timeout,
            };
            (path, tokio::spawn(async move { host.run_spec(request, Arc::new(SpecStage)).await }))
        })
        .collect();
    let mut all = Vec::with_capacity(running.len());
    for (path, spec) in running {
        let result = spec.await.map_err(|error| {
            CliError::new(Exit::Bug, format!("`{}` did not come to its end", path.display())).because(error)
        })?;
        all.push(Ran { path, result });
    }
    let written = write_golden(&all)?;
    if let Some(path) = &args.junit {
        std::fs::write(path, junit::xml(&all))
            .map_err(|error| CliError::io(format!("cannot write `{}`", path.display()), error))?;
    }
    let paint = globals.color.stdout();
    term::print(&if args.json { json_text(&show::json(&all)) } else { written + &show::text(&all, paint) })?;
    Ok(exit(&all))
}

/// What the whole comes to.
fn exit(all: &[Ran]) -> Exit {
    let mut exit = Exit::Ok;
    for ran in all {
        match &ran.result {
            // A file that cannot be read is no bad spec.
            Err(errors) if errors.iter().all(|error| error.kind == ScriptErrorKind::Io) => return Exit::Io,
            Err(_) => return Exit::Config,
            Ok(report) if show::failed(report) != 0 => exit = Exit::Findings,
            Ok(_) => {}
        }
    }
    exit
}

fn write_golden(all: &[Ran]) -> Result<String, CliError> {
    let mut said = String::new();
    for (path, text) in all.iter().filter_map(|ran| ran.result.as_ref().ok()?.golden.as_ref()) {
        std::fs::write(path, text)
            .map_err(|error| CliError::io(format!("cannot write `{}`", path.display()), error))?;
        said += &format!("wrote {}\n", path.display());
    }
    Ok(said)
}

/// The specs that the paths stand for, each once, in the order of their names within a folder.
fn find(paths: &[PathBuf]) -> Result<Vec<PathBuf>, CliError> {
    let (mut specs, mut seen) = (Vec::new(), BTreeSet::new());
    let mut add = |path: PathBuf| {
        if seen.insert(path.clone()) {
            specs.push(path);
        }
    };
    for path in paths {
        let meta = std::fs::metadata(path)
            .map_err(|error| CliError::io(format!("cannot read `{}`", path.display()), error))?;
        if meta.is_dir() {
            let mut found = Vec::new();
            // Paths in the present folder are told without it.
            walk(path, DEPTH, &mut found)?;
            for path in &mut found {
                if let Ok(plain) = path.strip_prefix(".") {
                    *path = plain.to_owned();
                }
            }
            if found.is_empty() {
                let text = format!("there is no spec in the folder `{}`", path.display());
                return Err(CliError::new(Exit::Config, text).hint(format!(
                    "a spec is a file that ends in `{SPEC_SUFFIX}`; `setpoint init` writes a first one"
                )));
            }
            found.sort();
            found.into_iter().for_each(&mut add);
        } else if is_spec(path) {
            add(path.clone());
        } else {
            add(of_policy(path)?);
        }
    }
    Ok(specs)
}

fn is_spec(path: &Path) -> bool {
    let name = path.file_name().and_then(OsStr::to_str).unwrap_or_default();
    name.ends_with(SPEC_SUFFIX) && !name.starts_with('.')
}

/// The spec beside a policy.
fn of_policy(path: &Path) -> Result<PathBuf, CliError> {
    let name = path.file_name().and_then(OsStr::to_str).unwrap_or_default();
    let stem = name.strip_suffix(POLICY_SUFFIX).filter(|stem| !stem.is_empty());
    let spec = stem.map(|stem| path.with_file_name(format!("{stem}{SPEC_SUFFIX}")));
    match spec {
        Some(spec) if spec.is_file() => Ok(spec),
        Some(spec) => Err(CliError::new(Exit::Config, format!("`{}` has no spec", path.display()))
            .hint(format!("it would be `{}`", spec.display()))),
        None => Err(CliError::new(Exit::Config, format!("`{}` is no spec", path.display()))
            .hint(format!("a spec is a file that ends in `{SPEC_SUFFIX}`"))),
    }
}

fn walk(folder: &Path, depth: usize, found: &mut Vec<PathBuf>) -> Result<(), CliError> {
    let failed = |error| CliError::io(format!("cannot read the folder `{}`", folder.display()), error);
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let (path, kind) = (entry.path(), entry.file_type().map_err(failed)?);
        let hidden = entry.file_name().to_string_lossy().starts_with('.');
        // Links to folders could lead in circles.
        if kind.is_dir() && !hidden && 0 < depth {
            walk(&path, depth - 1, found)?;
        } else if is_spec(&path) && path.is_file() {
            found.push(path);
        }
    }
    Ok(())
}

fn duration(text: &str) -> Result<Duration, String> {
    let duration = setpoint::config::units::parse_duration(text).map_err(|error| error.to_string())?;
    if duration.is_zero() { Err("expected more than nothing".to_owned()) } else { Ok(duration) }
}
