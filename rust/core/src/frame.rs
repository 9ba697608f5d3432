//! EHBP's framing. A body is a sequence of frames: a length (32 bits, big-endian), then as many bytes of ciphertext.

use hpke::inout::InOutBuf;

use crate::error::Error;

pub(crate) const LENGTH_BYTES: usize = 4;
/// The length of AES-GCM's tag, which ends every ciphertext.
pub(crate) const TAG_BYTES: usize = 16;
/// The longest frame that a receiver takes by default.
pub const DEFAULT_MAX_FRAME_BYTES: usize = 16 * 1024 * 1024;

/// The longest plaintext of one frame. Longer ones are split, so that every receiver with the default limit takes them.
const MAX_FRAME_PLAINTEXT_BYTES: usize = DEFAULT_MAX_FRAME_BYTES - TAG_BYTES;
/// A message with more frames without content in a row is malformed.
const MAX_EMPTY_FRAMES_IN_A_ROW: usize = 1024;

/// Encrypts the next frame from an input to an output of the same length, and returns its tag.
pub(crate) trait SealFrame {
    fn seal(&mut self, plaintext_to_ciphertext: InOutBuf<'_, '_, u8>) -> Result<[u8; TAG_BYTES], Error>;
}

/// Decrypts the next frame from an input to an output of the same length, if its tag is right.
pub(crate) trait OpenFrame {
    fn open(&mut self, ciphertext_to_plaintext: InOutBuf<'_, '_, u8>, tag: &[u8; TAG_BYTES]) -> Result<(), Error>;
}

/// Returns the length of all frames of `plaintext_bytes` bytes; 0 for 0, which needs no frame.
pub(crate) fn sealed_bytes(plaintext_bytes: usize) -> usize {
    plaintext_bytes + plaintext_bytes.div_ceil(MAX_FRAME_PLAINTEXT_BYTES) * (LENGTH_BYTES + TAG_BYTES)
}

/// Seals `plaintext` as one frame (several above 16 MiB) into `sealed`, whose length is
/// `sealed_bytes(plaintext.len())`.
pub(crate) fn seal_frames(cipher: &mut impl SealFrame, plaintext: &[u8], sealed: &mut [u8]) -> Result<(), Error> {
    let mut rest = sealed;
    for part in plaintext.chunks(MAX_FRAME_PLAINTEXT_BYTES) {
        let frame;
        (frame, rest) =
            rest.split_at_mut_checked(LENGTH_BYTES + part.len() + TAG_BYTES).ok_or(Error::MalformedMessage)?;
        let (length, ciphertext_and_tag) = frame.split_at_mut(LENGTH_BYTES);
        let (ciphertext, tag) = ciphertext_and_tag.split_at_mut(part.len());
        // `part` is at most 16 MiB.
        length.copy_from_slice(&((part.len() + TAG_BYTES) as u32).to_be_bytes());
        let in_out = InOutBuf::new(part, ciphertext).map_err(|_| Error::MalformedMessage)?;
        tag.copy_from_slice(&cipher.seal(in_out)?);
    }
    Ok(())
}

/// Opens the ciphertext of one frame and appends its plaintext to `plaintext`. On failure it appends nothing.
pub(crate) fn open_frame(cipher: &mut impl OpenFrame, frame: &[u8], plaintext: &mut Vec<u8>) -> Result<(), Error> {
    let (ciphertext, tag) = frame.split_last_chunk::<TAG_BYTES>().ok_or(Error::MalformedMessage)?;
    let opened_before = plaintext.len();
    plaintext.try_reserve(ciphertext.len()).map_err(|_| Error::OutOfMemory)?;
    plaintext.resize(opened_before + ciphertext.len(), 0);
    let in_out = InOutBuf::new(ciphertext, &mut plaintext[opened_before..]).map_err(|_| Error::MalformedMessage)?;
    cipher.open(in_out, tag).inspect_err(|_| plaintext.truncate(opened_before))
}

/// Cuts a body that arrives in pieces into frames. It holds at most one incomplete frame, as far as that has arrived.
pub(crate) struct FrameReader {
    max_frame_bytes: usize,
    length: [u8; LENGTH_BYTES],
    length_bytes_read: usize,
    /// The part that has arrived of the frame whose length is known.
    partial: Vec<u8>,
    empty_frames_in_a_row: usize,
}

impl FrameReader {
    pub(crate) fn new(max_frame_bytes: usize) -> Self {
        Self {
            max_frame_bytes,
            length: [0; LENGTH_BYTES],
            length_bytes_read: 0,
            partial: Vec::new(),
            empty_frames_in_a_row: 0,
        }
    }

