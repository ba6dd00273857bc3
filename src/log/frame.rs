//! Records in a row of bytes: a mark, the length, a checksum, the record.
//!
//! ```text
//!   d1 0c │ length, u32 LE │ CRC-32 of length and payload, u32 LE │ payload
//! ```
//!
//! Invariant: whatever the bytes, reading ends and gives every whole record; none is given that does not match its
//! checksum.

use memchr::memmem;

/// What a file begins with: a name and the version of the format.
pub(super) const MAGIC: &[u8] = b"setpoint decisions 1\n";

/// A longer record is none of ours.
pub(super) const MAX_RECORD: usize = 16 << 20;

const MARK: [u8; 2] = [0xd1, 0x0c];
const HEAD: usize = 10;

/// What comes next in a row of bytes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next<'a> {
    /// A record, and where the next one begins.
    Record(&'a [u8], usize),
    /// Nothing that could be a record up to here, where there is one again.
    Damaged(usize),
    /// The rest is not a whole record, and none comes after it.
    Torn,
    /// Nothing is left.
    End,
}

/// Appends a record; false when it is too long to be one.
pub(super) fn push(out: &mut Vec<u8>, payload: &[u8]) -> bool {
    let length = match u32::try_from(payload.len()) {
        Ok(length) if payload.len() <= MAX_RECORD => length.to_le_bytes(),
        _ => return false,
    };
    out.extend_from_slice(&MARK);
    out.extend_from_slice(&length);
    out.extend_from_slice(&checksum(length, payload).to_le_bytes());
    out.extend_from_slice(payload);
    true
}

/// Reads what begins at `at`.
pub(super) fn next(bytes: &[u8], at: usize) -> Next<'_> {
    let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) else { return Next::End };
    if let Some(payload) = whole(rest) {
        return Next::Record(payload, at + HEAD + payload.len());
    }
    let found = memmem::find_iter(&rest[1..], &MARK).find(|offset| whole(&rest[offset + 1..]).is_some());
    found.map_or(Next::Torn, |offset| Next::Damaged(at + 1 + offset))
}

/// The payload of the record that the bytes begin with, if they do.
fn whole(bytes: &[u8]) -> Option<&[u8]> {
    let head = bytes.get(..HEAD)?;
    let length: [u8; 4] = head[2..6].try_into().ok()?;
    let sum: [u8; 4] = head[6..HEAD].try_into().ok()?;
    let size = u32::from_le_bytes(length) as usize;
    if head[..2] != MARK || MAX_RECORD < size {
        return None;
    }
    let payload = bytes.get(HEAD..HEAD + size)?;
    (checksum(length, payload) == u32::from_le_bytes(sum)).then_some(payload)
}

fn checksum(length: [u8; 4], payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&length);
    hasher.update(payload);
    hasher.finalize()
}
