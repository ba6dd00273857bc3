//! Loading a shadow: the second policy file that a policy names, to be evaluated beside it without acting.
//!
//! It is a policy file like any other, in a VM of its own. What is refused here besides what every load refuses: a path
//! that leads out of the acting policy's folder, the acting policy itself, a shadow that has a shadow, a fleet.

use std::path::{Component, Path, PathBuf};

use super::convert::quote;
use super::error::{ScriptError, ScriptErrorKind};
use super::host::ScriptHost;
use super::require::ReadFile;
use super::{Content, Hook, LoadRequest, LoadedFile, LoadedPolicy};

/// A shadow that was loaded.
pub struct LoadedShadow {
    /// Its policy.
    pub policy: LoadedPolicy,
    /// SHA-256 of its source, in hex.
    pub sha256: String,
    /// Things that are legal and probably not meant.
    pub warnings: Vec<String>,
}

impl std::fmt::Debug for LoadedShadow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LoadedShadow").field("sha256", &self.sha256).finish_non_exhaustive()
    }
}

/// Where a shadow's file is, by the path of the acting policy's and what that one says.
#[must_use]
pub fn shadow_path(acting: &Path, named: &str) -> PathBuf {
    folder(acting).join(named)
}

/// What is wrong with the name of a shadow's file, as far as the name itself tells.
pub(super) fn misnamed(named: &str) -> Option<String> {
    let path = Path::new(named);
    let below = path.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    let lua = path.extension().is_some_and(|extension| extension == "lua");
    (!below || !lua).then(|| {
        format!(
            "expected a policy file in this file's folder or below it, such as \"other.lua\" or \"shadows/next.lua\", got {}",
            quote(named)
        )
    })
}

impl ScriptHost {
    /// Loads the shadow `named` by the policy that `acting` asks to load: under that policy's name and with its
    /// parameters, on trial like any load.
    ///
    /// # Errors
    /// Every problem that was found.
    pub async fn load_shadow(&self, acting: LoadRequest, named: &str) -> Result<LoadedShadow, Vec<ScriptError>> {
        self.load_shadow_noting(acting, named).await.0
    }

    /// The same, with the files that it asked for, whatever came of it.
    pub(crate) async fn load_shadow_noting(
        &self,
        acting: LoadRequest,
        named: &str,
    ) -> (Result<LoadedShadow, Vec<ScriptError>>, Vec<ReadFile>) {
        let path = shadow_path(&acting.path, named);
        if let Some(error) = misplaced(&acting.path, &path) {
            return (Err(vec![error]), vec![ReadFile { path, text: None }]);
        }
        let request = LoadRequest { path: path.clone(), source: None, ..acting };
        let (result, read) = self.load_noting(request).await;
        let result = result.and_then(|loaded| shadow(&path, loaded).map_err(|error| vec![error]));
        (result, read)
    }
}

/// A policy that may stand beside another.
fn shadow(path: &Path, loaded: LoadedFile) -> Result<LoadedShadow, ScriptError> {
    let refused = |message: &str| Err(ScriptError::new(path, Hook::Load, ScriptErrorKind::Shape, message));
    match loaded.content {
        Content::Fleet(_) => refused("a shadow is one policy, and this file is a fleet"),
        Content::Policy(policy) if policy.spec.shadow.is_some() => {
            refused("a shadow has no shadow of its own: take `shadow` out of this file")
        }
        Content::Policy(policy) => Ok(LoadedShadow { policy, sha256: loaded.sha256, warnings: loaded.warnings }),
    }
}

/// What only the file system tells: that the path is the acting policy's own, or leads out of its folder.
fn misplaced(acting: &Path, path: &Path) -> Option<ScriptError> {
    let refused = |message: String| Some(ScriptError::new(path, Hook::Load, ScriptErrorKind::Shape, message));
    // What is not there is for the load to say.
    let real = path.canonicalize().ok()?;
    if acting.canonicalize().is_ok_and(|acting| acting == real) {
        return refused("a policy cannot be its own shadow: name another file".to_owned());
    }
    let folder = folder(acting);
    match folder.canonicalize() {
        Ok(folder) if real.starts_with(&folder) => None,
        _ => refused(format!("leads out of {}, the acting policy's folder, which is not allowed", folder.display())),
    }
}

fn folder(acting: &Path) -> PathBuf {
    match acting.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}
