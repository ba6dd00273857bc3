//! Loopback ports for servers that must have the same one again after a restart.
//!
//! They lie below those that the system gives to outgoing connections, so that none is taken while its server is down;
//! and each is reserved by a lock on a file, so that tests in other processes take others. What agents give to their tasks
//! are blocks of them, which lie below the single ones.

use std::fs::{self, File};
use std::net::TcpListener;
use std::ops::Range;

/// From where on, and how many.
const FIRST: u16 = 20_000;
const COUNT: u16 = 10_000;

/// The same of blocks, and how many ports each of them has.
const FIRST_BLOCK: u16 = 10_000;
const BLOCKS: u16 = 100;
const OF_BLOCK: u16 = 100;

/// A port that is the test's own until this is dropped.
#[derive(Debug)]
pub(crate) struct Port {
    number: u16,
    _lock: File,
}

impl Port {
    /// Reserves one.
    pub(crate) fn new() -> Self {
        for _ in 0..COUNT {
            let number = FIRST + fastrand::u16(..COUNT);
            if let Some(lock) = lock(&number.to_string())
                && is_free(number)
            {
                return Self { number, _lock: lock };
            }
        }
        panic!("no port from {FIRST} on is free");
    }

    pub(crate) const fn number(&self) -> u16 {
        self.number
    }
}

/// Ports in a row that are the test's own until this is dropped.
#[derive(Debug)]
pub(crate) struct PortBlock {
    first: u16,
    _lock: File,
}

impl PortBlock {
    /// Reserves one.
    pub(crate) fn new() -> Self {
        for _ in 0..BLOCKS * 10 {
            let first = FIRST_BLOCK + OF_BLOCK * fastrand::u16(..BLOCKS);
            if let Some(lock) = lock(&format!("block-{first}"))
                && (first..first + OF_BLOCK).all(is_free)
            {
                return Self { first, _lock: lock };
            }
        }
        panic!("no block of ports from {FIRST_BLOCK} on is free");
    }

    pub(crate) const fn range(&self) -> Range<u16> {
        self.first..self.first + OF_BLOCK
    }
}

/// A lock that no other test holds; none when one does.
fn lock(name: &str) -> Option<File> {
    let folder = std::env::temp_dir().join("setpoint-test-ports");
    fs::create_dir_all(&folder).unwrap();
    let lock = File::create(folder.join(name)).unwrap();
    lock.try_lock().is_ok().then_some(lock)
}

/// Whether nobody listens there: something else than a test, or what a test has left.
fn is_free(number: u16) -> bool {
    TcpListener::bind(("127.0.0.1", number)).is_ok()
}

#[test]
fn ports_are_different() {
    let ports: Vec<_> = (0..20).map(|_| Port::new()).collect();
    let numbers: std::collections::BTreeSet<_> = ports.iter().map(Port::number).collect();
    assert_eq!(numbers.len(), ports.len());
    let blocks: Vec<_> = (0..20).map(|_| PortBlock::new()).collect();
    let numbers: std::collections::BTreeSet<_> = blocks.iter().flat_map(PortBlock::range).collect();
    assert_eq!(numbers.len(), blocks.len() * usize::from(OF_BLOCK));
}
