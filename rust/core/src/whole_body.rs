//! Messages that show when they are cut: a sealed head, then frames with content, then an empty frame.

use std::mem::MaybeUninit;

use zeroize::Zeroize;

use crate::counting_cipher::CountingCipher;
use crate::error::Error;
use crate::frame::{DEFAULT_MAX_FRAME_BYTES, FrameReader, LENGTH_BYTES, open_frame, seal_frames, sealed_bytes};
use crate::no_trace::without_trace;
use crate::primitives::TAG_BYTES;
use crate::writer::{Writer, filled};

/// The length of the empty frame at the end.
const END_BYTES: usize = LENGTH_BYTES + TAG_BYTES;

/// Returns the length of all frames of the last `plaintext_bytes` bytes of a body, and of its end.
pub(crate) fn last_sealed_bytes(plaintext_bytes: usize, max_frame_bytes: usize) -> usize {
    sealed_bytes(plaintext_bytes, max_frame_bytes) + END_BYTES
}

/// How far a message is sealed. The head has the counter 0, so it comes first and once.
pub(crate) enum Sealed {
    Nothing,
    Head,
    All,
}

impl Sealed {
    /// Seals the head.
    ///
    /// # Errors
    /// [`Error::SealedOutOfOrder`] if it is sealed already; [`Error::OutOfMemory`]; [`Error::KeyErased`] in a forked child.
    pub(crate) fn seal_head(&mut self, cipher: &mut CountingCipher, head: &[u8]) -> Result<Vec<u8>, Error> {
        let Self::Nothing = self else { return Err(Error::SealedOutOfOrder) };
        let sealed = filled(head.len() + TAG_BYTES, |sealed| {
            let mut sealed = Writer::new(sealed);
            let tag = sealed.put_with(head.len(), |ciphertext| cipher.seal(head, ciphertext))?;
            sealed.put(&tag)?;
            sealed.finish()
        })?;
        *self = Self::Head;
        Ok(sealed)
    }

    /// Seals the next piece of the body in frames of at most `max_frame_bytes` into `sealed`, whose length
    /// [`sealed_bytes`] tells.
    ///
    /// # Errors
    /// [`Error::SealedOutOfOrder`] before the head and after the end; [`Error::BufferLength`]; [`Error::KeyErased`] in a
    /// forked child.
    pub(crate) fn seal_into<'a>(
        &self,
        cipher: &mut CountingCipher,
        plaintext: &[u8],
        max_frame_bytes: usize,
        sealed: &'a mut [MaybeUninit<u8>],
    ) -> Result<&'a mut [u8], Error> {
        let Self::Head = self else { return Err(Error::SealedOutOfOrder) };
        seal_frames(cipher, plaintext, max_frame_bytes, sealed)
    }

    /// Does the same with the last piece and the end frame. The length of `sealed` is what [`last_sealed_bytes`] tells.
    ///
    /// # Errors
    /// As [`seal_into`](Self::seal_into).
    pub(crate) fn seal_last_into<'a>(
        &mut self,
        cipher: &mut CountingCipher,
        plaintext: &[u8],
        max_frame_bytes: usize,
        sealed: &'a mut [MaybeUninit<u8>],
    ) -> Result<&'a mut [u8], Error> {
        // Check it before a frame is sealed: its number would be lost.
        let frames_bytes = sealed_bytes(plaintext.len(), max_frame_bytes);
        if sealed.len() != frames_bytes + END_BYTES {
            return Err(Error::BufferLength);
        }
        let mut sealed = Writer::new(sealed);
        sealed
            .put_with(frames_bytes, |frames| Ok((self.seal_into(cipher, plaintext, max_frame_bytes, frames)?, ())))?;
        put_end(cipher, &mut sealed)?;
        *self = Self::All;
        sealed.finish()
    }

    /// Seals a piece of the body.
    ///
    /// # Errors
    /// As [`seal_into`](Self::seal_into); [`Error::OutOfMemory`].
    pub(crate) fn seal(&self, cipher: &mut CountingCipher, plaintext: &[u8]) -> Result<Vec<u8>, Error> {
        let max_frame_bytes = DEFAULT_MAX_FRAME_BYTES;
        filled(sealed_bytes(plaintext.len(), max_frame_bytes), |sealed| {
            self.seal_into(cipher, plaintext, max_frame_bytes, sealed)
        })
    }

    /// Seals the end frame.
    ///
    /// # Errors
    /// [`Error::SealedOutOfOrder`] before the head and after the end; [`Error::OutOfMemory`]; [`Error::KeyErased`] in a
    /// forked child.
    pub(crate) fn seal_end(&mut self, cipher: &mut CountingCipher) -> Result<Vec<u8>, Error> {
        let Self::Head = self else { return Err(Error::SealedOutOfOrder) };
        let sealed = filled(END_BYTES, |sealed| {
            let mut sealed = Writer::new(sealed);
            put_end(cipher, &mut sealed)?;
            sealed.finish()
        })?;
        *self = Self::All;
        Ok(sealed)
    }
}

fn put_end(cipher: &mut CountingCipher, sealed: &mut Writer<'_>) -> Result<(), Error> {
    sealed.put(&(TAG_BYTES as u32).to_be_bytes())?;
    let tag = sealed.put_with(0, |nothing| cipher.seal(&[], nothing))?;
    sealed.put(&tag)
}

