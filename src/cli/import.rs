//! `setpoint import`: what other autoscalers are told, as a policy with its spec.

use std::io::Read;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use setpoint::import::{self, Backend, Imported, Options, Source};

use super::exit::{CliError, Exit};
use super::files::{self, NewFile};
use super::init::policy_name;
use super::names::{POLICY_SUFFIX, SPEC_SUFFIX};
use super::{json_text, term};

/// Most that is read of a file, in bytes: beyond what the importers take, so that they can say so.
const MOST: u64 = 16 << 20;

/// What `import` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// What the file was written for.
    #[arg(value_name = "SOURCE", value_enum)]
    source: Kind,

    /// The file; `-` is standard input.
    #[arg(value_name = "FILE")]
    file: PathBuf,

    /// Write NAME.lua and NAME_test.lua into this folder; without it, or with `-`, the policy is printed.
    #[arg(short, long, value_name = "DIR")]
    output: Option<PathBuf>,

    /// The policy's name; the input's own unless given.
    #[arg(long, value_name = "NAME", value_parser = policy_name)]
    name: Option<String>,

    /// Where its tasks run; what is nearest to the source unless given. With `none` others go on running them.
    #[arg(long, value_name = "BACKEND", value_enum)]
    backend: Option<Place>,

    /// Overwrite files that are there.
    #[arg(long)]
    force: bool,

    /// End with 1 when something could not be carried over.
    #[arg(long)]
    strict: bool,

    /// Print as JSON what was carried over, what is to be filled in and what was lost; without `--output` with the texts.
    #[arg(long)]
    json: bool,
}

/// The names of the sources.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Kind {
    /// Relay or Relay.Mesos: a command line, a file of RELAY_* variables, or a JSON of Marathon.
    Relay,
    /// gocd-mesos: its settings file.
    GocdMesos,
    /// A HorizontalPodAutoscaler of Kubernetes (autoscaling/v2).
    Hpa,
    /// A ScaledObject of KEDA.
    Keda,
    /// A policy of nomad-autoscaler, or a job with one, in HCL or JSON.
    Nomad,
}

/// The names of the backends.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Place {
    Local,
    Docker,
    Swarm,
    Mesos,
    None,
}

pub(crate) const EXAMPLES: &str = "\
Writes a commented policy and a spec that holds it to what the source would have decided. What cannot be carried over, \
unknown keys too, is a comment in the policy and a line on standard error. Objects that a manifest scales are taken from \
the same file, where they are in it: image, command, variables, requests.

Examples:
  setpoint import hpa php-apache.yaml
  kubectl get hpa,deploy -o yaml | setpoint import hpa - --output policies
  setpoint import keda scaledobject.yaml --output policies --strict
  setpoint import nomad web.nomad.hcl --backend none --output policies
  setpoint import relay relay.env --name workers --json";

impl From<Kind> for Source {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Relay => Self::Relay,
            Kind::GocdMesos => Self::GocdMesos,
            Kind::Hpa => Self::Hpa,
            Kind::Keda => Self::Keda,
            Kind::Nomad => Self::Nomad,
        }
    }
}

impl From<Place> for Backend {
    fn from(place: Place) -> Self {
        match place {
            Place::Local => Self::Local,
            Place::Docker => Self::Docker,
            Place::Swarm => Self::Swarm,
            Place::Mesos => Self::Mesos,
            Place::None => Self::None,
        }
    }
}

/// Imports, and writes or prints.
pub(crate) fn run(args: &Args) -> Result<Exit, CliError> {
    let (name, text) = read(&args.file)?;
    let options = Options { name: args.name.clone(), backend: args.backend.map(Backend::from) };
    let all = import::import(args.source.into(), &name, &text, &options).map_err(|error| {
        let hint = error.hint.clone();
        let told = CliError::new(Exit::Config, error.to_string());
        hint.into_iter().fold(told, CliError::hint)
    })?;
    let dir = args.output.as_deref().filter(|dir| *dir != Path::new("-"));
    match dir {
        Some(dir) => {
            let files = files_of(dir, &all);
            files::write_all(&files, args.force)?;
            if !args.json {
                let first = files.first().map(|file| file.path.display().to_string()).unwrap_or_default();
                let next = format!("\nnext: setpoint check {first}\n      setpoint test {}\n", dir.display());
                term::print(&(files::list(&files) + &next))?;
            }
        }
        None if args.json => {}
        None => print(&all)?,
    }
    if args.json {
        term::print(&json_text(&summary(&all, dir)))?;
    } else {
        tell(&name, &all);
    }
    let lost = all.iter().any(|imported| !imported.report.lost.is_empty());
    Ok(if args.strict && lost { Exit::Findings } else { Exit::Ok })
}

