//! `setpoint.fs`: counting and reading files below the folders that the policy may see.
//!
//! Those are the policy file's own folder and the host's `[policy] read_dirs`. A path is made canonical first,
//! so neither `..` nor a symbolic link leads out; the file that was opened is looked up once more by its
//! descriptor, so a link that is swapped in between does not either. Nothing outside can be told from
//! something that does not exist. Nothing in here writes. All of it runs on the I/O runtime's blocking threads.

use std::ffi::OsStr;
use std::fs::{DirEntry, File, Metadata};
use std::io::{ErrorKind, Read as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use mlua::{Lua, Table};
use rustix::fs::OFlags;

use super::args::{Args, Problem, blocking, quoted, waiting};
use super::{ModuleDoc, glob, read};
use crate::script::call::{HostShared, ScriptDir};

/// Most entries of a folder that are looked at.
const MOST_ENTRIES: usize = 1_000_000;
/// Most names that `list` gives.
const MOST_NAMES: usize = 10_000;

pub(super) const MODULE: ModuleDoc = ModuleDoc {
    name: "fs",
    doc: "Counts and reads files below the policy's own folder and the folders that the host allows (`[policy] \
         read_dirs`). \
          Relative paths start at the policy's folder. Reads only. What does not exist raises, but for `exists`.",
    types: &[
        "@class (exact) setpoint.fs.Options",
        "@field kind? \"file\"|\"folder\"|\"any\" Which entries count; `\"file\"` (all that are not folders) unless \
         given.",
        "@class (exact) setpoint.fs.ReadOptions",
        "@field max? string|number Most bytes, e.g. `\"64KiB\"`; the host's `body` limit (4 MiB) unless given. A \
         larger file raises.",
    ],
    fields: &[],
    functions: &[
        read(
            "count",
            &[("folder", "string"), ("pattern?", "string"), ("options?", "setpoint.fs.Options")],
            &["integer"],
            "How many entries of a folder match a pattern such as `*.job` (`*` unless given; names with a leading \
             dot only match a \
             pattern with one). While a file loads: 0.",
        ),
        read(
            "list",
            &[("folder", "string"), ("pattern?", "string"), ("options?", "setpoint.fs.Options")],
            &["string[]"],
            "The names of the entries that match, sorted; more than 10,000 raise. While a file loads: an empty list.",
        ),
        read(
            "read",
            &[("path", "string"), ("options?", "setpoint.fs.ReadOptions")],
            &["string"],
            "The content of a file. While a file loads: an empty text.",
        ),
        read(
            "lines",
            &[("path", "string"), ("options?", "setpoint.fs.ReadOptions")],
            &["string[]"],
            "The lines of a file without their ends. While a file loads: an empty list.",
        ),
        read(
            "exists",
            &[("path", "string")],
            &["boolean"],
            "Whether there is such a file or folder. While a file loads: false.",
        ),
        read("size", &[("path", "string")], &["integer"], "The bytes of a file. While a file loads: 0."),
        read(
            "mtime",
            &[("path", "string")],
            &["number"],
            "When a file or folder was last changed, in seconds since 1970. While a file loads: 0.",
        ),
    ],
    register,
};

fn register(lua: &Lua) -> mlua::Result<Table> {
    let module = lua.create_table()?;
    module.raw_set("count", query(lua, "fs.count", Query::entries, Files::count, 0)?)?;
    module.raw_set("list", query(lua, "fs.list", Query::entries, Files::list, Names::default())?)?;
    module.raw_set("read", query(lua, "fs.read", Query::content, Files::read, Bytes::default())?)?;
    module.raw_set("lines", query(lua, "fs.lines", Query::content, Files::lines, Names::default())?)?;
    module.raw_set("exists", query(lua, "fs.exists", Query::path, Files::exists, false)?)?;
    module.raw_set("size", query(lua, "fs.size", Query::path, Files::size, 0)?)?;
    module.raw_set("mtime", query(lua, "fs.mtime", Query::path, Files::mtime, 0.0)?)?;
    Ok(module)
}

/// Text of any bytes as a Lua string.
#[derive(Clone, Default)]
struct Bytes(Vec<u8>);

impl mlua::IntoLua for Bytes {
    fn into_lua(self, lua: &Lua) -> mlua::Result<mlua::Value> {
        lua.create_string(self.0).map(mlua::Value::String)
    }
}

type Names = Vec<Bytes>;

/// Makes one function: read the arguments, then do `work` off the script's thread; `stub` is for a trial.
fn query<T>(
    lua: &Lua,
    name: &'static str,
    parse: fn(&Args, usize) -> mlua::Result<Query>,
    work: fn(&Files, &Query) -> Result<T, Problem>,
    stub: T,
) -> mlua::Result<mlua::Function>
where
    T: mlua::IntoLua + Clone + Send + Sync + 'static,
{
    waiting(lua, name, 3, move |lua, scope, args| {
        let stub = stub.clone();
        async move {
            let shared = HostShared::of(&lua)?;
            let query = parse(&args, shared.limits.body)?;
            if scope.trial {
                return Ok(stub);
            }
            let files = Files::of(&lua, &shared);
            blocking(&shared, &scope, name, move || work(&files, &query)).await
        }
    })
}

/// What a call asks for.
struct Query {
    path: String,
    pattern: String,
    kind: Kind,
    most_bytes: usize,
}

#[derive(Clone, Copy)]
enum Kind {
    File,
    Folder,
    Any,
}

impl Query {
    fn path(args: &Args, most_bytes: usize) -> mlua::Result<Self> {
        if args.len() > 1 {
            return Err(args.error(format!("expected at most 1 argument, got {}", args.len())));
        }
        let path = args.text(1, "a path")?;
        Ok(Self { path, pattern: String::new(), kind: Kind::Any, most_bytes })
    }

    fn content(args: &Args, most_bytes: usize) -> mlua::Result<Self> {
        if args.len() > 2 {
            return Err(args.error(format!("expected at most 2 arguments, got {}", args.len())));
        }
        let most = args.options(2, &["max"])?.size("max", most_bytes)?;
        Ok(Self {
            path: args.text(1, "a path")?,
            pattern: String::new(),
            kind: Kind::Any,
            most_bytes: most.unwrap_or(most_bytes),
        })
    }

    fn entries(args: &Args, most_bytes: usize) -> mlua::Result<Self> {
        let path = args.text(1, "a folder")?;
        let pattern = args.text_if_given(2, "a pattern such as \"*.job\"")?.unwrap_or_else(|| "*".to_owned());
        if pattern.contains('/') || pattern.len() > 255 {
            return Err(args.wrong(2, "a pattern of one name, without a slash"));
        }
        let options = args.options(3, &["kind"])?;
        let expected = "\"file\", \"folder\" or \"any\"";
        let kind = match options.text("kind", expected)?.as_deref() {
            None | Some("file") => Kind::File,
            Some("folder") => Kind::Folder,
            Some("any") => Kind::Any,
            Some(_) => return Err(options.wrong("kind", expected, &options.value("kind")?)),
        };
        Ok(Self { path, pattern, kind, most_bytes })
    }

    fn wants(&self, entry: &DirEntry) -> bool {
        let matched = glob::matches(self.pattern.as_bytes(), entry.file_name().as_bytes());
        matched
            && match self.kind {
                Kind::Any => true,
                Kind::File => entry.file_type().is_ok_and(|kind| !kind.is_dir()),
                Kind::Folder => entry.file_type().is_ok_and(|kind| kind.is_dir()),
            }
    }

    fn problem(&self, text: impl std::fmt::Display) -> Problem {
        Problem::Failed(format!("{}: {text}", quoted(&self.path)))
    }
}

/// The files that a policy may see.
struct Files {
    base: Option<PathBuf>,
    roots: Vec<PathBuf>,
}

impl Files {
    fn of(lua: &Lua, shared: &HostShared) -> Self {
        let base = lua.app_data_ref::<ScriptDir>().map(|folder| folder.0.clone());
        let roots = base.iter().chain(&shared.permissions.read_dirs).cloned().collect();
        Self { base, roots }
    }

    /// The canonical path of something that exists and may be seen; none when it does not exist.
    fn find(&self, query: &Query) -> Result<Option<PathBuf>, Problem> {
        let given = Path::new(&query.path);
        let full = match &self.base {
            Some(base) => base.join(given),
            None if given.is_absolute() => given.to_owned(),
            None => return Err(query.problem("expected an absolute path, since this policy has no folder of its own")),
        };
        // For what does not exist, its nearest ancestor decides whether that may be told.
        for (depth, ancestor) in full.ancestors().enumerate() {
            match ancestor.canonicalize() {
                Ok(found) if !self.allows(&found) => break,
                Ok(found) => return Ok((depth == 0).then_some(found)),
                Err(error) if error.kind() == ErrorKind::NotFound || error.kind() == ErrorKind::NotADirectory => {}
                Err(_) => break,
            }
        }
        Err(Problem::Refused(format!(
            "{}: expected a path below the policy's folder or the host's read_dirs, got one outside",
            quoted(&query.path)
        )))
    }

    fn allows(&self, canonical: &Path) -> bool {
        self.roots.iter().filter_map(|root| root.canonicalize().ok()).any(|root| canonical.starts_with(root))
    }

    fn existing(&self, query: &Query) -> Result<PathBuf, Problem> {
        self.find(query)?.ok_or_else(|| query.problem("does not exist"))
    }

    fn exists(&self, query: &Query) -> Result<bool, Problem> {
        Ok(self.find(query)?.is_some())
    }

    fn metadata(&self, query: &Query) -> Result<Metadata, Problem> {
        self.existing(query)?.metadata().map_err(|error| query.problem(error))
    }

    fn size(&self, query: &Query) -> Result<u64, Problem> {
        let metadata = self.metadata(query)?;
        if metadata.is_file() { Ok(metadata.len()) } else { Err(query.problem("expected a file, got something else")) }
    }

    fn mtime(&self, query: &Query) -> Result<f64, Problem> {
        let changed = self.metadata(query)?.modified().map_err(|error| query.problem(error))?;
        // Times before 1970 come out as negative seconds.
        Ok(match changed.duration_since(UNIX_EPOCH) {
            Ok(after) => after.as_secs_f64(),
            Err(before) => -before.duration().as_secs_f64(),
        })
    }

    /// Calls `each` with the name of every entry that the query wants.
    fn scan(&self, query: &Query, mut each: impl FnMut(&OsStr) -> Result<(), Problem>) -> Result<(), Problem> {
        let entries = self.existing(query)?.read_dir().map_err(|error| query.problem(error))?;
        for (index, entry) in entries.enumerate() {
            if index >= MOST_ENTRIES {
                return Err(query.problem(format!("expected at most {MOST_ENTRIES} entries, got more")));
            }
            let entry = entry.map_err(|error| query.problem(error))?;
            if query.wants(&entry) {
                each(&entry.file_name())?;
            }
        }
        Ok(())
    }

    fn count(&self, query: &Query) -> Result<usize, Problem> {
        let mut count = 0;
        self.scan(query, |_| {
            count += 1;
            Ok(())
        })?;
        Ok(count)
    }

    fn list(&self, query: &Query) -> Result<Names, Problem> {
        let mut names = Vec::new();
        self.scan(query, |name| {
            if names.len() == MOST_NAMES {
                let text = format!("expected at most {MOST_NAMES} names, got more; narrow the pattern or use fs.count");
                return Err(query.problem(text));
            }
            names.push(name.as_bytes().to_vec());
            Ok(())
        })?;
        names.sort();
        Ok(names.into_iter().map(Bytes).collect())
    }

    fn open(&self, query: &Query) -> Result<File, Problem> {
        let path = self.existing(query)?;
        // The canonical path has no link left to follow, and a pipe must not block the thread.
        let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
        let file = File::options().read(true).custom_flags(flags).open(&path).map_err(|error| query.problem(error))?;
        if !self.still_allows(&file) {
            return Err(query.problem("was replaced while it was opened"));
        }
        let is_file = file.metadata().map_err(|error| query.problem(error))?.is_file();
        if is_file { Ok(file) } else { Err(query.problem("expected a file, got something else")) }
    }

    /// Whether what was opened is where it should be, where the system can tell.
    #[cfg(target_os = "linux")]
    fn still_allows(&self, file: &File) -> bool {
        use std::os::fd::AsRawFd as _;
        let opened = std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()));
        opened.map_or(true, |path| self.allows(&path))
    }

    #[cfg(not(target_os = "linux"))]
    #[expect(clippy::unused_self, reason = "the Linux twin needs it")]
    const fn still_allows(&self, _: &File) -> bool {
        true
    }

    fn read(&self, query: &Query) -> Result<Bytes, Problem> {
        let file = self.open(query)?;
        let mut content = Vec::new();
        // One byte more than allowed tells a file of just that size from a larger one.
        let most = query.most_bytes as u64 + 1;
        file.take(most).read_to_end(&mut content).map_err(|error| query.problem(error))?;
        if content.len() > query.most_bytes {
            return Err(query.problem(format!("expected at most {} bytes, got more", query.most_bytes)));
        }
        Ok(Bytes(content))
    }

    fn lines(&self, query: &Query) -> Result<Names, Problem> {
        let mut content = self.read(query)?.0;
        if content.last() == Some(&b'\n') {
            content.pop();
        } else if content.is_empty() {
            return Ok(Vec::new());
        }
        let lines = content.split(|byte| *byte == b'\n');
        Ok(lines.map(|line| Bytes(line.strip_suffix(b"\r").unwrap_or(line).to_vec())).collect())
    }
}
