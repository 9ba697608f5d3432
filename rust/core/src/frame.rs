//! EHBP's framing. A body is a sequence of frames: a length (32 bits, big-endian), then as many bytes of ciphertext.

use std::mem::MaybeUninit;
use std::ops::RangeInclusive;

use crate::counting_cipher::CountingCipher;
use crate::error::Error;
use crate::partial_frame::PartialFrame;
use crate::primitives::TAG_BYTES;
use crate::writer::Writer;

pub(crate) const LENGTH_BYTES: usize = 4;
/// The longest frame that a receiver takes by default, and that a sender makes.
pub const DEFAULT_MAX_FRAME_BYTES: usize = 16 * 1024 * 1024;

/// A message with more frames without content in a row is malformed.
const MAX_EMPTY_FRAMES_IN_A_ROW: usize = 1024;

/// Returns the length of all frames of `plaintext_bytes` bytes; 0 for 0, which needs no frame.
pub(crate) fn sealed_bytes(plaintext_bytes: usize, max_frame_bytes: usize) -> usize {
    plaintext_bytes + plaintext_bytes.div_ceil(frame_plaintext_bytes(max_frame_bytes)) * (LENGTH_BYTES + TAG_BYTES)
}

/// Returns the longest plaintext of a frame. A frame has a byte at least, and every receiver with the default limit takes it.
fn frame_plaintext_bytes(max_frame_bytes: usize) -> usize {
    max_frame_bytes.clamp(TAG_BYTES + 1, DEFAULT_MAX_FRAME_BYTES) - TAG_BYTES
}

/// Seals `plaintext` in frames of at most `max_frame_bytes` into `sealed`, whose length [`sealed_bytes`] tells.
pub(crate) fn seal_frames<'a>(
    cipher: &mut CountingCipher,
    plaintext: &[u8],
    max_frame_bytes: usize,
    sealed: &'a mut [MaybeUninit<u8>],
) -> Result<&'a mut [u8], Error> {
    // Check it before a frame is sealed: its number would be lost.
    if sealed.len() != sealed_bytes(plaintext.len(), max_frame_bytes) {
        return Err(Error::BufferLength);
    }
    let mut sealed = Writer::new(sealed);
    for part in plaintext.chunks(frame_plaintext_bytes(max_frame_bytes)) {
        // `part` is at most 16 MiB.
        sealed.put(&((part.len() + TAG_BYTES) as u32).to_be_bytes())?;
        let tag = sealed.put_with(part.len(), |ciphertext| cipher.seal(part, ciphertext))?;
        sealed.put(&tag)?;
    }
    sealed.finish()
}

/// Opens the ciphertext of one frame. Returns how long its plaintext is.
pub(crate) fn open_frame(
    cipher: &mut CountingCipher,
    frame: &[u8],
    plaintext: &mut Writer<'_>,
) -> Result<usize, Error> {
    let (ciphertext, tag) = frame.split_last_chunk::<TAG_BYTES>().ok_or(Error::MalformedMessage)?;
    plaintext.put_with(ciphertext.len(), |room| Ok((cipher.open(ciphertext, tag, room)?, ciphertext.len())))
}

/// Where the next byte of a body belongs: to a frame's length, or to the frame.
#[derive(Clone, Copy)]
struct Position {
    length: [u8; LENGTH_BYTES],
    length_bytes_read: usize,
    frame_bytes_read: usize,
}

/// What the next bytes of a piece are.
enum Part<'p> {
    /// The piece ends here, with these bytes of a frame that is not complete, or none.
    Rest(&'p [u8]),
    /// The last bytes of a frame, or all of it, and its length.
    End(&'p [u8], usize),
}

impl Position {
    const START: Self = Self { length: [0; LENGTH_BYTES], length_bytes_read: 0, frame_bytes_read: 0 };

    fn frame_bytes(&self) -> Option<usize> {
        (self.length_bytes_read == LENGTH_BYTES).then(|| u32::from_be_bytes(self.length) as usize)
    }

    /// Takes the next part from the front of `piece`.
    fn advance<'p>(&mut self, piece: &mut &'p [u8], limits: &RangeInclusive<usize>) -> Result<Part<'p>, Error> {
        let Some(frame_bytes) = self.read_length(piece) else { return Ok(Part::Rest(&[])) };
        if frame_bytes > *limits.end() {
            return Err(Error::FrameTooLarge { announced: frame_bytes, limit: *limits.end() });
        }
        if frame_bytes < *limits.start() {
            return Err(Error::MalformedMessage);
        }
        match piece.split_at_checked(frame_bytes - self.frame_bytes_read) {
            Some((end, rest)) => {
                *piece = rest;
                *self = Self { length: self.length, ..Self::START };
                Ok(Part::End(end, frame_bytes))
            }
            None => {
                self.frame_bytes_read += piece.len();
                Ok(Part::Rest(std::mem::take(piece)))
            }
        }
    }

    fn read_length(&mut self, piece: &mut &[u8]) -> Option<usize> {
        let taken = piece.len().min(LENGTH_BYTES - self.length_bytes_read);
        let (head, rest) = piece.split_at(taken);
        self.length[self.length_bytes_read..][..taken].copy_from_slice(head);
        self.length_bytes_read += taken;
        *piece = rest;
        self.frame_bytes()
    }
}

