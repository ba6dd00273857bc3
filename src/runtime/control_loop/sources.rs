//! Sources: files that come, change and go, the generations of their policies, and the rows of fleets.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::core::ledger::Ledger;
use crate::core::model::PolicyName;
use crate::script::{Content, Fleet, FleetRow, LoadRequest, LoadedFile, LoadedPolicy, Param, ReadFile, ScriptError};

use super::super::clock::JumpDetector;
use super::super::event::Event;
use super::super::policy::{Generation, Phase, Policy};
use super::super::record::{Ended, PolicyRecord, SourceRecord, Write};
use super::super::ticker::{Timer, first_delay};
use super::super::view::StreamEvent;
use super::super::watch::fingerprint;
use super::Loop;
use super::tick::deadline;

/// A deleted file's policies are retired after this long; editors that replace files are back sooner.
const RETIRE_AFTER: Duration = Duration::from_secs(5);

/// A row is gone after this many successful discoveries without it.
const MISSES: u32 = 3;

/// Where a source's text comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SourceOrigin {
    /// A file.
    File(PathBuf),
    /// A text that never changes.
    Text(String),
}

/// One file, with the policies that it gave.
pub(crate) struct Source {
    pub(crate) name: String,
    pub(crate) origin: SourceOrigin,
    /// Number of the last load; results of earlier ones are void.
    pub(crate) serial: u64,
    pub(crate) fleet: Option<Arc<dyn Fleet>>,
    pub(crate) discovering: bool,
    /// Number of the fleet's generation; timers of earlier ones are void.
    pub(crate) round: u64,
    /// Why the fleet's rows, or one of them, are not known.
    pub(crate) undiscovered: Option<Arc<ScriptError>>,
    pub(crate) rows: BTreeMap<String, Row>,
    pub(crate) sha256: Arc<str>,
    pub(crate) params: Arc<Vec<Param>>,
    /// Why the file on the disk is not what runs.
    pub(crate) refused: Option<Arc<ScriptError>>,
    /// Why rows have no policy, by their names.
    pub(crate) faults: BTreeMap<String, Arc<ScriptError>>,
    /// The files that the last load asked for, with the fingerprints of what it read.
    pub(crate) read: BTreeMap<PathBuf, Option<u64>>,
    /// Since when the file is gone.
    pub(crate) missing: Option<Instant>,
    /// More than half of the rows went at once: so many more discoveries must agree.
    pub(crate) doubt: u32,
}

/// A row of a fleet.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) key: usize,
    /// Successful discoveries in a row without it.
    pub(crate) misses: u32,
}

impl Source {
    pub(crate) fn new(name: String, origin: SourceOrigin) -> Self {
        Self {
            name,
            origin,
            serial: 0,
            fleet: None,
            discovering: false,
            round: 0,
            undiscovered: None,
            rows: BTreeMap::new(),
            sha256: Arc::from(""),
            params: Arc::default(),
            refused: None,
            faults: BTreeMap::new(),
            read: BTreeMap::new(),
            missing: None,
            doubt: 0,
        }
    }

    /// The path that messages and `require` start from.
    pub(crate) fn path(&self) -> PathBuf {
        match &self.origin {
            SourceOrigin::File(path) => path.clone(),
            SourceOrigin::Text(_) => PathBuf::from(format!("{}.lua", self.name)),
        }
    }

    /// Notes what a load read. A file that is asked for and not there is watched too: its coming mends the load.
    pub(crate) fn note(&mut self, read: Vec<ReadFile>) {
        let look = |file: ReadFile| (file.path, file.text.map(|text| fingerprint(text.as_bytes())));
        self.read = read.into_iter().map(look).collect();
    }

    /// What is to be watched for it.
    fn files(&self) -> impl Iterator<Item = &PathBuf> {
        let own = match &self.origin {
            SourceOrigin::File(path) => Some(path),
            SourceOrigin::Text(_) => None,
        };
        own.into_iter().chain(self.read.keys())
    }

    /// The folder that relative paths of tasks start from.
    fn base(&self) -> Option<PathBuf> {
        match &self.origin {
            SourceOrigin::File(path) => path.parent().filter(|dir| !dir.as_os_str().is_empty()).map(Path::to_path_buf),
            SourceOrigin::Text(_) => None,
        }
    }

