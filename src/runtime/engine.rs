//! Starting an engine, and holding it while it runs.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::backend::Backend;
use crate::core::ledger::{Ledger, Task};
use crate::core::model::PolicyName;
use crate::log::DecisionLog;
use crate::script::{LoadedFile, Param, ScriptError, ScriptHost};

use super::backend_worker::{BackendWorker, QUEUE, Queues};
use super::clock::Clock;
use super::config::{EngineConfig, PolicySource, RunEnd, Signal, StartError};
use super::control_loop::{Loop, LoopParts, Settings, Source, SourceOrigin, nearest, policy_files, stem};
use super::event::Event;
use super::handle::{EngineHandle, Published};
use super::record::{SourceRecord, Stored};
use super::store::Store;
use super::watch::Watch;

/// How many events may wait for the loop.
const INBOX: usize = 16_384;

/// A running engine. Dropping it does not stop it; [`Engine::run`] or [`Engine::stop`] do.
#[derive(Debug)]
pub struct Engine {
    handle: EngineHandle,
    events: mpsc::Sender<Event>,
    running: JoinHandle<RunEnd>,
}

impl Engine {
    /// Loads every policy, opens the state folder, and sets everything going. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// Bad policies (all of them are reported), paths, parameters, a locked or corrupt state folder. Nothing has
    /// been launched then.
    pub async fn start(config: EngineConfig) -> Result<Self, StartError> {
        let (sources, dirs) = expand(&config.sources)?;
        let (store, mut stored) = match &config.state_dir {
            Some(dir) => {
                let (store, stored) = Store::open(dir)?;
                (Some(store), stored)
            }
            None => (None, Stored::default()),
        };
        let host = ScriptHost::new(
            config.limits.clone(),
            config.permissions.clone(),
            config.natives.clone(),
            tokio::runtime::Handle::current(),
            config.script_threads,
        )
        .map_err(StartError::Threads)?
        .naming_params(config.param_origins.clone());
        let host = match config.containers.clone() {
            Some(containers) => host.with_containers(containers),
            None => host,
        };
        let host = match config.cluster.clone() {
            Some(cluster) => host.with_cluster(cluster),
            None => host,
        };
        let loaded = load_all(&host, &config, sources, &stored.sources).await?;
        let declared = loaded.iter().map(|(source, file, _)| (source.name.as_str(), file.params.as_slice()));
        check_params(config.params.keys(), declared, &config.param_origins)?;

        let log = config.decision_log.clone().map(DecisionLog::open).transpose()?;

        let (events, inbox) = mpsc::channel(INBOX);
        let (update_sender, updates) = mpsc::channel(INBOX);
        let (command_sender, commands) = mpsc::channel(256);
        let published = Arc::new(Published::default());
        let watch = if config.watch {
            Some(Watch::start(config.poll, events.clone()).map_err(StartError::Threads)?)
        } else {
            None
        };
        let mut control_loop = Loop::new(LoopParts {
            host,
            store,
            log,
            clock: Clock::start(stored.clock),
            queues: start_workers(&config.backends, &events),
            backends: config.backends,
            published: Arc::clone(&published),
            events: events.clone(),
            updates: update_sender,
            watch,
            settings: Settings {
                params: config.params,
                dry_run: config.dry_run,
                keep_tasks: config.state_dir.is_some() && !config.stop_tasks,
                exit_on_stop: config.exit_on_stop,
                budget: config.budget,
                run_for: config.run_for,
                dirs,
            },
        });
        hand_over(&mut control_loop, &mut stored, loaded);
        let handle = EngineHandle::new(published, command_sender);
        let running = tokio::spawn(control_loop.run(inbox, updates, commands));
        Ok(Self { handle, events, running })
    }

    /// A handle to look at it and tell it things.
    #[must_use]
    pub fn handle(&self) -> EngineHandle {
        self.handle.clone()
    }

    /// Runs until it ends by itself or `signals` end it. A `signals` channel that is closed sends nothing any more.
    pub async fn run(mut self, mut signals: mpsc::Receiver<Signal>) -> RunEnd {
        let mut listening = true;
        loop {
            tokio::select! {
                end = &mut self.running => return ended(end),
                signal = signals.recv(), if listening => match signal {
                    // The loop has ended when nobody takes the event; the other arm says how.
                    Some(signal) => { self.events.send(Event::Signal(signal)).await.ok(); }
                    None => listening = false,
                },
            }
        }
    }

    /// Stops in good order and waits for the end.
    pub async fn stop(self) -> RunEnd {
        self.events.send(Event::Signal(Signal::Drain)).await.ok();
        ended(self.running.await)
    }
}

fn ended(end: Result<RunEnd, tokio::task::JoinError>) -> RunEnd {
    end.unwrap_or_else(|error| {
        tracing::error!(error = %error, "the control loop ended");
        RunEnd { code: 70, reason: format!("the control loop ended: {error}") }
    })
}

