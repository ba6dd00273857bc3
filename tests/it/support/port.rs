//! Loopback ports for servers that must have the same one again after a restart.
//!
//! They lie below those that the system gives to outgoing connections, so that none is taken while its server is down;
//! and each is reserved by a lock on a file, so that tests in other processes take others.

use std::fs::{self, File};
use std::net::TcpListener;

/// From where on, and how many.
const FIRST: u16 = 20_000;
const COUNT: u16 = 10_000;

/// A port that is the test's own until this is dropped.
#[derive(Debug)]
pub(crate) struct Port {
    number: u16,
    _lock: File,
}

impl Port {
    /// Reserves one.
    pub(crate) fn new() -> Self {
        let folder = std::env::temp_dir().join("setpoint-test-ports");
        fs::create_dir_all(&folder).unwrap();
        for _ in 0..COUNT {
            let number = FIRST + fastrand::u16(..COUNT);
            let lock = File::create(folder.join(number.to_string())).unwrap();
            if lock.try_lock().is_ok() && TcpListener::bind(("127.0.0.1", number)).is_ok() {
                return Self { number, _lock: lock };
            }
        }
        panic!("no port from {FIRST} on is free");
    }

    pub(crate) const fn number(&self) -> u16 {
        self.number
    }
}

#[test]
fn ports_are_different() {
    let ports: Vec<_> = (0..20).map(|_| Port::new()).collect();
    let numbers: std::collections::BTreeSet<_> = ports.iter().map(Port::number).collect();
    assert_eq!(numbers.len(), ports.len());
}
