//! Every name that the command shares with the world outside: variables, addresses, files.

/// Where the API is, for the verbs that ask it.
pub(crate) const ENV_SERVER: &str = "SETPOINT_SERVER";
/// The API's token.
pub(crate) const ENV_TOKEN: &str = "SETPOINT_TOKEN";
/// Where `run` listens.
pub(crate) const ENV_LISTEN: &str = "SETPOINT_LISTEN";
/// The state folder of `run`.
pub(crate) const ENV_STATE_DIR: &str = "SETPOINT_STATE_DIR";
/// The configuration file.
pub(crate) const ENV_CONFIG: &str = "SETPOINT_CONFIG";
/// The log filter.
pub(crate) const ENV_LOG: &str = "SETPOINT_LOG";

/// Where `run` listens, and where the other verbs look.
pub(crate) const DEFAULT_LISTEN: &str = "127.0.0.1:8080";
/// The same as a URL.
pub(crate) const DEFAULT_SERVER: &str = "http://127.0.0.1:8080";
/// The configuration file that `run` reads from the present folder when it is there.
pub(crate) const CONFIG_FILE: &str = "setpoint.toml";

/// What a policy's file ends in.
pub(crate) const POLICY_SUFFIX: &str = ".lua";
/// What a spec's file ends in; such files are no policies.
pub(crate) const SPEC_SUFFIX: &str = "_test.lua";
/// The editor types, below a policy folder.
pub(crate) const TYPES_FILE: &str = "types/setpoint.lua";
/// The settings of the Lua language server, in a policy folder.
pub(crate) const LUARC_FILE: &str = ".luarc.json";