/// The input's name and text.
fn read(file: &Path) -> Result<(String, String), CliError> {
    let is_standard = file == Path::new("-");
    let name = if is_standard { "standard input".to_owned() } else { file.display().to_string() };
    let failed = |error| CliError::io(format!("cannot read `{name}`"), error);
    let mut bytes = Vec::new();
    if is_standard {
        std::io::stdin().lock().take(MOST).read_to_end(&mut bytes).map_err(failed)?;
    } else {
        let opened = std::fs::File::open(file).map_err(failed)?;
        opened.take(MOST).read_to_end(&mut bytes).map_err(failed)?;
    }
    match String::from_utf8(bytes) {
        Ok(text) => Ok((name, text)),
        Err(error) => {
            let at = error.utf8_error().valid_up_to();
            let line = String::from_utf8_lossy(&error.as_bytes()[..at]).matches('\n').count() + 1;
            Err(CliError::new(Exit::Config, format!("{name}:{line}: expected UTF-8 text, got other bytes")))
        }
    }
}

fn files_of(dir: &Path, all: &[Imported]) -> Vec<NewFile> {
    let mut files = Vec::new();
    for Imported { name, policy, spec, .. } in all {
        files.push(NewFile { path: dir.join(format!("{name}{POLICY_SUFFIX}")), text: policy.clone() });
        files.push(NewFile { path: dir.join(format!("{name}{SPEC_SUFFIX}")), text: spec.clone() });
    }
    files
}

/// The policy's text alone, so that it can be sent into a file.
fn print(all: &[Imported]) -> Result<(), CliError> {
    if let [one] = all {
        return term::print(&one.policy);
    }
    let names: Vec<_> = all.iter().map(|imported| imported.name.as_str()).collect();
    Err(CliError::new(Exit::Usage, format!("there are {} policies in it: {}", all.len(), names.join(", ")))
        .hint("--output DIR writes them all"))
}

/// What was lost, a line each, and how much is to be filled in.
fn tell(file: &str, all: &[Imported]) {
    for Imported { name, report, .. } in all {
        for lost in &report.lost {
            let line = if lost.line == 0 { String::new() } else { format!(":{}", lost.line) };
            term::eprint(&format!("{file}{line}: not carried over: {} ({})\n", plain(&lost.what), plain(&lost.why)));
        }
        for what in &report.fill_in {
            term::eprint(&format!("{name}: to fill in: {}\n", plain(what)));
        }
    }
}

/// Text of the input that must not steer a terminal.
fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

fn summary(all: &[Imported], dir: Option<&Path>) -> Value {
    let policies: Vec<_> = all
        .iter()
        .map(|Imported { name, policy, spec, report }| {
            let carried: Vec<_> = report.carried.iter().map(|one| json!({ "from": one.from, "to": one.to })).collect();
            let lost: Vec<_> = report
                .lost
                .iter()
                .map(|one| json!({ "what": one.what, "line": (one.line > 0).then_some(one.line), "why": one.why }))
                .collect();
            let mut value = json!({ "name": name, "carried": carried, "fill_in": report.fill_in, "lost": lost });
            if let Some(dir) = dir {
                let files: Vec<_> = [POLICY_SUFFIX, SPEC_SUFFIX]
                    .map(|suffix| dir.join(format!("{name}{suffix}")).display().to_string())
                    .to_vec();
                value["files"] = files.into();
            } else {
                value["policy"] = policy.as_str().into();
                value["spec"] = spec.as_str().into();
            }
            value
        })
        .collect();
    json!({ "policies": policies })
}