    /// What to ask the script host for.
    pub(crate) fn request(&self, params: &BTreeMap<String, String>, backends: Vec<String>) -> LoadRequest {
        let own = format!("{}.", self.name);
        let mut chosen: BTreeMap<String, String> = params
            .iter()
            .filter(|(key, _)| !key.contains('.'))
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        for (key, value) in params {
            if let Some(key) = key.strip_prefix(&own) {
                chosen.insert(key.to_owned(), value.clone());
            }
        }
        LoadRequest {
            path: self.path(),
            name: self.name.clone(),
            source: match &self.origin {
                SourceOrigin::File(_) => None,
                SourceOrigin::Text(text) => Some(text.clone()),
            },
            params: chosen,
            backends,
        }
    }
}

impl Loop {
    /// Adds a source whose first load the engine has done already.
    pub(crate) fn add_source(&mut self, source: Source, loaded: LoadedFile, refused: Option<ScriptError>) {
        let index = self.insert_source(source);
        self.take_loaded(index, loaded);
        if let Some(error) = refused {
            self.refuse(index, error);
        }
    }

    fn insert_source(&mut self, mut source: Source) -> usize {
        // Numbers that no source before had, so that late answers and timers of an index's last owner are void.
        self.births += 1;
        source.serial = self.births << 32;
        source.round = self.births << 32;
        if let Some(index) = self.free_sources.pop() {
            self.sources[index] = Some(source);
            return index;
        }
        self.sources.push(Some(source));
        self.sources.len() - 1
    }

    /// A source by index, if it is still there.
    pub(super) fn source(&mut self, index: usize) -> Option<&mut Source> {
        self.sources.get_mut(index).and_then(Option::as_mut)
    }

    /// Where the source of that name is.
    pub(super) fn source_called(&self, name: &str) -> Option<usize> {
        self.sources.iter().position(|source| source.as_ref().is_some_and(|source| source.name == name))
    }

    /// Adds what the store knows: policies that wait for their file, and for now have none.
    pub(crate) fn add_stored(&mut self, name: PolicyName, record: PolicyRecord, ledger: Ledger) {
        let mut policy = self.new_policy(name, record, ledger);
        policy.ended = policy.ended.filter(|ended| ended.by != "retired");
        let (key, ids) = (self.policies.len(), policy.ledger.tasks().map(|task| task.id.clone()).collect::<Vec<_>>());
        self.names.insert(policy.name.clone(), key);
        for id in &ids {
            self.owners.insert(id.clone(), key);
        }
        self.policies.push(Some(policy));
        self.enter_count_backends(key);
        self.show_tasks(key, &ids);
        self.publish(key);
    }

    /// Once every source is in: their files are watched, and what has no file is retired.
    pub(crate) fn retire_leftovers(&mut self) {
        self.watch_files();
        for index in 0..self.sources.len() {
            self.tell_loaded(index);
        }
        let fleets: Vec<String> = self
            .sources
            .iter()
            .flatten()
            .filter(|source| source.fleet.is_some())
            .map(|source| format!("{}/", source.name))
            .collect();
        for key in 0..self.policies.len() {
            let Some(policy) = self.policy(key) else { continue };
            let loading = policy.is_loading();
            let row = fleets.iter().any(|fleet| policy.name.as_str().starts_with(fleet));
            if policy.active.is_none() && !loading && !row {
                self.retire(key, "its file is not among the policies of this run");
            }
            // What was over when the last run ended in between.
            self.forget_if_over(key);
        }
    }

    fn new_policy(&mut self, name: PolicyName, record: PolicyRecord, ledger: Ledger) -> Policy {
        let mut policy = Policy::new(name, record, ledger, JumpDetector::new(self.clock.wall(), self.clock.now()));
        // Numbers that no policy before had, so that late answers and timers of a key's last owner are void.
        self.births += 1;
        policy.serial = self.births << 32;
        policy.epoch = self.births << 32;
        policy
    }

    /// Reads a source again.
    pub(super) fn load(&mut self, index: usize) {
        let backends = self.backends.keys().cloned().collect();
        let Some(source) = self.sources.get_mut(index).and_then(Option::as_mut) else { return };
        source.serial += 1;
        let (serial, request, host) =
            (source.serial, source.request(&self.settings.params, backends), self.host.clone());
        self.spawn(async move {
            let (result, read) = host.load_noting(request).await;
            Event::Loaded { source: index, serial, result, read }
        });
    }

