//! `require`: the host's modules, and files below the policy's folder.
//!
//! A file is required while the policy loads, so that all of them are known and watched; each is loaded once in a VM
//! (the prelude remembers). Nothing outside the folder can be reached, through links neither.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use mlua::{Function, Lua, Table, Value};

use super::call::{CallScope, HostShared};
use super::convert::{did_you_mean, quote};
use super::vm::compile;
use super::{Hook, api};

/// How many files a load may have noted when it asks for one more that is not there.
const MISSING: usize = 64;

/// A file that a load asked for.
#[derive(Clone, Debug)]
pub(crate) struct ReadFile {
    pub(crate) path: PathBuf,
    /// What was in it; none when it was not there or could not be read.
    pub(crate) text: Option<Arc<str>>,
}

/// The files that a load asked for, in their order: kept outside of the VM, so that a load that fails tells them too.
#[derive(Clone, Debug, Default)]
pub(super) struct Reads(Arc<Mutex<Vec<ReadFile>>>);

impl Reads {
    /// Notes a file. Of those that are not there only so many: a script may ask for as many as it likes.
    pub(super) fn note(&self, path: impl Into<PathBuf>, text: Option<Arc<str>>) {
        let mut reads = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if text.is_some() || reads.len() < MISSING {
            reads.push(ReadFile { path: path.into(), text });
        }
    }

    /// Takes out what was noted.
    pub(super) fn take(&self) -> Vec<ReadFile> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The files that a VM has loaded through `require`.
#[derive(Debug)]
pub(super) struct Files {
    folder: PathBuf,
    reads: Reads,
    required: Mutex<Vec<PathBuf>>,
}

impl Files {
    /// For files in a folder; each that is asked for is noted in `reads`.
    pub(super) fn new(folder: PathBuf, reads: Reads) -> Self {
        Self { folder, reads, required: Mutex::default() }
    }

    /// The files so far.
    pub(super) fn required(&self) -> Vec<PathBuf> {
        self.required.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Finds `name.lua` or `name/init.lua`; dots and slashes part folders.
    pub(super) fn find(&self, name: &str) -> Result<PathBuf, String> {
        let parts: Vec<&str> = name.strip_prefix("./").unwrap_or(name).split(['.', '/']).collect();
        let well_formed =
            |part: &&str| !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'));
        if name.len() > 200 || !parts.iter().all(well_formed) {
            return Err(format!(
                "require: expected a module below the policy's folder such as \"lib.util\", got {}",
                quote(name)
            ));
        }
        let stem: PathBuf = parts.iter().collect();
        let candidates = [stem.with_extension("lua"), stem.join("init.lua")];
        let Some(path) = candidates.iter().map(|path| self.folder.join(path)).find(|path| path.is_file()) else {
            for path in &candidates {
                self.reads.note(self.folder.join(path), None);
            }
            return Err(format!(
                "require: no module {}: expected {} or {} in {}",
                quote(name),
                candidates[0].display(),
                candidates[1].display(),
                self.folder.display()
            ));
        };
        let real = |path: &Path| path.canonicalize().map_err(|error| format!("require: {}: {error}", path.display()));
        // Links inside the folder are fine (that is how mounted configuration looks), links out of it are not.
        if !real(&path)?.starts_with(real(&self.folder)?) {
            return Err(format!("require: {} leads out of the policy's folder, which is not allowed", path.display()));
        }
        Ok(path)
    }
}

/// `require`: true and a module's table; true, nil and a file compiled in that environment; or false and why not.
pub(super) fn find_module(
    lua: &Lua,
    (name, environment): (String, Table),
) -> mlua::Result<(bool, Value, Option<Function>)> {
    let refuse = |message: String| Ok((false, Value::String(lua.create_string(message)?), None));
    if let Some(short) = name.strip_prefix("setpoint.") {
        let modules = api::modules();
        if let Some(module) = modules.iter().find(|module| module.name == short) {
            return Ok((true, Value::Table((module.register)(lua)?), None));
        }
        if short == api::host::NAME {
            return Ok((true, Value::Table(api::host::register(lua)?), None));
        }
        let names = modules.iter().map(|module| module.name).chain(["params", api::host::NAME]);
        let names: Vec<String> = names.map(|short| format!("setpoint.{short}")).collect();
        let hint = did_you_mean(&name, names.iter().map(String::as_str));
        return refuse(format!("there is no module {}{hint}", quote(&name)));
    }
    if !matches!(CallScope::current(lua)?.hook, Hook::Load | Hook::Spec) {
        return refuse(format!("require of {}: files are required while the policy loads, at its top", quote(&name)));
    }
    let files = lua.app_data_ref::<Files>().ok_or_else(|| mlua::Error::runtime("invariant: a VM has its files"))?;
    let path = match files.find(&name) {
        Ok(path) => path,
        Err(message) => return refuse(message),
    };
    let limit = HostShared::of(lua)?.limits.source;
    let source: Arc<str> = match read_source(&path, limit) {
        Ok(source) => source.into(),
        Err(reason) => {
            files.reads.note(&path, None);
            return refuse(format!("cannot read {}: {reason}", path.display()));
        }
    };
    files.reads.note(&path, Some(Arc::clone(&source)));
    files.required.lock().unwrap_or_else(PoisonError::into_inner).push(path.clone());
    let chunk = path.display().to_string();
    if let Some(sources) = lua.app_data_ref::<Arc<super::fault::Sources>>() {
        sources.insert(&chunk, Arc::clone(&source));
    }
    let function = compile(lua, &environment, &chunk, &source)?;
    Ok((true, Value::Nil, Some(function)))
}

/// A source file's text, or why it cannot be read.
pub(super) fn read_source(path: &Path, limit: usize) -> Result<String, String> {
    let meta = std::fs::metadata(path).map_err(|error| error.to_string())?;
    if !meta.is_file() {
        return Err("expected a file".to_owned());
    }
    if meta.len() > limit as u64 {
        return Err(format!("expected at most {limit} bytes, got {}", meta.len()));
    }
    let bytes = std::fs::read(path).map_err(|error| error.to_string())?;
    String::from_utf8(bytes).map_err(|_| "expected text in UTF-8".to_owned())
}
