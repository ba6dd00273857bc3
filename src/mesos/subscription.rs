//! A scheduler's subscription as a pure state machine: inputs and the time go in, effects come out.
//!
//! ```text
//!                    leader known (or a list)
//!   ┌──────────┐ ─────────────────────────────► ┌────────────┐  SUBSCRIBED  ┌────────────┐
//!   │Detecting │                                │ Connecting │ ───────────► │ Subscribed │ ◄─┐ any event
//!   └──────────┘ ◄── no leader any more ──┐     └────────────┘              └────────────┘ ──┘
//!                                         │       │  ▲   ▲ │ redirected       │        │
//!                                         │ failed│  │   └─┘ (a few times)    │ broken,│ another leader:
//!                                         │       ▼  │ due, or a new leader   │ silent │ Connecting
//!                                       ┌────────────────┐ ◄──────────────────┘        │
//!                                       │    Waiting     │                             │
//!                                       └────────────────┘                             │
//!   any state ── 401, 403 and other refusals; an ERROR event ──► Ended                 ▼
//! ```
//!
//! - **Invariant:** there is at most one stream: `Subscribe` is never asked for before `Close` when one may be open.
//! - **Invariant:** a stream that lives is not dropped because ZooKeeper does not answer or has forgotten the leader, only
//!   because *another* master leads.
//! - **Invariant:** every state but `Detecting` and `Ended` has a deadline, so nothing waits for ever.

use std::time::Duration;

use reqwest::Url;

use super::address::redirected;

/// Path of the scheduler API.
pub(super) const PATH: &str = "/api/v1/scheduler";

/// Redirects that are followed before it counts as a failure.
const MOST_REDIRECTS: u32 = 4;

/// A stream that ends before this, or before a heartbeat was due if that is sooner, did not live: whoever cuts each at once
/// is asked less and less often. The first one that is lost after one that lived is asked for anew as soon as ever.
const SHORT: Duration = Duration::from_secs(5);

/// Masters that want more time between two heartbeats are not believed: a stream that died would never be missed.
const LONGEST_HEARTBEAT: Duration = Duration::from_secs(600);

/// How patient a subscription is.
#[derive(Clone, Debug, PartialEq)]
pub struct Patience {
    /// From the request to the SUBSCRIBED event.
    pub subscribe: Duration,
    /// As many heartbeats may be missing before the stream counts as dead.
    pub missed_heartbeats: u32,
    /// What a master that names none is taken to send heartbeats at.
    pub heartbeat: Duration,
    /// The first pause after every candidate has failed; it doubles.
    pub backoff_first: Duration,
    /// The longest pause.
    pub backoff_most: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            subscribe: Duration::from_secs(10),
            missed_heartbeats: 5,
            heartbeat: Duration::from_secs(15),
            backoff_first: Duration::from_millis(250),
            backoff_most: Duration::from_secs(5),
        }
    }
}

/// Where the subscription stands.
#[derive(Clone, Debug, PartialEq)]
pub enum State {
    /// No leader is known.
    Detecting,
    /// Pausing before the next attempt.
    Waiting {
        /// When it goes on.
        until: Duration,
    },
    /// SUBSCRIBE is on its way.
    Connecting {
        /// To whom.
        master: Url,
        /// When that is given up.
        until: Duration,
    },
    /// The stream lives.
    Subscribed {
        /// With whom.
        master: Url,
        /// Between two heartbeats.
        heartbeat: Duration,
        /// When it counts as dead, unless something is heard before.
        until: Duration,
    },
    /// It is over.
    Ended,
}

/// What happens to a subscription.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// Begin.
    Start,
    /// ZooKeeper says who leads, or that nobody does.
    Leader(Option<Url>),
    /// The answer to SUBSCRIBE was a redirect to this `Location`.
    Redirected(String),
    /// The answer was an error.
    Refused {
        /// The HTTP status.
        status: u16,
        /// In words.
        what: String,
    },
    /// The SUBSCRIBED event.
    Subscribed {
        /// Between two heartbeats, where the master says.
        heartbeat: Option<Duration>,
    },
    /// Any other event.
    Heard,
    /// The ERROR event.
    Error(String),
    /// The connection could not be made, broke, ended, or carried nonsense.
    Lost(String),
    /// The deadline is there.
    Due,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Send SUBSCRIBE to this master.
    Subscribe(Url),
    /// Drop the connection that SUBSCRIBE went over.
    Close,
    /// Tell that the stream is lost, and why.
    Lost(String),
    /// Tell that an attempt has failed, and why.
    Failed(String),
    /// Tell that it is over, and why.
    End(End),
}