    pub(super) fn reload_all(&mut self) {
        for dir in self.settings.dirs.clone() {
            self.scan(&dir);
        }
        for index in 0..self.sources.len() {
            self.load(index);
        }
    }

    pub(super) fn on_loaded(
        &mut self,
        index: usize,
        serial: u64,
        result: Result<LoadedFile, Vec<ScriptError>>,
        read: Vec<ReadFile>,
    ) {
        let Some(source) = self.source(index).filter(|source| source.serial == serial) else { return };
        let known: Vec<PathBuf> = source.files().cloned().collect();
        source.note(read);
        if !source.files().eq(&known) {
            self.watch_files();
        }
        self.tell_loaded(index);
        match result {
            Ok(loaded) => self.take_loaded(index, loaded),
            Err(errors) => {
                let Some(source) = self.source(index) else { return };
                if let SourceOrigin::File(path) = &source.origin
                    && !path.exists()
                {
                    if source.missing.is_none() {
                        source.missing = Some(Instant::now());
                        self.timers.set(Instant::now() + RETIRE_AFTER, Timer::Retire(index));
                    }
                    return;
                }
                for error in errors.iter().skip(1) {
                    tracing::error!("{}", error.report());
                }
                if let Some(error) = errors.into_iter().next() {
                    self.refuse(index, error);
                }
            }
        }
    }

    /// The file on the disk is not used: say so, and go on with what runs.
    fn refuse(&mut self, index: usize, error: ScriptError) {
        self.totals.reloads_refused += 1;
        let error = Arc::new(error);
        let Some(source) = self.source(index) else { return };
        source.refused = Some(Arc::clone(&error));
        let name = PolicyName::from(source.name.as_str());
        let keys = self.policies_of(index);
        let generation = keys.first().and_then(|key| self.policy(*key)).map_or(0, |policy| policy.generation);
        tracing::error!(policy = %name, generation, "reload refused, generation {generation} goes on\n{}", error.report());
        for key in keys {
            if let Some(policy) = self.policy(key) {
                policy.refusal = Some(Arc::clone(&error));
            }
            self.publish(key);
        }
        self.tell(|| StreamEvent::Reload { policy: name, generation, error: Some(error) });
    }

    fn policies_of(&self, index: usize) -> Vec<usize> {
        (0..self.policies.len())
            .filter(|key| self.policies[*key].as_ref().is_some_and(|policy| policy.source == Some(index)))
            .collect()
    }

    /// A file has been compiled, checked and tried: hand its policies their new generation.
    fn take_loaded(&mut self, index: usize, loaded: LoadedFile) {
        self.garbage.note(Instant::now());
        let Some(source) = self.source(index) else { return };
        source.sha256 = loaded.sha256.as_str().into();
        source.params = Arc::new(loaded.params);
        source.refused = None;
        source.undiscovered = None;
        source.missing = None;
        let name = PolicyName::from(source.name.as_str());
        for warning in &loaded.warnings {
            tracing::warn!(policy = %source.name, "{warning}");
        }
        if let SourceOrigin::File(path) = &source.origin {
            let record = SourceRecord { sha256: loaded.sha256, source: loaded.source.to_string() };
            let write = Write::Source(path.display().to_string(), record);
            self.write(vec![write], false);
        }
        let Some(source) = self.source(index) else { return };
        match loaded.content {
            Content::Policy(policy) => {
                source.fleet = None;
                source.faults.clear();
                self.end_rows(index, |_| true);
                let Some(generation) = self.generation(index, policy) else { return };
                self.offer(index, &name, generation);
            }
            Content::Fleet(fleet) => {
                source.fleet = Some(fleet);
                source.discovering = false;
                source.round += 1;
                // A file that was a policy of its own name is none any more.
                let key = self.names.get(&name).copied();
                let runs = |key: &usize| {
                    self.policies[*key].as_ref().is_some_and(|policy| policy.active.is_some() || policy.is_loading())
                };
                if let Some(key) = key.filter(runs) {
                    self.end_gone(key, "its file is a fleet now, its tasks are kept", "its file is a fleet now");
                }
                self.discover(index);
            }
        }
    }

