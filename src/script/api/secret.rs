//! `setpoint.secret`: handles of secrets that scripts can pass on and never see.
//!
//! A handle goes where the documentation says "secret": a header, a password. Its text is read from its source
//! each time it is used, so that a rotated file takes effect at once, and never on a script thread.
//!
//! Invariant: no value of a secret is kept, printed, put into an error or given to Lua.

use std::path::Path;
use std::sync::Arc;

use mlua::{Lua, MetaMethod, Table, UserData, UserDataMethods, Value};

use super::args::{Args, did_you_mean, plain, text};
use super::{Access, FunctionDoc, ModuleDoc};
use crate::script::SecretSource;
use crate::script::call::{CallScope, HostShared, Refused};

/// More than this is not a secret but a wrong path.
const MOST_BYTES: u64 = 64 << 10;

pub(super) const MODULE: ModuleDoc = ModuleDoc {
    name: "secret",
    doc: "Secrets of the host's configuration, as handles that can be used and not read.",
    types: &[
        "@class (exact) setpoint.Secret A handle. `tostring` gives `secret(NAME)`; the value itself never reaches a \
         script.",
    ],
    fields: &[],
    functions: &[FunctionDoc {
        name: "get",
        params: &[("name", "string")],
        returns: &["setpoint.Secret"],
        access: Access::Pure,
        doc: "A handle of a secret that the host's configuration names. It can be given to `http` as a header's value, \
              a bearer token or a password, and to `redis` as a password. Raises when the host has no such secret; \
              while a file loads, that shows at the first use instead.",
    }],
    register,
};

fn register(lua: &Lua) -> mlua::Result<Table> {
    let module = lua.create_table()?;
    module.raw_set("get", plain(lua, "secret.get", 1, get)?)?;
    Ok(module)
}

fn get(lua: &Lua, args: &Args) -> mlua::Result<Secret> {
    let name = args.text(1, "the name of a secret")?;
    let shared = HostShared::of(lua)?;
    let source = shared.permissions.secrets.get(&name).cloned();
    let secret = Secret { name: name.into(), source };
    if secret.source.is_none() && !CallScope::current(lua)?.trial {
        let near = did_you_mean(&secret.name, shared.permissions.secrets.keys().map(String::as_str));
        return Err(Refused::error(format!("secret.get: {}{near}", secret.absent())));
    }
    Ok(secret)
}

/// A handle of one secret.
#[derive(Clone, Debug)]
pub(crate) struct Secret {
    name: Arc<str>,
    source: Option<SecretSource>,
}

impl UserData for Secret {
    fn add_methods<M: UserDataMethods<Self>>(methods: &mut M) {
        methods.add_meta_method(MetaMethod::ToString, |_, secret, ()| Ok(secret.to_string()));
    }
}

impl std::fmt::Display for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "secret({})", self.name)
    }
}

impl Secret {
    fn absent(&self) -> String {
        format!("the host has no secret {}", super::args::quoted(&self.name))
    }

    /// The value, read now. The error names the secret and its source, never its content.
    async fn reveal(&self) -> Result<String, String> {
        match &self.source {
            None => Err(self.absent()),
            Some(SecretSource::File(path)) => read(path).await.map_err(|error| format!("{self}: {error}")),
            Some(SecretSource::Env(variable)) => {
                #[expect(
                    clippy::disallowed_methods,
                    reason = "the host's configuration names this variable as a source"
                )]
                let value = std::env::var(variable);
                value.map_err(|_| format!("{self}: environment variable {variable} is not set"))
            }
        }
    }
}

async fn read(path: &Path) -> Result<String, String> {
    let place = path.display();
    let size = tokio::fs::metadata(path).await.map_err(|error| format!("{place}: {error}"))?.len();
    if size > MOST_BYTES {
        return Err(format!("{place}: expected at most {MOST_BYTES} bytes, got {size}"));
    }
    let mut text = tokio::fs::read_to_string(path).await.map_err(|error| format!("{place}: {error}"))?;
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    Ok(text)
}

/// Text that is either written in the script or a secret of the host's.
#[derive(Clone, Debug)]
pub(crate) enum SecretText {
    /// Written in the script.
    Plain(String),
    /// A handle.
    Secret(Secret),
}

impl SecretText {
    /// Reads a string or a handle.
    pub(crate) fn of(value: &Value) -> Option<Self> {
        match value {
            Value::UserData(handle) => handle.borrow::<Secret>().ok().map(|secret| Self::Secret(secret.clone())),
            _ => text(value).map(Self::Plain),
        }
    }

    /// Whether it is a handle.
    pub(crate) const fn is_secret(&self) -> bool {
        matches!(self, Self::Secret(_))
    }

    /// The text, for the I/O runtime only.
    pub(crate) async fn reveal(&self) -> Result<String, String> {
        match self {
            Self::Plain(text) => Ok(text.clone()),
            Self::Secret(secret) => secret.reveal().await,
        }
    }

    /// What tells it apart from others without saying what it is: a secret's name.
    #[cfg(feature = "redis")]
    pub(crate) fn identity(&self) -> String {
        match self {
            Self::Plain(text) => format!("plain {text}"),
            Self::Secret(secret) => secret.to_string(),
        }
    }
}