/// Why a subscription is over for good.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum End {
    /// The master refused it: 401 and 403 mean the credentials.
    #[error("{what}")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// In words.
        what: String,
    },
    /// The master ended it by an ERROR event: the framework is torn down, not authorised, or subscribed elsewhere.
    #[error("the master ended the subscription: {0}")]
    Error(String),
    /// It was stopped from here.
    #[error("stopped")]
    Stopped,
}

/// The masters that may be asked.
#[derive(Clone, Debug)]
enum Candidates {
    List { urls: Vec<Url>, next: usize },
    Detected(Option<Url>),
}

/// A subscription. Time is counted from any beginning, forwards.
#[derive(Clone, Debug)]
pub struct Subscription {
    state: State,
    candidates: Candidates,
    patience: Patience,
    /// Failed attempts since the last subscription.
    failures: u32,
    /// When the last stream was subscribed.
    since: Duration,
    /// Streams in a row that did not live.
    short: u32,
    redirects: u32,
    random: fastrand::Rng,
}

impl Subscription {
    /// One that tries these masters in turn. An empty list never gets anywhere.
    pub fn with_list(urls: Vec<Url>, patience: Patience, seed: u64) -> Self {
        Self::new(Candidates::List { urls, next: 0 }, patience, seed)
    }

    /// One that waits to be told who leads.
    pub fn with_detection(patience: Patience, seed: u64) -> Self {
        Self::new(Candidates::Detected(None), patience, seed)
    }

    fn new(candidates: Candidates, patience: Patience, seed: u64) -> Self {
        let random = fastrand::Rng::with_seed(seed);
        let (state, since) = (State::Detecting, Duration::ZERO);
        Self { state, candidates, patience, failures: 0, since, short: 0, redirects: 0, random }
    }

    /// Where it stands.
    pub const fn state(&self) -> &State {
        &self.state
    }

    /// When [`Input::Due`] is to come.
    pub const fn deadline(&self) -> Option<Duration> {
        match &self.state {
            State::Detecting | State::Ended => None,
            State::Waiting { until } | State::Connecting { until, .. } | State::Subscribed { until, .. } => {
                Some(*until)
            }
        }
    }

    /// Takes one step.
    pub fn step(&mut self, now: Duration, input: Input) -> Vec<Effect> {
        match input {
            _ if self.state == State::Ended => Vec::new(),
            Input::Start => self.attempt(now),
            Input::Leader(leader) => self.leader(now, leader),
            Input::Redirected(location) => self.redirected(now, &location),
            Input::Refused { status, what } if is_final(status) => self.end(End::Refused { status, what }),
            Input::Refused { what, .. } | Input::Lost(what) => self.lost(now, what),
            Input::Subscribed { heartbeat } => self.subscribed(now, heartbeat),
            Input::Heard => self.heard(now),
            Input::Error(message) => self.end(End::Error(message)),
            Input::Due => self.due(now),
        }
    }

    fn leader(&mut self, now: Duration, leader: Option<Url>) -> Vec<Effect> {
        let Candidates::Detected(known) = &mut self.candidates else { return Vec::new() };
        known.clone_from(&leader);
        match (&self.state, leader) {
            (State::Subscribed { .. }, None) => Vec::new(),
            (State::Subscribed { master, .. } | State::Connecting { master, .. }, Some(leader))
                if *master == leader =>
            {
                Vec::new()
            }
            (State::Subscribed { .. }, Some(leader)) => {
                let mut effects = vec![Effect::Close, Effect::Lost(format!("{leader} leads now"))];
                effects.extend(self.fresh_attempt(now));
                effects
            }
            (State::Connecting { .. }, Some(_)) => {
                let mut effects = vec![Effect::Close];
                effects.extend(self.fresh_attempt(now));
                effects
            }
            (State::Connecting { .. }, None) => {
                self.state = State::Detecting;
                vec![Effect::Close]
            }
            (_, Some(_)) => self.fresh_attempt(now),
            (_, None) => {
                self.state = State::Detecting;
                Vec::new()
            }
        }
    }

    fn redirected(&mut self, now: Duration, location: &str) -> Vec<Effect> {
        let State::Connecting { master, .. } = &self.state else { return Vec::new() };
        if self.redirects >= MOST_REDIRECTS {
            return self.lost(now, format!("{master} redirected once more, to `{location}`"));
        }
        match redirected(master, PATH, location) {
            Ok(leader) if leader == *master => self.lost(now, format!("{master} redirected to itself")),
            Ok(leader) => {
                self.redirects += 1;
                let mut effects = vec![Effect::Close];
                effects.extend(self.connect(now, leader));
                effects
            }
            Err(problem) => {
                let what = format!("{master} redirected to `{location}`, {problem}");
                self.lost(now, what)
            }
        }
    }

