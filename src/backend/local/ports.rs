//! Ports that tasks are given out of a range.
//!
//! Invariants: a port is in at most one [`Lease`]; a lease gives its ports back when it is dropped. A port that
//! some other program listens on is passed over. Between the probe and the task's own bind another program can
//! still take a port: the task then fails to bind, ends, and its successor gets the next one, because the
//! search goes on where it last stopped.

use std::collections::{BTreeMap, HashSet};
use std::net::{Ipv4Addr, TcpListener};
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A range of ports and which of them are in use.
#[derive(Debug)]
pub(super) struct Pool {
    range: RangeInclusive<u16>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    leased: HashSet<u16>,
    /// How far into the range the search goes on.
    next: usize,
}

/// The ports of one task, by name.
#[derive(Debug)]
pub(super) struct Lease {
    pool: Arc<Pool>,
    ports: BTreeMap<String, u16>,
}

impl Pool {
    pub(super) fn new(range: RangeInclusive<u16>) -> Arc<Self> {
        Arc::new(Self { range, state: Mutex::default() })
    }

    /// A free port for each name; none when the range has not as many left.
    pub(super) fn lease(self: &Arc<Self>, names: impl IntoIterator<Item = String>) -> Option<Lease> {
        // Ports found so far go back when a later one is missing, by dropping the lease.
        let mut lease = Lease { pool: Arc::clone(self), ports: BTreeMap::new() };
        for name in names {
            let port = self.take()?;
            if let Some(double) = lease.ports.insert(name, port) {
                self.lock().leased.remove(&double);
            }
        }
        Some(lease)
    }

    /// Marks the ports of a task that is running already.
    pub(super) fn adopt(self: &Arc<Self>, ports: BTreeMap<String, u16>) -> Lease {
        self.lock().leased.extend(ports.values());
        Lease { pool: Arc::clone(self), ports }
    }

    /// The range, for messages.
    pub(super) const fn range(&self) -> &RangeInclusive<u16> {
        &self.range
    }

    fn take(&self) -> Option<u16> {
        let mut state = self.lock();
        let len = self.range.len();
        for step in 0..len {
            let at = (state.next + step) % len;
            let port = *self.range.start() + at as u16;
            if !state.leased.contains(&port) && is_free(port) {
                state.leased.insert(port);
                state.next = at + 1;
                return Some(port);
            }
        }
        None
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lease {
    /// Name → number.
    pub(super) const fn ports(&self) -> &BTreeMap<String, u16> {
        &self.ports
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut state = self.pool.lock();
        for port in self.ports.values() {
            state.leased.remove(port);
        }
    }
}

fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

/// Ports as the text of one environment variable.
pub(super) fn to_text(ports: &BTreeMap<String, u16>) -> String {
    ports.iter().map(|(name, port)| format!("{name}={port}")).collect::<Vec<_>>().join(",")
}

/// The ports that [`to_text`] wrote; what is not one is left out.
pub(super) fn from_text(text: &str) -> BTreeMap<String, u16> {
    text.split(',')
        .filter_map(|entry| {
            let (name, port) = entry.rsplit_once('=')?;
            Some((name.to_owned(), port.parse().ok()?))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A range of `n` ports that nobody listens on right now.
    fn quiet_range(n: u16) -> RangeInclusive<u16> {
        (33_000..60_000)
            .step_by(usize::from(n))
            .map(|start| start..=start + n - 1)
            .find(|range| range.clone().all(is_free))
            .expect("some quiet ports")
    }

    #[test]
    fn ports_are_handed_out_once_and_come_back() {
        let range = quiet_range(4);
        let pool = Pool::new(range.clone());
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let one = pool.lease(names(&["http", "admin"])).unwrap();
        let adopted = pool.adopt(BTreeMap::from([("http".to_owned(), range.start() + 2)]));
        let last = pool.lease(names(&["http"])).unwrap();
        let mut all: Vec<u16> =
            [&one, &adopted, &last].iter().flat_map(|lease| lease.ports().values().copied()).collect();
        all.sort_unstable();
        assert_eq!(all, range.clone().collect::<Vec<_>>());
        assert!(pool.lease(names(&["http"])).is_none());
        drop(one);
        // What a lease found before it failed comes back as well.
        assert!(pool.lease(names(&["a", "b", "c"])).is_none());
        assert_eq!(pool.lease(names(&["a", "b"])).unwrap().ports().len(), 2);
        drop(last);
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, *range.end())).unwrap();
        for _ in 0..8 {
            let lease = pool.lease(names(&["http"])).unwrap();
            assert_ne!(lease.ports()["http"], taken.local_addr().unwrap().port());
        }
    }

    #[test]
    fn ports_survive_their_text() {
        let ports = BTreeMap::from([("http".to_owned(), 31_000), ("a=b".to_owned(), 1)]);
        assert_eq!(from_text(&to_text(&ports)), ports);
        assert_eq!(from_text("x,=,y=70000,z=1"), BTreeMap::from([("z".to_owned(), 1)]));
    }
}
