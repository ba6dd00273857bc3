//! RecordIO: records in a stream of bytes, each after its length in decimal digits and a line feed.
//!
//! Pure: bytes in, records out, however they were cut. The end of a stream in the middle of a record is for the caller
//! to notice, by [`Decoder::is_between_records`].

/// Why a stream is no RecordIO. Nothing after that can be trusted: the stream is to be dropped.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// Something else than a length.
    #[error("expected the length of a record in decimal digits, got `{got}`")]
    NoLength {
        /// What came.
        got: String,
    },
    /// More than may be held.
    #[error("a record of {length} bytes is larger than the most that is taken, {most}")]
    TooLarge {
        /// Its length.
        length: u64,
        /// The limit.
        most: usize,
    },
}

/// Digits that the largest length has; more are no length.
const MOST_DIGITS: usize = 20;

/// Cuts a stream of bytes into records.
#[derive(Debug)]
pub struct Decoder {
    buffer: Vec<u8>,
    /// What of the buffer has been given out.
    consumed: usize,
    /// The length of the record that has begun.
    length: Option<usize>,
    most: usize,
    failed: Option<RecordError>,
}

impl Decoder {
    /// One that takes records of up to `most` bytes.
    pub const fn new(most: usize) -> Self {
        Self { buffer: Vec::new(), consumed: 0, length: None, most, failed: None }
    }

    /// Takes in the next bytes of the stream.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.failed.is_some() {
            return;
        }
        if self.consumed > 0 {
            self.buffer.drain(..self.consumed);
            self.consumed = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole record; none when more bytes are needed. An error stays.
    pub fn next_record(&mut self) -> Result<Option<&[u8]>, RecordError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let length = match self.length {
            Some(length) => length,
            None => match self.take_length() {
                Ok(Some(length)) => length,
                Ok(None) => return Ok(None),
                Err(error) => {
                    self.buffer = Vec::new();
                    self.consumed = 0;
                    return Err(self.failed.insert(error).clone());
                }
            },
        };
        let begin = self.consumed;
        if self.buffer.len() - begin < length {
            return Ok(None);
        }
        self.consumed += length;
        self.length = None;
        Ok(Some(&self.buffer[begin..begin + length]))
    }

    /// Whether the stream may end here.
    pub fn is_between_records(&self) -> bool {
        self.failed.is_none() && self.length.is_none() && self.consumed == self.buffer.len()
    }

    /// Reads a length and its line feed, once they are there.
    fn take_length(&mut self) -> Result<Option<usize>, RecordError> {
        let rest = &self.buffer[self.consumed..];
        let head = &rest[..rest.len().min(MOST_DIGITS + 1)];
        let end = head.iter().position(|byte| *byte == b'\n');
        let digits = &head[..end.unwrap_or(head.len())];
        let no_length = || RecordError::NoLength { got: super::error::excerpt(head) };
        if !digits.iter().all(u8::is_ascii_digit) || digits.len() > MOST_DIGITS || (digits.is_empty() && end.is_some())
        {
            return Err(no_length());
        }
        let Some(end) = end else { return Ok(None) };
        let text = std::str::from_utf8(digits).map_err(|_| no_length())?;
        let length: u64 = text.parse().map_err(|_| no_length())?;
        let fits = usize::try_from(length).ok().filter(|length| *length <= self.most);
        let length = fits.ok_or(RecordError::TooLarge { length, most: self.most })?;
        self.consumed += end + 1;
        self.length = Some(length);
        Ok(Some(length))
    }
}

/// One record as it goes over the wire.
pub fn encode(record: &[u8]) -> Vec<u8> {
    let mut bytes = format!("{}\n", record.len()).into_bytes();
    bytes.extend_from_slice(record);
    bytes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decode(chunks: &[&[u8]], most: usize) -> (Vec<Vec<u8>>, Result<bool, RecordError>) {
        let (mut decoder, mut records) = (Decoder::new(most), Vec::new());
        for chunk in chunks {
            decoder.push(chunk);
            loop {
                match decoder.next_record() {
                    Ok(Some(record)) => records.push(record.to_vec()),
                    Ok(None) => break,
                    Err(error) => return (records, Err(error)),
                }
            }
        }
        (records, Ok(decoder.is_between_records()))
    }

    #[test]
    fn what_is_no_record_is_said() {
        let case = |bytes: &[u8]| decode(&[bytes], 100).1;
        assert_eq!(case(b""), Ok(true));
        assert_eq!(case(b"5\nhe"), Ok(false));
        assert_eq!(case(b"12"), Ok(false));
        assert_eq!(case(b"0\n0\n"), Ok(true));
        assert_eq!(case(b"101\n"), Err(RecordError::TooLarge { length: 101, most: 100 }));
        for bad in
            ["\n", "-1\n", "+1\n", " 1\n", "1\r\n", "{\"type\"", "99999999999999999999\n", "111111111111111111111"]
        {
            assert!(matches!(case(bad.as_bytes()), Err(RecordError::NoLength { .. })), "{bad}");
        }
        let mut decoder = Decoder::new(10);
        decoder.push(b"x\n");
        assert!(decoder.next_record().is_err());
        decoder.push(b"1\na");
        assert!(decoder.next_record().is_err(), "after an error nothing can be trusted");
    }

    proptest! {
        #[test]
        fn records_are_the_same_however_the_stream_is_cut(
            records in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..8),
            cuts in prop::collection::vec(0_usize..400, 0..12),
        ) {
            let stream: Vec<u8> = records.iter().flat_map(|record| encode(record)).collect();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(stream.len())).collect();
            cuts.extend([0, stream.len()]);
            cuts.sort_unstable();
            let chunks: Vec<&[u8]> = cuts.windows(2).map(|pair| &stream[pair[0]..pair[1]]).collect();
            prop_assert_eq!(decode(&chunks, 40), (records, Ok(true)));
        }
    }
}