/// Cuts a body that arrives in pieces into frames. It holds at most one incomplete frame, as far as that has arrived.
pub(crate) struct FrameReader {
    limits: RangeInclusive<usize>,
    position: Position,
    /// The part that has arrived of the frame whose length is known.
    partial: PartialFrame,
    empty_frames_in_a_row: usize,
}

impl FrameReader {
    pub(crate) fn new(max_frame_bytes: usize) -> Self {
        Self::with_limits(0..=max_frame_bytes)
    }

    /// Makes one that refuses frames of other lengths.
    pub(crate) fn with_limits(limits: RangeInclusive<usize>) -> Self {
        Self { limits, position: Position::START, partial: PartialFrame::new(), empty_frames_in_a_row: 0 }
    }

    /// Says whether the body is read to the end of a frame, or nothing of it is read yet.
    pub(crate) fn is_between_frames(&self) -> bool {
        self.position.length_bytes_read == 0
    }

    /// Returns how many bytes [`feed_into`](Self::feed_into) would open, at most, of a next piece of this length: none
    /// where it completes no frame.
    pub(crate) fn bytes_to_open(&self, piece_bytes: usize) -> usize {
        let bytes = self.partial.len() + piece_bytes;
        if self.position.frame_bytes().is_some_and(|frame_bytes| bytes < frame_bytes) { 0 } else { bytes }
    }

    /// Returns how much memory is taken for the part of a frame that has arrived, or kept for those that follow.
    pub(crate) fn held_bytes(&self) -> usize {
        self.partial.capacity()
    }

    /// Returns the length of the plaintext of the frames that a next piece completes, if they are well-formed.
    pub(crate) fn plaintext_bytes(&self, mut piece: &[u8]) -> usize {
        let mut position = self.position;
        let mut plaintext_bytes = 0;
        while let Ok(Part::End(_, frame_bytes)) = position.advance(&mut piece, &self.limits) {
            plaintext_bytes += frame_bytes.saturating_sub(TAG_BYTES);
        }
        plaintext_bytes
    }