    fn subscribed(&mut self, now: Duration, heartbeat: Option<Duration>) -> Vec<Effect> {
        let (master, since) = match &self.state {
            State::Connecting { master, .. } => (master.clone(), now),
            State::Subscribed { master, .. } => (master.clone(), self.since),
            State::Detecting | State::Waiting { .. } | State::Ended => return Vec::new(),
        };
        let heartbeat = heartbeat.filter(|interval| !interval.is_zero()).unwrap_or(self.patience.heartbeat);
        let heartbeat = heartbeat.min(LONGEST_HEARTBEAT);
        let until = now.saturating_add(heartbeat.saturating_mul(self.patience.missed_heartbeats.max(1)));
        self.state = State::Subscribed { master, heartbeat, until };
        self.since = since;
        self.failures = 0;
        Vec::new()
    }

    fn heard(&mut self, now: Duration) -> Vec<Effect> {
        if let State::Subscribed { heartbeat, until, .. } = &mut self.state {
            *until = now.saturating_add(heartbeat.saturating_mul(self.patience.missed_heartbeats.max(1)));
        }
        Vec::new()
    }

    fn due(&mut self, now: Duration) -> Vec<Effect> {
        if self.deadline().is_none_or(|until| now < until) {
            return Vec::new();
        }
        match &self.state {
            State::Waiting { .. } => self.attempt(now),
            State::Connecting { master, .. } => {
                let what = format!("{master}: expected SUBSCRIBED within {:?}, got none", self.patience.subscribe);
                self.lost(now, what)
            }
            State::Subscribed { master, heartbeat, .. } => {
                let missed = self.patience.missed_heartbeats.max(1);
                let what = format!("{master}: nothing heard for {missed} heartbeats of {heartbeat:?}");
                self.lost(now, what)
            }
            State::Detecting | State::Ended => Vec::new(),
        }
    }

    /// The attempt, or the stream, is over; the next one comes after a pause.
    fn lost(&mut self, now: Duration, what: String) -> Vec<Effect> {
        let (tell, rounds) = match &self.state {
            State::Subscribed { heartbeat, .. } => {
                let is_short = now.saturating_sub(self.since) < SHORT.min(*heartbeat);
                self.short = if is_short { self.short.saturating_add(1) } else { 0 };
                (Effect::Lost(what), self.short.saturating_sub(1))
            }
            State::Connecting { .. } => {
                if let Candidates::List { urls, next } = &mut self.candidates {
                    *next = (*next + 1) % urls.len().max(1);
                }
                self.failures = self.failures.saturating_add(1);
                (Effect::Failed(what), self.rounds())
            }
            State::Detecting | State::Waiting { .. } | State::Ended => return Vec::new(),
        };
        self.state = State::Waiting { until: now.saturating_add(self.pause(rounds)) };
        vec![Effect::Close, tell]
    }

    fn end(&mut self, end: End) -> Vec<Effect> {
        self.state = State::Ended;
        vec![Effect::Close, Effect::End(end)]
    }

    fn fresh_attempt(&mut self, now: Duration) -> Vec<Effect> {
        (self.failures, self.short) = (0, 0);
        self.attempt(now)
    }

    fn attempt(&mut self, now: Duration) -> Vec<Effect> {
        self.redirects = 0;
        let candidate = match &self.candidates {
            Candidates::List { urls, next } => urls.get(*next).cloned(),
            Candidates::Detected(leader) => leader.clone(),
        };
        if let Some(master) = candidate {
            return self.connect(now, master);
        }
        self.state = State::Detecting;
        Vec::new()
    }

    fn connect(&mut self, now: Duration, master: Url) -> Vec<Effect> {
        let until = now.saturating_add(self.patience.subscribe);
        self.state = State::Connecting { master: master.clone(), until };
        vec![Effect::Subscribe(master)]
    }

    /// How often every candidate has failed in a row; none while there are some that have not been asked this time.
    fn rounds(&self) -> u32 {
        let among = match &self.candidates {
            Candidates::List { urls, .. } => u32::try_from(urls.len().max(1)).unwrap_or(u32::MAX),
            Candidates::Detected(_) => 1,
        };
        if self.failures.is_multiple_of(among) { self.failures / among } else { 0 }
    }

    /// Short at first, then growing with each round. Half of it is drawn, so that many schedulers that lost one master do
    /// not all come back at once.
    fn pause(&mut self, rounds: u32) -> Duration {
        let whole = match rounds.checked_sub(1) {
            None => self.patience.backoff_first / 4,
            Some(doublings) => {
                let factor = 1_u32.checked_shl(doublings).unwrap_or(u32::MAX);
                self.patience.backoff_first.saturating_mul(factor).min(self.patience.backoff_most)
            }
        };
        whole.mul_f64(0.5 + 0.5 * self.random.f64())
    }
}

/// Whether asking again would only get the same answer.
const fn is_final(status: u16) -> bool {
    matches!(status, 400 | 401 | 403 | 405 | 406 | 411 | 415)
}

#[cfg(test)]
mod tests;
