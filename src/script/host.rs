//! The script host: the door through which the rest of the crate loads files.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use super::call::HostShared;
use super::cluster::ClusterView;
use super::containers::Containers;
use super::error::{ScriptError, ScriptErrorKind};
use super::pool::Pool;
use super::require::{ReadFile, Reads};
use super::{Hook, Limits, LoadRequest, LoadedFile, Natives, Permissions, Variation, loader};

/// Loads and runs policy files. Cheap to clone; the last clone and the last policy end its threads.
#[derive(Clone)]
pub struct ScriptHost {
    pub(super) shared: Arc<HostShared>,
    pub(super) pool: Arc<Pool>,
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

    /// Lets scripts look at containers (`setpoint.docker`).
    #[must_use]
    pub fn with_containers(mut self, containers: Arc<dyn Containers>) -> Self {
        if let Some(shared) = Arc::get_mut(&mut self.shared) {
            shared.containers = Some(containers);
        }
        self
    }

    /// Lets scripts look at a Mesos cluster (`setpoint.mesos`).
    #[must_use]
    pub fn with_cluster(mut self, cluster: Arc<dyn ClusterView>) -> Self {
        if let Some(shared) = Arc::get_mut(&mut self.shared) {
            shared.cluster = Some(cluster);
        }
        self
    }

    /// Says who set which parameter (by `key` and `policy.key`), so that messages about their values can.
    #[must_use]
    pub fn naming_params(mut self, origins: BTreeMap<String, String>) -> Self {
        if let Some(shared) = Arc::get_mut(&mut self.shared) {
            shared.param_origins = origins;
        }
        self
    }

    /// Compiles, runs and checks a file, with all effects and I/O stubbed.
    ///
    /// # Errors
    /// Every problem that was found; more than one only where the policy table has several.
    pub async fn load(&self, request: LoadRequest) -> Result<LoadedFile, Vec<ScriptError>> {
        self.load_noting(request).await.0
    }

    /// The same, with something changed first: what `simulate` and `tune` compare.
    ///
    /// # Errors
    /// As of `load`; and the spec whose fakes are wanted does not load, or gives none.
    pub async fn load_varied(
        &self,
        request: LoadRequest,
        variation: Variation,
    ) -> Result<LoadedFile, Vec<ScriptError>> {
        self.load_with(request, variation).await.0
    }

    /// The same, with the files that it asked for, whatever came of it.
    pub(crate) async fn load_noting(
        &self,
        request: LoadRequest,
    ) -> (Result<LoadedFile, Vec<ScriptError>>, Vec<ReadFile>) {
        self.load_with(request, Variation::default()).await
    }

    async fn load_with(
        &self,
        request: LoadRequest,
        variation: Variation,
    ) -> (Result<LoadedFile, Vec<ScriptError>>, Vec<ReadFile>) {
        let (path, reads) = (request.path.clone(), Reads::default());
        let work = loader::load(Arc::clone(&self.shared), Arc::clone(&self.pool), request, reads.clone(), variation);
        let result = self.pool.spawn(work).await.unwrap_or_else(|error| {
            let message = format!("the script host failed: {error}");
            Err(vec![ScriptError::new(path, Hook::Load, ScriptErrorKind::Runtime, message)])
        });
        (result, reads.take())
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