    fn generation(&mut self, index: usize, policy: LoadedPolicy) -> Option<Generation> {
        let source = self.source(index)?;
        Some(Generation {
            policy,
            path: source.path(),
            base: source.base(),
            sha256: Arc::clone(&source.sha256),
            params: Arc::clone(&source.params),
        })
    }

    /// Gives a policy (a new one, if there is none of this name) a generation to take over with.
    fn offer(&mut self, index: usize, name: &PolicyName, generation: Generation) -> usize {
        let key = if let Some(key) = self.names.get(name) {
            *key
        } else {
            let policy = self.new_policy(name.clone(), PolicyRecord::default(), Ledger::default());
            let key = if let Some(key) = self.free.pop() {
                self.policies[key] = Some(policy);
                key
            } else {
                self.policies.push(Some(policy));
                self.policies.len() - 1
            };
            self.names.insert(name.clone(), key);
            key
        };
        if let Some(policy) = self.policy(key) {
            policy.source = Some(index);
            policy.next = Some(Box::new(generation));
            if matches!(policy.phase, Phase::Idle) {
                self.begin_migration(key);
            }
        }
        key
    }

    /// Lets the waiting generation take over `ctx.state`.
    pub(super) fn begin_migration(&mut self, key: usize) {
        let Some(policy) = self.policy(key) else { return };
        let Some(next) = policy.next.take() else { return };
        let script = Arc::clone(&next.policy.script);
        let reload = policy.active.is_some();
        let state = policy.script().map_or_else(|| policy.script_state.clone(), |old| old.state());
        let serial = policy.next_serial();
        policy.phase = Phase::Migrating(next);
        self.spawn(async move {
            let result = script.restore(state.as_deref(), reload).await;
            Event::Migrated { key, serial, result }
        });
    }

    pub(super) fn on_migrated(&mut self, key: usize, serial: u64, result: Result<(), ScriptError>) {
        let now = Instant::now();
        let Some(policy) = self.policy(key) else { return };
        if policy.serial != serial {
            return;
        }
        let Phase::Migrating(next) = std::mem::replace(&mut policy.phase, Phase::Idle) else { return };
        let deferred = policy.deferred.take();
        let source = policy.source;
        match result {
            Ok(()) => self.take_over(key, *next, now),
            Err(error) => {
                if let Some(index) = source {
                    self.refuse(index, error);
                }
                self.forget_if_over(key);
            }
        }
        if self.policy(key).is_some_and(|policy| policy.next.is_some()) {
            if let Some(policy) = self.policy(key) {
                policy.deferred = deferred;
            }
            self.begin_migration(key);
        } else if let Some(due) = deferred {
            self.begin_tick_if_able(key, due);
        }
    }

    pub(super) fn begin_tick_if_able(&mut self, key: usize, due: Instant) {
        let able = self.policy(key).is_some_and(|policy| policy.active.is_some() && policy.ended.is_none());
        if able && self.stopping.is_none() && self.backend_ready(key) {
            self.begin_tick(key, due, Duration::ZERO);
        }
    }

    fn take_over(&mut self, key: usize, next: Generation, now: Instant) {
        let source = self.policy(key).and_then(|policy| policy.source);
        let refused = source.and_then(|index| self.source(index)).and_then(|source| source.refused.clone());
        let Some(policy) = self.policy(key) else { return };
        let first = policy.active.is_none();
        let had_ended = policy.ended.take();
        if had_ended.is_some() {
            policy.ledger.forgive();
        }
        let interval = policy.interval;
        policy.adopt(next, now);
        policy.refusal = refused;
        let faster = policy.interval != interval;
        let (name, generation) = (policy.name.clone(), policy.generation);
        if first {
            tracing::info!(policy = %name, generation, "policy started");
        } else {
            self.totals.reloads += 1;
            tracing::info!(policy = %name, generation, "reloaded");
        }
        let ids: Vec<_> = self
            .policy(key)
            .map(|policy| policy.ledger.tasks().map(|task| task.id.clone()).collect())
            .unwrap_or_default();
        for id in ids {
            self.owners.insert(id, key);
        }
        self.enter_count_backends(key);
        if let Some(backend) = self.policy(key).and_then(|policy| Some(policy.spec()?.workload.backend.clone())) {
            self.use_backend(&backend);
        }
        self.leave_backend(key);
        self.set_shadow(key);
        if first || had_ended.is_some() {
            let interval = self.policy(key).map_or(Duration::ZERO, |policy| policy.interval);
            let delay = first_delay(self.first_ticks, interval);
            self.first_ticks += 1;
            self.schedule(key, now + delay);
        } else if faster {
            let due = self.policy(key).map_or(now, |policy| policy.due.min(now + policy.interval));
            self.schedule(key, due);
        }
        self.announce(key, StreamEvent::Policy);
        self.tell(|| StreamEvent::Reload { policy: name, generation, error: None });
    }