/// Opens a sealed head, which no other part of a message may precede.
///
/// # Errors
/// [`Error::MalformedMessage`]; [`Error::OutOfMemory`]; [`Error::KeyErased`] in a forked child.
pub(crate) fn open_head(cipher: &mut CountingCipher, sealed: &[u8]) -> Result<Vec<u8>, Error> {
    let head_bytes = sealed.len().checked_sub(TAG_BYTES).ok_or(Error::MalformedMessage)?;
    // Unlike a frame's, its traces are wiped at once: whoever made the opener may have been far down the stack.
    without_trace(|| {
        filled(head_bytes, |head| {
            let mut head = Writer::new(head);
            open_frame(cipher, sealed, &mut head)?;
            head.finish()
        })
    })
}

/// Where the body is read to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum ReadTo {
    /// No byte of it came.
    Start,
    /// The middle of it.
    Middle,
    /// Its end frame.
    End,
    /// The head says that there is none.
    NoBody,
    /// A fault. Nothing after it counts.
    Fault,
}

/// Opens a body that ends with an empty frame.
pub(crate) struct WholeBody {
    frames: FrameReader,
    read_to: ReadTo,
}

impl WholeBody {
    pub(crate) fn new(max_frame_bytes: usize) -> Self {
        Self { frames: FrameReader::with_limits(TAG_BYTES..=max_frame_bytes), read_to: ReadTo::Start }
    }

    /// Says whether the end frame came, or there is no body.
    pub(crate) fn is_ended(&self) -> bool {
        matches!(self.read_to, ReadTo::End | ReadTo::NoBody)
    }

    /// Returns how many bytes [`feed_into`](Self::feed_into) would open, at most, of a next piece of this length.
    pub(crate) fn bytes_to_open(&self, piece_bytes: usize) -> usize {
        self.frames.bytes_to_open(piece_bytes)
    }

    /// Returns how much memory is taken for the part of a frame that has arrived, or kept for those that follow.
    pub(crate) fn held_bytes(&self) -> usize {
        self.frames.held_bytes()
    }

    /// Returns the length of the plaintext of the frames that a next piece completes, if they are well-formed.
    pub(crate) fn plaintext_bytes(&self, piece: &[u8]) -> usize {
        self.frames.plaintext_bytes(piece)
    }

    /// Says that there is no body, because the head said so.
    ///
    /// # Errors
    /// [`Error::MalformedMessage`] if some of it came already.
    pub(crate) fn expect_none(&mut self) -> Result<(), Error> {
        match self.read_to {
            ReadTo::Start | ReadTo::NoBody => {
                self.read_to = ReadTo::NoBody;
                Ok(())
            }
            _ => self.fail(Error::MalformedMessage),
        }
    }

    /// Takes the next piece of the body and opens the frames that it completes into `plaintext`, whose length
    /// [`plaintext_bytes`](Self::plaintext_bytes) tells.
    ///
    /// # Errors
    /// [`Error::BufferLength`], and then the piece is not taken; [`Error::MalformedMessage`], [`Error::FrameTooLarge`],
    /// [`Error::OutOfMemory`]; [`Error::KeyErased`] in a forked child. After one of these nothing more is opened, and the
    /// body is not whole.
    pub(crate) fn feed_into<'a>(
        &mut self,
        cipher: &mut CountingCipher,
        piece: &[u8],
        plaintext: &'a mut [MaybeUninit<u8>],
    ) -> Result<&'a mut [u8], Error> {
        if plaintext.len() != self.plaintext_bytes(piece) {
            return Err(Error::BufferLength);
        }
        match self.read_to {
            _ if piece.is_empty() => {}
            ReadTo::Start | ReadTo::Middle => self.read_to = ReadTo::Middle,
            ReadTo::End | ReadTo::NoBody | ReadTo::Fault => return self.fail(Error::MalformedMessage),
        }
        let Self { frames, read_to } = self;
        let opened = frames.feed_into(piece, plaintext, |frame, plaintext| {
            if *read_to == ReadTo::End {
                return Err(Error::MalformedMessage);
            }
            let content_bytes = open_frame(cipher, frame, plaintext)?;
            if content_bytes == 0 {
                *read_to = ReadTo::End;
            }
            Ok(content_bytes)
        });
        match opened {
            Ok(opened) if self.read_to != ReadTo::End || self.frames.is_between_frames() => Ok(opened),
            // Something follows the end.
            Ok(opened) => {
                opened.zeroize();
                self.fail(Error::MalformedMessage)
            }
            Err(_) if self.read_to == ReadTo::End => self.fail(Error::MalformedMessage),
            Err(error) => self.fail(error),
        }
    }

    /// Checks that the body may end here. Nothing of it is kept.
    ///
    /// # Errors
    /// [`Error::MissingEnd`] before its end; [`Error::MalformedMessage`] after a fault.
    pub(crate) fn finish(&mut self) -> Result<(), Error> {
        match self.read_to {
            ReadTo::End | ReadTo::NoBody => Ok(()),
            ReadTo::Start | ReadTo::Middle => {
                self.frames = FrameReader::new(0);
                self.fail(Error::MissingEnd)
            }
            ReadTo::Fault => Err(Error::MalformedMessage),
        }
    }

    fn fail<T>(&mut self, error: Error) -> Result<T, Error> {
        self.read_to = ReadTo::Fault;
        Err(error)
    }
}