/// Finds the files of all sources; nothing may give the same name twice.
fn expand(sources: &[PolicySource]) -> Result<(Vec<Source>, Vec<PathBuf>), StartError> {
    let (mut found, mut dirs) = (Vec::new(), Vec::new());
    for source in sources {
        match source {
            PolicySource::File(path) => {
                std::fs::metadata(path).map_err(|source| StartError::Path { path: path.clone(), source })?;
                found.push(Source::new(stem(path), SourceOrigin::File(path.clone())));
            }
            PolicySource::Dir(dir) => {
                let files = policy_files(dir).map_err(|source| StartError::Path { path: dir.clone(), source })?;
                if files.is_empty() {
                    return Err(StartError::EmptyFolder(dir.clone()));
                }
                found.extend(files.into_iter().map(|path| Source::new(stem(&path), SourceOrigin::File(path))));
                dirs.push(dir.clone());
            }
            PolicySource::Text { name, source } => {
                found.push(Source::new(name.clone(), SourceOrigin::Text(source.clone())));
            }
        }
    }
    let mut names: BTreeMap<String, PathBuf> = BTreeMap::new();
    for source in &found {
        if let Some(first) = names.insert(source.name.clone(), source.path()) {
            return Err(StartError::DuplicateName { name: source.name.clone(), first, second: source.path() });
        }
    }
    Ok((found, dirs))
}

/// A source that is loaded, and why its file is not what was loaded, if so.
type Loaded = (Source, LoadedFile, Option<ScriptError>);

/// Loads every source side by side. A bad file stands aside for the last good text of the store.
async fn load_all(
    host: &ScriptHost,
    config: &EngineConfig,
    sources: Vec<Source>,
    stored: &BTreeMap<String, SourceRecord>,
) -> Result<Vec<Loaded>, StartError> {
    let backends: Vec<String> = config.backends.keys().cloned().collect();
    let mut loads: FuturesUnordered<_> = sources
        .into_iter()
        .enumerate()
        .map(|(index, source)| {
            let request = source.request(&config.params, backends.clone());
            let good = stored.get(&request.path.display().to_string()).map(|record| record.source.clone());
            async move {
                let (result, read) = host.load_noting(request.clone()).await;
                let mut source = source;
                source.note(read);
                let errors = match result {
                    Ok(loaded) => return (index, Ok((source, loaded, None))),
                    Err(errors) => errors,
                };
                let Some(good) = good else { return (index, Err(errors)) };
                let mut request = request;
                request.source = Some(good);
                match host.load(request).await {
                    Ok(loaded) => (index, Ok((source, loaded, errors.into_iter().next()))),
                    Err(_) => (index, Err(errors)),
                }
            }
        })
        .collect();
    let (mut loaded, mut errors) = (BTreeMap::new(), BTreeMap::new());
    while let Some((index, result)) = loads.next().await {
        match result {
            Ok(source) => drop(loaded.insert(index, source)),
            Err(of_file) => drop(errors.insert(index, of_file)),
        }
    }
    if errors.is_empty() {
        Ok(loaded.into_values().collect())
    } else {
        Err(StartError::Policies(errors.into_values().flatten().collect()))
    }
}

/// Every parameter that was set (`key`, or `NAME.key`) must be declared by somebody; `declared` are the policies' names
/// with what they declare, `origins` says who set what.
///
/// # Errors
/// [`StartError::UnknownParam`], for the first that nobody declares.
pub fn check_params<'a, 'b>(
    set: impl IntoIterator<Item = &'b String>,
    declared: impl IntoIterator<Item = (&'a str, &'a [Param])>,
    origins: &BTreeMap<String, String>,
) -> Result<(), StartError> {
    let names = |(policy, params): (&str, &'a [Param])| {
        let own = policy.to_owned();
        params.iter().flat_map(move |param| [param.name.clone(), format!("{own}.{}", param.name)])
    };
    let declared: BTreeSet<String> = declared.into_iter().flat_map(names).collect();
    match set.into_iter().find(|key| !declared.contains(*key)) {
        None => Ok(()),
        Some(key) => Err(StartError::UnknownParam {
            key: key.clone(),
            origin: origins.get(key).cloned(),
            near: nearest(key, declared.iter().map(String::as_str)),
        }),
    }
}

fn start_workers(backends: &BTreeMap<String, Backend>, events: &mpsc::Sender<Event>) -> Queues {
    let mut queues = Queues::new();
    for (name, backend) in backends {
        let Backend::Tasks(backend) = backend else { continue };
        let (sender, queue) = mpsc::channel(QUEUE);
        let worker = BackendWorker { name: name.clone(), backend: Arc::clone(backend), events: events.clone() };
        let watched = tokio::spawn(worker.run(queue));
        let (worker_name, events) = (format!("backend {name}"), events.clone());
        tokio::spawn(async move {
            if let Err(error) = watched.await {
                // The loop has ended when nobody takes the event.
                events.send(Event::WorkerDied { name: worker_name, reason: error.to_string() }).await.ok();
            }
        });
        queues.insert(name.clone(), sender);
    }
    queues
}

/// Gives the loop what the store knew and what was loaded.
fn hand_over(control_loop: &mut Loop, stored: &mut Stored, loaded: Vec<Loaded>) {
    let mut tasks: BTreeMap<PolicyName, Vec<Task>> = BTreeMap::new();
    for task in std::mem::take(&mut stored.tasks).into_values() {
        tasks.entry(task.policy.clone()).or_default().push(task);
    }
    let mut policies = std::mem::take(&mut stored.policies);
    for name in tasks.keys() {
        policies.entry(name.clone()).or_default();
    }
    for (name, record) in policies {
        let ledger = Ledger::restore(record.ledger.clone(), tasks.remove(&name).unwrap_or_default());
        control_loop.add_stored(name, record, ledger);
    }
    for (source, file, refused) in loaded {
        control_loop.add_source(source, file, refused);
    }
    control_loop.retire_leftovers();
}
