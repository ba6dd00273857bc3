//! Who is on an engine: its list of containers, asked for again only when something has happened to one.
//!
//! A list of some hundred containers costs an engine more than all of their figures, so it is not asked for at every
//! tick. The event stream says when to; while there is no stream that can be relied on, every look is a fresh list.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use futures_util::StreamExt as _;
use tokio::time::Instant;

use super::engine::Engine;
use super::error::EngineError;
use super::events::EventFilter;
use super::inspect::Listed;

/// Events after which the list may be another one.
const ACTIONS: &[&str] = &["create", "start", "die", "destroy", "rename", "pause", "unpause", "restart"];

/// How long after the stream's beginning events may still be missed: the engine has yet to take the request in.
const SETTLING: Duration = Duration::from_secs(2);

/// How old a list may be, whatever the events say.
const OLDEST: Duration = Duration::from_secs(60);

/// How long an answer counts as a sign of life. An engine that hangs sends no events and ends no stream.
const ALIVE: Duration = Duration::from_secs(2);

/// Between two attempts to listen.
const AGAIN: Duration = Duration::from_secs(1);

/// How long after the last look the engine is listened to.
const INTEREST: Duration = Duration::from_secs(600);

/// The containers of one engine.
pub(super) struct Roster {
    engine: Engine,
    shared: Arc<Shared>,
    /// One list at a time: who comes meanwhile takes the same.
    turn: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct Shared {
    /// Something has happened since the last list was asked for.
    changed: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    list: Option<(Instant, Arc<Vec<Listed>>)>,
    /// Since when events come.
    listening: Option<Instant>,
    listener: bool,
    looked: Option<Instant>,
    answered: Option<Instant>,
}

impl Roster {
    pub(super) fn new(engine: Engine) -> Self {
        Self { engine, shared: Arc::default(), turn: tokio::sync::Mutex::new(()) }
    }

    /// Every container, by name; also those that do not run.
    pub(super) async fn look(&self) -> Result<Arc<Vec<Listed>>, EngineError> {
        self.listen();
        let _turn = self.turn.lock().await;
        if let Some((list, is_alive)) = self.shared.current() {
            if !is_alive {
                let asked = Instant::now();
                self.engine.ping().await?;
                self.shared.state().answered = Some(asked);
            }
            return Ok(list);
        }
        self.shared.changed.store(false, Ordering::Release);
        let asked = Instant::now();
        let mut list = self.engine.list(&[], true).await?;
        list.sort_by(|a, b| a.name.cmp(&b.name));
        let list = Arc::new(list);
        let mut state = self.shared.state();
        state.list = Some((asked, Arc::clone(&list)));
        state.answered = Some(asked);
        Ok(list)
    }

    fn listen(&self) {
        let mut state = self.shared.state();
        state.looked = Some(Instant::now());
        if !std::mem::replace(&mut state.listener, true) {
            tokio::spawn(listen(self.engine.clone(), Arc::downgrade(&self.shared)));
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The last list, if nothing can have happened since, and whether the engine answered a moment ago.
    fn current(&self) -> Option<(Arc<Vec<Listed>>, bool)> {
        let state = self.state();
        let (asked, list) = state.list.as_ref()?;
        let heard_all = state.listening.is_some_and(|since| since + SETTLING <= *asked);
        let is_young = asked.elapsed() < OLDEST;
        let is_alive = state.answered.is_some_and(|answered| answered.elapsed() < ALIVE);
        (heard_all && is_young && !self.changed.load(Ordering::Acquire)).then(|| (Arc::clone(list), is_alive))
    }

    fn set_listening(&self, since: Option<Instant>) {
        self.state().listening = since;
    }

    /// Whether nobody has looked for long; then there is no listener any more.
    fn is_forgotten(&self) -> bool {
        let mut state = self.state();
        let forgotten = state.looked.is_none_or(|looked| looked.elapsed() > INTEREST);
        if forgotten {
            (state.listener, state.listening) = (false, None);
        }
        forgotten
    }
}

/// Notes what happens on the engine, until nobody is interested any more.
async fn listen(engine: Engine, shared: Weak<Shared>) {
    let filter = EventFilter { labels: Vec::new(), actions: ACTIONS.iter().map(|&action| action.to_owned()).collect() };
    loop {
        if let Ok(mut events) = engine.events(&filter).await {
            let Some(known) = shared.upgrade() else { return };
            known.set_listening(Some(Instant::now()));
            drop(known);
            loop {
                let event = tokio::time::timeout(OLDEST, events.next()).await;
                let Some(known) = shared.upgrade() else { return };
                match event {
                    Ok(Some(Ok(_))) => known.changed.store(true, Ordering::Release),
                    Ok(_) => break known.set_listening(None),
                    Err(_) if known.is_forgotten() => return,
                    Err(_) => {}
                }
            }
        }
        tokio::time::sleep(AGAIN).await;
        match shared.upgrade() {
            Some(known) if !known.is_forgotten() => {}
            _ => return,
        }
    }
}