    /// Starts a policy's schedule anew at `due`.
    pub(super) fn schedule(&mut self, key: usize, due: Instant) {
        let Some(policy) = self.policy(key) else { return };
        policy.epoch += 1;
        policy.awaiting = None;
        let epoch = policy.epoch;
        policy.due = due;
        self.timers.set(due, Timer::Tick(key, epoch));
        self.set_lapse(key);
    }

    /// Files that changed, or folders in which something did.
    pub(super) fn on_changed(&mut self, paths: &[PathBuf]) {
        for path in paths {
            if self.settings.dirs.contains(path) {
                self.scan(&path.clone());
            }
        }
        for index in 0..self.sources.len() {
            let touched = |source: &mut Source| source.files().any(|file| paths.contains(file));
            if self.source(index).is_some_and(touched) {
                self.load(index);
            }
        }
        self.shadows_changed(paths);
    }

    /// Starts sources for files of a folder that are not known yet.
    fn scan(&mut self, dir: &Path) {
        let files = match policy_files(dir) {
            Ok(files) => files,
            Err(error) => {
                tracing::warn!(folder = %dir.display(), error = %error, "cannot read the folder, what runs goes on");
                return;
            }
        };
        let mut found = false;
        for file in files {
            let origin = SourceOrigin::File(file.clone());
            if self.sources.iter().flatten().any(|source| source.origin == origin) {
                continue;
            }
            let name = stem(&file);
            // A file that has moved here from elsewhere does not stand against itself.
            if let Some(other) =
                self.sources.iter().flatten().find(|source| source.name == name && source.missing.is_none())
            {
                tracing::error!(file = %file.display(), other = %other.path().display(), "both give the policy name `{name}`, the new file is left out");
                continue;
            }
            let index = self.insert_source(Source::new(name, origin));
            self.load(index);
            found = true;
        }
        if found {
            // Also when they do not load: the next save may mend them.
            self.watch_files();
        }
    }

    /// Tells the watcher what to look at now.
    pub(super) fn watch_files(&mut self) {
        let Some(watch) = &self.watch else { return };
        let shadows = self.policies.iter().flatten().filter(|policy| policy.active.is_some());
        let shadows = shadows.filter_map(|policy| policy.shadow.as_ref()).flat_map(|shadow| shadow.read.keys());
        let files = self.sources.iter().flatten().flat_map(Source::files).chain(shadows).cloned().collect();
        watch.set(files, self.settings.dirs.clone());
    }

    /// Tells the watcher what a source's last load has read.
    fn tell_loaded(&self, index: usize) {
        let (Some(watch), Some(Some(source))) = (&self.watch, self.sources.get(index)) else { return };
        watch.loaded(source.read.iter().filter_map(|(path, look)| Some((path.clone(), (*look)?))).collect());
    }

    /// Five seconds after a file went: retire its policies unless it is back.
    pub(super) fn retire_if_gone(&mut self, index: usize) {
        let Some(source) = self.source(index) else { return };
        if source.missing.is_none_or(|since| Instant::now() < since + RETIRE_AFTER) {
            return;
        }
        source.missing = None;
        if let SourceOrigin::File(path) = &source.origin
            && path.exists()
        {
            self.load(index);
            return;
        }
        source.fleet = None;
        source.rows.clear();
        source.faults.clear();
        source.refused = None;
        for key in self.policies_of(index) {
            self.retire(key, "its file is gone");
        }
        self.forget_source(index);
        self.garbage.note(Instant::now());
    }

