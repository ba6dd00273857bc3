//! End-to-end checks: each record carries a digest, and a seal over all of them is written with every commit.
//!
//! The database checks its pages only after an unclean shutdown, and trusts them otherwise. The seal makes any
//! mixture of commits, any lost and any altered record show when the store is opened: what opens is exactly what
//! one commit wrote. Digests are truncated SHA-256: they stand against accidents, not against forgery.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Bytes of a digest in front of a stored value.
pub(super) const DIGEST_BYTES: usize = 16;

/// The newest schema that this version writes and reads.
pub(super) const SCHEMA: u32 = 1;

/// What each commit says of the whole store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Seal {
    /// Version of the records' layout.
    pub(super) schema: u32,
    /// Made up when the store was created.
    pub(super) id: String,
    /// Counts commits.
    pub(super) seq: u64,
    /// How many records there are.
    pub(super) records: u64,
    /// The exclusive or of their digests, in hex.
    pub(super) digest: String,
}

impl Seal {
    /// The exclusive or of the records' digests. Every seal in use has been held against its records, so it parses.
    pub(super) fn sum(&self) -> u128 {
        u128::from_str_radix(&self.digest, 16).unwrap_or_default()
    }
}

/// 128 bits over some byte strings, each with its length, so that none can borrow from its neighbour.
pub(super) fn short_digest(parts: &[&[u8]]) -> u128 {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    let full = hash.finalize();
    let mut short = [0; DIGEST_BYTES];
    short.copy_from_slice(&full[..DIGEST_BYTES]);
    u128::from_le_bytes(short)
}

/// A digest as the seal and the mark write it.
pub(super) fn to_hex(digest: u128) -> String {
    format!("{digest:032x}")
}

/// A value as it is stored: its digest, then its JSON.
pub(super) fn sealed(table: &str, key: &str, json: &[u8]) -> (u128, Vec<u8>) {
    let digest = short_digest(&[table.as_bytes(), key.as_bytes(), json]);
    let mut bytes = Vec::with_capacity(DIGEST_BYTES + json.len());
    bytes.extend_from_slice(&digest.to_le_bytes());
    bytes.extend_from_slice(json);
    (digest, bytes)
}

/// The digest and the JSON of a stored value; none when they do not belong together.
pub(super) fn unsealed<'a>(table: &str, key: &str, bytes: &'a [u8]) -> Option<(u128, &'a [u8])> {
    let (digest, json) = bytes.split_first_chunk::<DIGEST_BYTES>()?;
    let digest = u128::from_le_bytes(*digest);
    (digest == short_digest(&[table.as_bytes(), key.as_bytes(), json])).then_some((digest, json))
}