    /// Returns how many bytes `feed` would open, at most, of a next piece of this length: none where it completes no
    /// frame.
    pub(crate) fn bytes_to_open(&self, piece_bytes: usize) -> usize {
        let bytes = self.partial.len() + piece_bytes;
        let frame_bytes = u32::from_be_bytes(self.length) as usize;
        if self.length_bytes_read == LENGTH_BYTES && bytes < frame_bytes { 0 } else { bytes }
    }

    /// Takes the next piece of the body and calls `open` with every frame that it completes. `open` returns how many
    /// bytes of content the frame had. After an error nothing of the body is kept.
    pub(crate) fn feed(&mut self, piece: &[u8], open: impl FnMut(&[u8]) -> Result<usize, Error>) -> Result<(), Error> {
        self.cut(piece, open).inspect_err(|_| self.partial = Vec::new())
    }

    fn cut(&mut self, mut piece: &[u8], mut open: impl FnMut(&[u8]) -> Result<usize, Error>) -> Result<(), Error> {
        loop {
            if self.length_bytes_read < LENGTH_BYTES {
                let taken = piece.len().min(LENGTH_BYTES - self.length_bytes_read);
                let (head, rest) = piece.split_at(taken);
                self.length[self.length_bytes_read..][..taken].copy_from_slice(head);
                self.length_bytes_read += taken;
                piece = rest;
                if self.length_bytes_read < LENGTH_BYTES {
                    return Ok(());
                }
            }
            let frame_bytes = u32::from_be_bytes(self.length) as usize;
            if frame_bytes > self.max_frame_bytes {
                return Err(Error::FrameTooLarge { announced: frame_bytes, limit: self.max_frame_bytes });
            }
            let missing = frame_bytes - self.partial.len();
            if piece.len() < missing {
                self.reserve_for(piece.len(), frame_bytes)?;
                self.partial.extend_from_slice(piece);
                return Ok(());
            }
            let (end_of_frame, rest) = piece.split_at(missing);
            piece = rest;
            self.length_bytes_read = 0;
            let content_bytes = if frame_bytes == 0 {
                0
            } else if self.partial.is_empty() {
                open(end_of_frame)?
            } else {
                // Take it instead of clearing it: small frames that follow must not keep a large frame's memory.
                self.reserve_for(missing, frame_bytes)?;
                let mut frame = std::mem::take(&mut self.partial);
                frame.extend_from_slice(end_of_frame);
                open(&frame)?
            };
            self.empty_frames_in_a_row = if content_bytes == 0 { self.empty_frames_in_a_row + 1 } else { 0 };
            if self.empty_frames_in_a_row > MAX_EMPTY_FRAMES_IN_A_ROW {
                return Err(Error::MalformedMessage);
            }
        }
    }

    /// Makes room for `more` bytes of the partial frame. It doubles, so that few copies are made, but never beyond the
    /// frame.
    fn reserve_for(&mut self, more: usize, frame_bytes: usize) -> Result<(), Error> {
        let needed = self.partial.len() + more;
        if needed > self.partial.capacity() {
            let capacity = needed.max(2 * self.partial.capacity()).min(frame_bytes);
            self.partial.try_reserve_exact(capacity - self.partial.len()).map_err(|_| Error::OutOfMemory)?;
        }
        Ok(())
    }

    /// Checks that the body may end here, between two frames. Nothing of it is kept.
    pub(crate) fn finish(&mut self) -> Result<(), Error> {
        self.partial = Vec::new();
        if self.length_bytes_read == 0 { Ok(()) } else { Err(Error::MalformedMessage) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_that_never_ends_takes_no_more_memory_than_it_announced() {
        const ANNOUNCED: usize = 1_000_000;
        let mut reader = FrameReader::new(ANNOUNCED);
        reader.feed(&(ANNOUNCED as u32).to_be_bytes(), |_| Ok(1)).unwrap();
        assert_eq!(reader.partial.capacity(), 0);
        for arrived in 1..100 {
            reader.feed(&[0; 10_000], |_| Ok(1)).unwrap();
            assert_eq!(reader.partial.len(), arrived * 10_000);
            assert!(reader.partial.capacity() <= ANNOUNCED.min(2 * reader.partial.len()));
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
    fn a_large_frame_leaves_no_memory_behind() {
        let mut reader = FrameReader::new(1000);
        let mut frames = Vec::new();
        let body = [1000_u32.to_be_bytes().as_slice(), &[7; 1000], &1_u32.to_be_bytes(), &[8]].concat();
        for piece in body.chunks(3) {
            reader
                .feed(piece, |frame| {
                    frames.push(frame.to_vec());
                    Ok(frame.len())
                })
                .unwrap();
        }
        assert_eq!(frames, [vec![7; 1000], vec![8]]);
        assert_eq!(reader.partial.capacity(), 0);
        assert_eq!(reader.finish(), Ok(()));
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