    /// Forgets a source whose file is gone, when its folder is watched: there it would be found anew. One that was named
    /// by itself stays, and so its file is looked out for.
    fn forget_source(&mut self, index: usize) {
        let Some(SourceOrigin::File(path)) = self.source(index).map(|source| source.origin.clone()) else { return };
        if !path.parent().is_some_and(|dir| self.settings.dirs.iter().any(|watched| watched == dir)) {
            return;
        }
        for policy in self.policies.iter_mut().flatten().filter(|policy| policy.source == Some(index)) {
            policy.source = None;
        }
        self.sources[index] = None;
        self.free_sources.push(index);
        // What is stored is of use only while there is a file that it may stand in for.
        self.write(vec![Write::RemoveSource(path.display().to_string())], false);
        self.watch_files();
    }

    /// No file any more: shown, tasks kept, nothing launched.
    fn retire(&mut self, key: usize, reason: &str) {
        let unplaced = self.unplaced(key);
        let Some(policy) = self.policy(key) else { return };
        if let Some(state) = policy.script().and_then(|script| script.state()) {
            policy.script_state = Some(state);
        }
        if let Some(shadow) = &mut policy.shadow {
            shadow.retire();
        }
        policy.halt();
        policy.active = None;
        policy.next = None;
        let by = if policy.ledger.is_empty() { "gone" } else { "retired" };
        policy.ended = Some(Ended { by: by.to_owned(), code: 0, reason: reason.to_owned() });
        policy.dirty = true;
        tracing::warn!(policy = %policy.name, tasks = policy.ledger.tasks().count(), "policy retired: {reason}");
        self.withdraw(key, &unplaced);
        self.announce(key, StreamEvent::Policy);
        self.forget_if_over(key);
    }

    /// It is time to look for a fleet's rows, if it is the fleet that still runs.
    pub(super) fn on_discover_due(&mut self, index: usize, round: u64) {
        if self.source(index).is_some_and(|source| source.round == round) {
            self.discover(index);
        }
    }

    /// Looks for a fleet's rows.
    pub(super) fn discover(&mut self, index: usize) {
        let stopping = self.stopping.is_some();
        let Some(source) = self.source(index) else { return };
        let Some(fleet) = source.fleet.clone() else { return };
        if std::mem::replace(&mut source.discovering, true) || stopping {
            return;
        }
        let limit = deadline(fleet.every());
        self.spawn(async move {
            let rows = fleet.discover(limit).await;
            Event::Discovered { source: index, fleet, rows }
        });
    }

    pub(super) fn on_discovered(
        &mut self,
        index: usize,
        fleet: &Arc<dyn Fleet>,
        rows: Result<Vec<FleetRow>, ScriptError>,
    ) {
        let current = |source: &&mut Source| source.fleet.as_ref().is_some_and(|current| Arc::ptr_eq(current, fleet));
        let Some(source) = self.sources.get_mut(index).and_then(Option::as_mut).filter(current) else { return };
        source.discovering = false;
        self.timers.set(Instant::now() + fleet.every(), Timer::Discover(index, source.round));
        let rows = match rows {
            Ok(rows) => rows,
            Err(error) => {
                // A discovery that fails keeps all rows.
                let kept = match source.rows.len() {
                    0 => "there are no rows yet, asked again soon".to_owned(),
                    n => format!("kept the rows that were known ({n})"),
                };
                if source.undiscovered.as_deref() == Some(&error) {
                    tracing::debug!(policy = %source.name, error = %error, held = %kept, "discovery failed, again");
                } else {
                    tracing::error!(policy = %source.name, "{}\n  {kept}", error.report());
                }
                source.undiscovered = Some(Arc::new(error));
                return;
            }
        };
        source.undiscovered = None;
        let names: BTreeSet<String> = rows.iter().map(|row| row.name.clone()).collect();
        source.faults.retain(|name, _| names.contains(name));
        for row in rows {
            self.take_row(index, row);
        }
        self.find_stored_rows(index);
        self.miss_rows(index, &names);
    }

