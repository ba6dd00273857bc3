//! Scripts, their faults and their parameters as JSON.

use serde::Serialize;

use crate::runtime::view::ScriptView;
use crate::script::{Param, ParamValue, ScriptError};

/// A policy's script.
#[derive(Debug, Serialize)]
pub struct ScriptJson<'a> {
    /// Its file.
    pub path: String,
    /// SHA-256 of what runs, in hex.
    pub sha256: &'a str,
    /// null, or the last error of a hook.
    pub error: Option<ScriptErrorJson<'a>>,
    /// null, or why the file on disk is not what runs.
    pub refused: Option<ScriptErrorJson<'a>>,
}

/// A fault of a script.
#[derive(Debug, Serialize)]
pub struct ScriptErrorJson<'a> {
    /// One line.
    pub message: &'a str,
    /// Which file.
    pub path: String,
    /// Line, from 1.
    pub line: Option<u32>,
    /// Column, from 1.
    pub column: Option<u32>,
    /// Which function.
    pub hook: &'static str,
    /// What sort of fault.
    pub kind: &'static str,
    /// What to do about it.
    pub hint: Option<&'a str>,
    /// The whole report: headline, source line with a caret, call chain, hint.
    pub report: String,
}

/// A parameter's value and default.
#[derive(Debug, Serialize)]
pub struct ParamJson<'a> {
    /// Its value.
    pub value: ValueJson<'a>,
    /// Its default.
    pub default: ValueJson<'a>,
}

/// A value of a parameter.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum ValueJson<'a> {
    /// true or false.
    Bool(bool),
    /// A number.
    Number(f64),
    /// Text.
    Text(&'a str),
}

impl<'a> From<&'a ScriptView> for ScriptJson<'a> {
    fn from(script: &'a ScriptView) -> Self {
        Self {
            path: script.path.display().to_string(),
            sha256: &script.sha256,
            error: script.error.as_deref().map(Into::into),
            refused: script.refused.as_deref().map(Into::into),
        }
    }
}

impl<'a> From<&'a ScriptError> for ScriptErrorJson<'a> {
    fn from(error: &'a ScriptError) -> Self {
        Self {
            message: &error.message,
            path: error.path.display().to_string(),
            line: error.line,
            column: error.column,
            hook: error.hook.as_str(),
            kind: error.kind.as_str(),
            hint: error.hint.as_deref(),
            report: error.report(),
        }
    }
}

impl<'a> From<&'a Param> for ParamJson<'a> {
    fn from(param: &'a Param) -> Self {
        Self { value: (&param.value).into(), default: (&param.default).into() }
    }
}

impl<'a> From<&'a ParamValue> for ValueJson<'a> {
    fn from(value: &'a ParamValue) -> Self {
        match value {
            ParamValue::Bool(value) => Self::Bool(*value),
            ParamValue::Number(value) => Self::Number(*value),
            ParamValue::Text(value) => Self::Text(value),
        }
    }
}
