//! `setpoint policies`: the policies that come with the command, and the retired ones of a running host.

use std::path::PathBuf;

use serde_json::{Value, json};
use setpoint::script::{Param, ParamValue};

use super::bundled::{Bundled, POLICIES};
use super::client::{Client, ServerArgs};
use super::exit::{CliError, Exit};
use super::files::{self, NewFile};
use super::names::POLICY_SUFFIX;
use super::sources::PolicyFile;
use super::{Globals, answer, host, json_text, term};

/// What `policies` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// List the bundled policies.
    List {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Show what a bundled policy does, and its parameters with their types and defaults.
    Show {
        /// Its name.
        #[arg(value_name = "NAME")]
        name: String,
        /// Print its Lua source instead.
        #[arg(long, conflicts_with = "json")]
        source: bool,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Copy a bundled policy into a folder, to start one of your own from.
    Copy {
        /// Its name.
        #[arg(value_name = "NAME")]
        name: String,
        /// The folder.
        #[arg(value_name = "DIR", default_value = ".")]
        dir: PathBuf,
        /// Overwrite a file that is there.
        #[arg(long)]
        force: bool,
    },
    /// Give the tasks and the state of a retired policy (one whose file is gone) to another.
    Adopt {
        /// The retired policy.
        #[arg(value_name = "OLD")]
        old: String,
        /// The policy that takes its tasks.
        #[arg(value_name = "NEW")]
        new: String,
        /// Print the API's answer as it is.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// End the tasks of a retired policy and forget it.
    Remove {
        /// The retired policy.
        #[arg(value_name = "NAME")]
        name: String,
        /// Print the API's answer as it is.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        server: ServerArgs,
    },
}

pub(crate) const EXAMPLES: &str = "\
Examples:
  setpoint policies list
  setpoint policies show thermostat
  setpoint run thermostat --set target=5       a bundled policy runs by its name
  setpoint policies copy thermostat policies/  … or as the start of one of your own
  setpoint policies adopt old-queue queue      after a file was renamed";

/// Does what the second verb says.
pub(crate) async fn run(args: &Args, globals: &Globals) -> Result<Exit, CliError> {
    match &args.verb {
        Verb::List { json } => list(*json, globals),
        Verb::Show { name, source: true, .. } => {
            term::print(find(name)?.source)?;
            Ok(Exit::Ok)
        }
        Verb::Show { name, json, .. } => show(find(name)?, *json, globals).await,
        Verb::Copy { name, dir, force } => {
            let policy = find(name)?;
            let path = dir.join(format!("{}{POLICY_SUFFIX}", policy.name));
            let files = [NewFile { path, text: policy.source.to_owned() }];
            files::write_all(&files, *force)?;
            term::print(&files::list(&files))?;
            Ok(Exit::Ok)
        }
        Verb::Adopt { old, new, json, server } => {
            let reply = Client::new(server)?.adopt(old, new).await?;
            answer(&reply, *json, &format!("{new} has the tasks of {old}"))
        }
        Verb::Remove { name, json, server } => {
            let reply = Client::new(server)?.remove(name).await?;
            answer(&reply, *json, &format!("{name} is forgotten, and its tasks are being ended"))
        }
    }
}

fn find(name: &str) -> Result<&'static Bundled, CliError> {
    Bundled::find(name.strip_suffix(POLICY_SUFFIX).unwrap_or(name)).ok_or_else(|| {
        CliError::new(Exit::Usage, format!("there is no bundled policy `{name}`"))
            .hint("`setpoint policies list` shows them")
    })
}

fn list(json: bool, globals: &Globals) -> Result<Exit, CliError> {
    if json {
        let policies: Vec<_> =
            POLICIES.iter().map(|policy| json!({ "name": policy.name, "summary": policy.summary() })).collect();
        term::print(&json_text(&json!({ "policies": policies })))?;
        return Ok(Exit::Ok);
    }
    let paint = globals.color.stdout();
    let width = POLICIES.iter().map(|policy| policy.name.len()).max().unwrap_or(0);
    for policy in POLICIES {
        let name = paint.bold(&format!("{:<width$}", policy.name));
        term::print(&format!("{name}  {}\n", policy.summary()))?;
    }
    Ok(Exit::Ok)
}

async fn show(policy: &'static Bundled, json: bool, globals: &Globals) -> Result<Exit, CliError> {
    let loader = host::Loader::new(&super::ConfigArgs::default(), &[])?;
    let loaded = loader.load(&PolicyFile::bundled(policy)).await;
    let params = loaded.map_err(|errors| host::wrong_policies(&errors))?.params;
    if json {
        let params: Vec<_> = params.iter().map(param_json).collect();
        let text =
            json!({ "name": policy.name, "summary": policy.summary(), "params": params, "source": policy.source });
        term::print(&json_text(&text))?;
        return Ok(Exit::Ok);
    }
    let paint = globals.color.stdout();
    let mut text = policy.header().join("\n") + "\n";
    if !params.is_empty() {
        text.push_str(&format!("\n{}\n", paint.bold("Parameters (--set name=value)")));
        let width = params.iter().map(|param| param.name.len()).max().unwrap_or(0);
        for param in &params {
            let (kind, default) = (type_name(&param.default), value_text(&param.default));
            text.push_str(&format!("  {:<width$}  {kind:<7}  {default}\n", param.name));
        }
    }
    term::print(&text)?;
    Ok(Exit::Ok)
}

fn param_json(param: &Param) -> Value {
    let default = match &param.default {
        ParamValue::Bool(value) => json!(value),
        ParamValue::Number(value) => json!(value),
        ParamValue::Text(value) => json!(value),
    };
    json!({ "name": param.name, "type": type_name(&param.default), "default": default })
}

const fn type_name(value: &ParamValue) -> &'static str {
    match value {
        ParamValue::Bool(_) => "boolean",
        ParamValue::Number(_) => "number",
        ParamValue::Text(_) => "text",
    }
}

fn value_text(value: &ParamValue) -> String {
    match value {
        ParamValue::Bool(value) => value.to_string(),
        ParamValue::Number(value) => value.to_string(),
        ParamValue::Text(value) => format!("{value:?}"),
    }
}
