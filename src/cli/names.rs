//! Every name that the command shares with the world outside: variables, addresses, files.

use setpoint::config::env;

/// Where the API is, for the verbs that ask it.
pub(crate) const ENV_SERVER: &str = env::SERVER.name;
/// The API's token.
pub(crate) const ENV_TOKEN: &str = env::TOKEN.name;
/// The log filter.
pub(crate) const ENV_LOG: &str = env::LOG.name;
/// The configuration file.
pub(crate) const ENV_CONFIG: &str = env::CONFIG.name;

/// What a policy's file ends in.
pub(crate) const POLICY_SUFFIX: &str = ".lua";
/// What a spec's file ends in; such files are no policies.
pub(crate) const SPEC_SUFFIX: &str = "_test.lua";
/// The folder of the editor types, below a policy folder.
pub(crate) const TYPES_FOLDER: &str = "types";
/// The settings of the Lua language server, in a policy folder.
pub(crate) const LUARC_FILE: &str = ".luarc.json";
