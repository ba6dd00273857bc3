//! The script host: the door through which the rest of the crate loads files.

use std::io;
use std::sync::Arc;

use super::call::HostShared;
use super::error::{ScriptError, ScriptErrorKind};
use super::pool::Pool;
use super::{Hook, Limits, LoadRequest, LoadedFile, Natives, Permissions, loader};

/// Loads and runs policy files. Cheap to clone; the last clone and the last policy end its threads.
#[derive(Clone)]
pub struct ScriptHost {
    shared: Arc<HostShared>,
    pool: Arc<Pool>,
}

impl ScriptHost {
    /// Starts `threads` script threads (at least one). I/O of scripts runs on `io`.
    ///
    /// # Errors
    /// The threads cannot be started.
    pub fn new(
        limits: Limits,
        permissions: Permissions,
        natives: Natives,
        io: tokio::runtime::Handle,
        threads: usize,
    ) -> Result<Self, io::Error> {
        let pool = Arc::new(Pool::new(threads)?);
        Ok(Self { shared: Arc::new(HostShared::new(limits, permissions, natives, io)), pool })
    }

    /// Compiles, runs and checks a file, with all effects and I/O stubbed.
    ///
    /// # Errors
    /// Every problem that was found; more than one only where the policy table has several.
    pub async fn load(&self, request: LoadRequest) -> Result<LoadedFile, Vec<ScriptError>> {
        let path = request.path.clone();
        let work = loader::load(Arc::clone(&self.shared), Arc::clone(&self.pool), request);
        self.pool.spawn(work).await.unwrap_or_else(|error| {
            let message = format!("the script host failed: {error}");
            Err(vec![ScriptError::new(path, Hook::Load, ScriptErrorKind::Runtime, message)])
        })
    }

    /// Runs work that does little but call scripts on the script threads, which spares each call two changes of threads.
    pub(crate) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        // It is not waited for, and goes on all the same.
        drop(self.pool.spawn(work));
    }

    /// Limits on scripts.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.shared.limits
    }
}

impl std::fmt::Debug for ScriptHost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ScriptHost").field("shared", &self.shared).finish_non_exhaustive()
    }
}