    fn take_row(&mut self, index: usize, row: FleetRow) {
        let Some(source) = self.source(index) else { return };
        let name = PolicyName::from(format!("{}/{}", source.name, row.name).as_str());
        let loaded = match row.policy {
            Ok(loaded) => loaded,
            Err(error) => {
                let known = source.rows.get(&row.name).map(|row| row.key);
                let error = Arc::new(error);
                let before = source.faults.insert(row.name, Arc::clone(&error));
                if before.is_some_and(|before| before == error) {
                    tracing::debug!(policy = %name, error = %error, "the row is wrong, still");
                } else {
                    let kept =
                        if known.is_some() { "the version that runs goes on" } else { "nothing is launched for it" };
                    tracing::error!(policy = %name, "{}\n  {kept}", error.report());
                }
                if let Some(policy) = known.and_then(|key| self.policy(key)) {
                    policy.refusal = Some(error);
                }
                return;
            }
        };
        source.faults.remove(&row.name);
        let refused = source.refused.clone();
        let known = source.rows.get(&row.name).map(|row| row.key);
        let runs = |generation: &Generation| Arc::ptr_eq(&generation.policy.script, &loaded.script);
        let same = known.filter(|key| {
            self.policies[*key].as_ref().is_some_and(|policy| {
                let migrating = matches!(&policy.phase, Phase::Migrating(next) if runs(next));
                policy.active.as_ref().is_some_and(runs) || policy.next.as_deref().is_some_and(runs) || migrating
            })
        });
        let key = if let Some(key) = same {
            if let Some(policy) = self.policy(key) {
                policy.refusal = refused;
            }
            key
        } else {
            let Some(generation) = self.generation(index, loaded) else { return };
            self.offer(index, &name, generation)
        };
        if let Some(source) = self.source(index) {
            source.rows.insert(row.name, Row { key, misses: 0 });
        }
    }

    /// Rows of an earlier run that were not discovered are missing like any other.
    fn find_stored_rows(&mut self, index: usize) {
        let Some(source) = self.sources.get_mut(index).and_then(Option::as_mut) else { return };
        let prefix = format!("{}/", source.name);
        for (key, policy) in self.policies.iter().enumerate() {
            let Some(policy) = policy else { continue };
            let Some(row) = policy.name.as_str().strip_prefix(&prefix).map(str::to_owned) else { continue };
            if policy.source.is_none() && policy.active.is_none() && policy.ended.is_none() {
                source.rows.entry(row).or_insert(Row { key, misses: 0 });
            }
        }
    }

    /// Counts the rows that were not there this time; more than half at once needs more to agree.
    fn miss_rows(&mut self, index: usize, present: &BTreeSet<String>) {
        let Some(source) = self.source(index) else { return };
        let mut missing = 0;
        for (name, row) in &mut source.rows {
            if !present.contains(name) {
                row.misses += 1;
                missing += 1;
            }
        }
        if missing == 0 {
            source.doubt = 0;
        } else if source.rows.len() < missing * 2 {
            source.doubt = MISSES;
        }
        let needed = MISSES + source.doubt;
        self.end_rows(index, |row| needed <= row.misses);
    }

    /// Ends the rows that are over: their tasks are stopped or kept as `on_gone` says.
    fn end_rows(&mut self, index: usize, over: impl Fn(&Row) -> bool) {
        let Some(source) = self.source(index) else { return };
        let gone: Vec<(String, usize)> =
            source.rows.iter().filter(|(_, row)| over(row)).map(|(name, row)| (name.clone(), row.key)).collect();
        for (name, key) in gone {
            if let Some(source) = self.source(index) {
                source.rows.remove(&name);
            }
            self.end_gone(key, "its row is gone, its tasks are kept", &format!("row `{name}` is gone"));
        }
    }

    /// Ends a policy that is not there any more: its tasks are stopped or kept as `on_gone` says.
    fn end_gone(&mut self, key: usize, kept: &str, stopped: &str) {
        let Some(policy) = self.policy(key) else { return };
        if policy.spec().is_some_and(|spec| spec.workload.on_gone == crate::core::policy::OnEnd::Keep) {
            self.retire(key, kept);
            return;
        }
        policy.ended = None;
        self.end_policy(key, Ended { by: "gone".to_owned(), code: 0, reason: stopped.to_owned() });
    }
}

/// The policy files of a folder, in the order of their names: `*.lua` without the specs (`*_test.lua`).
pub(crate) fn policy_files(dir: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let lua = path.extension().is_some_and(|extension| extension == "lua");
        if lua && !name.ends_with("_test.lua") && !name.starts_with('.') && path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// A policy's name: its file's stem.
pub(crate) fn stem(path: &Path) -> String {
    path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default()
}