    /// Takes the next piece of the body and has `open` write the plaintext of every frame that it completes to
    /// `plaintext`, whose length [`plaintext_bytes`](Self::plaintext_bytes) tells. On failure `plaintext` keeps nothing.
    pub(crate) fn feed_into<'a>(
        &mut self,
        piece: &[u8],
        plaintext: &'a mut [MaybeUninit<u8>],
        mut open: impl FnMut(&[u8], &mut Writer<'_>) -> Result<usize, Error>,
    ) -> Result<&'a mut [u8], Error> {
        if plaintext.len() != self.plaintext_bytes(piece) {
            return Err(Error::BufferLength);
        }
        let mut plaintext = Writer::new(plaintext);
        self.feed(piece, |frame| open(frame, &mut plaintext))?;
        plaintext.finish()
    }

    /// Takes the next piece of the body and calls `open` with every frame that it completes. `open` returns how many
    /// bytes of content the frame had. After an error nothing of the body is kept.
    fn feed(&mut self, piece: &[u8], open: impl FnMut(&[u8]) -> Result<usize, Error>) -> Result<(), Error> {
        self.cut(piece, open).inspect_err(|_| self.partial = PartialFrame::new())
    }

    fn cut(&mut self, mut piece: &[u8], mut open: impl FnMut(&[u8]) -> Result<usize, Error>) -> Result<(), Error> {
        loop {
            let (end, frame_bytes) = match self.position.advance(&mut piece, &self.limits)? {
                Part::Rest(rest) => return self.keep(rest),
                Part::End(end, frame_bytes) => (end, frame_bytes),
            };
            let content_bytes = if frame_bytes == 0 {
                0
            } else if self.partial.is_empty() {
                open(end)?
            } else {
                self.keep(end)?;
                let content_bytes = open(self.partial.as_slice())?;
                self.partial.clear();
                content_bytes
            };
            self.empty_frames_in_a_row = if content_bytes == 0 { self.empty_frames_in_a_row + 1 } else { 0 };
            if self.empty_frames_in_a_row > MAX_EMPTY_FRAMES_IN_A_ROW {
                return Err(Error::MalformedMessage);
            }
        }
    }

    fn keep(&mut self, more: &[u8]) -> Result<(), Error> {
        self.partial.extend(more, u32::from_be_bytes(self.position.length) as usize)
    }

    /// Checks that the body may end here, between two frames. Nothing of it is kept.
    pub(crate) fn finish(&mut self) -> Result<(), Error> {
        self.partial = PartialFrame::new();
        if self.is_between_frames() { Ok(()) } else { Err(Error::MalformedMessage) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::partial_frame::RESERVED_AT_ONCE_BYTES;

    #[test]
    fn a_frame_that_never_ends_takes_no_more_memory_than_it_announced() {
        const ANNOUNCED: usize = 1_000_000;
        let mut reader = FrameReader::new(ANNOUNCED);
        reader.feed(&(ANNOUNCED as u32).to_be_bytes(), |_| Ok(1)).unwrap();
        assert_eq!(reader.partial.capacity(), 0);
        for arrived in 1..100 {
            reader.feed(&[0; 10_000], |_| Ok(1)).unwrap();
            assert_eq!(reader.partial.len(), arrived * 10_000);
            let most = RESERVED_AT_ONCE_BYTES.max(2 * reader.partial.len());
            assert!(reader.partial.capacity() <= ANNOUNCED.min(most));
            assert_eq!(reader.held_bytes(), reader.partial.capacity());
        }
    }

    #[test]
    fn the_piece_that_completes_a_frame_opens_all_of_it() {
        let mut reader = FrameReader::new(1000);
        assert_eq!(reader.bytes_to_open(10), 10);
        reader.feed(&1000_u32.to_be_bytes(), |_| Ok(1)).unwrap();
        assert_eq!(reader.bytes_to_open(999), 0);
        reader.feed(&[0; 990], |_| Ok(1)).unwrap();
        assert_eq!(reader.bytes_to_open(9), 0);
        assert_eq!(reader.bytes_to_open(10), 1000);
    }

    #[test]
    fn a_frame_leaves_no_more_memory_behind_than_is_reserved_at_once() {
        for frame_bytes in [1000, RESERVED_AT_ONCE_BYTES, RESERVED_AT_ONCE_BYTES + 1, 1_000_000] {
            let mut reader = FrameReader::new(1_000_000);
            let mut frames = Vec::new();
            let large = vec![7; frame_bytes];
            let length = (frame_bytes as u32).to_be_bytes();
            let body = [length.as_slice(), &large, &1_u32.to_be_bytes(), &[8]].concat();
            for piece in body.chunks(999) {
                reader
                    .feed(piece, |frame| {
                        frames.push(frame.to_vec());
                        Ok(frame.len())
                    })
                    .unwrap();
                assert!(reader.partial.is_empty() || reader.partial.capacity() <= frame_bytes);
            }
            assert_eq!(frames, [large, vec![8]]);
            assert!(reader.partial.capacity() <= RESERVED_AT_ONCE_BYTES);
            assert_eq!(reader.finish(), Ok(()));
            assert_eq!(reader.partial.capacity(), 0);
        }
    }

    #[test]
    fn nothing_is_kept_of_a_body_that_is_not_read_further() {
        let cut_off = |reader: &mut FrameReader| reader.finish();
        let not_authentic = |reader: &mut FrameReader| reader.feed(&[0; 400], |_| Err(Error::MalformedMessage));
        for end in [cut_off, not_authentic] {
            let mut reader = FrameReader::new(1000);
            reader.feed(&1000_u32.to_be_bytes(), |_| Ok(1)).unwrap();
            reader.feed(&[0; 600], |_| Ok(1)).unwrap();
            assert!(reader.partial.capacity() >= 600);
            assert_eq!(end(&mut reader), Err(Error::MalformedMessage));
            assert_eq!(reader.partial.capacity(), 0);
        }
    }
}
