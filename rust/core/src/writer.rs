//! Bytes that are written once, from front to back, to memory that nobody has initialized.

use std::mem::MaybeUninit;

use zeroize::Zeroize;

use crate::error::Error;

/// Fills a buffer. Unless [`finish`](Self::finish) returns it, dropping wipes what was written.
pub(crate) struct Writer<'a> {
    buffer: &'a mut [MaybeUninit<u8>],
    written: usize,
}

impl<'a> Writer<'a> {
    pub(crate) fn new(buffer: &'a mut [MaybeUninit<u8>]) -> Self {
        Self { buffer, written: 0 }
    }

    /// Copies bytes to the next place.
    ///
    /// # Errors
    /// [`Error::BufferLength`] if there is no room.
    pub(crate) fn put(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.put_with(bytes.len(), |room| {
            for (place, byte) in room.iter_mut().zip(bytes) {
                place.write(*byte);
            }
            // SAFETY: `room` is as long as `bytes`, so all of it is written; `u8` has the layout of `MaybeUninit<u8>`.
            Ok((unsafe { &mut *(std::ptr::from_mut(room) as *mut [u8]) }, ()))
        })
    }

    /// Has `write` fill the next `length` bytes. It returns them, which shows that it did, and a result.
    ///
    /// # Errors
    /// [`Error::BufferLength`] if there is no room, or those of `write`.
    pub(crate) fn put_with<R>(
        &mut self,
        length: usize,
        write: impl for<'r> FnOnce(&'r mut [MaybeUninit<u8>]) -> Result<(&'r mut [u8], R), Error>,
    ) -> Result<R, Error> {
        let room = self.buffer[self.written..].get_mut(..length).ok_or(Error::BufferLength)?;
        let place = room.as_ptr().addr();
        let (filled, result) = write(room)?;
        assert_eq!(
            (filled.as_ptr().addr(), filled.len()),
            (place, length),
            "other bytes were written than those to fill"
        );
        self.written += length;
        Ok(result)
    }

    /// Returns the buffer.
    ///
    /// # Errors
    /// [`Error::BufferLength`] unless all of it is written.
    pub(crate) fn finish(mut self) -> Result<&'a mut [u8], Error> {
        if self.written < self.buffer.len() {
            return Err(Error::BufferLength);
        }
        self.written = 0;
        let buffer = std::mem::take(&mut self.buffer);
        // SAFETY: all of it is written; `u8` has the layout of `MaybeUninit<u8>`.
        Ok(unsafe { &mut *(std::ptr::from_mut(buffer) as *mut [u8]) })
    }
}

impl Drop for Writer<'_> {
    fn drop(&mut self) {
        self.buffer[..self.written].zeroize();
    }
}

/// Returns `length` bytes that `fill` writes.
///
/// # Errors
/// [`Error::OutOfMemory`], or those of `fill`.
pub(crate) fn filled(
    length: usize,
    fill: impl for<'r> FnOnce(&'r mut [MaybeUninit<u8>]) -> Result<&'r mut [u8], Error>,
) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(length).map_err(|_| Error::OutOfMemory)?;
    let mut writer = Writer::new(&mut bytes.spare_capacity_mut()[..length]);
    writer.put_with(length, |room| Ok((fill(room)?, ())))?;
    writer.finish()?;
    // SAFETY: `finish` has seen that so many bytes are written.
    unsafe { bytes.set_len(length) };
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_returned_once_all_of_it_is_written() {
        let mut buffer = [MaybeUninit::uninit(); 5];
        let mut writer = Writer::new(&mut buffer);
        writer.put(b"abc").unwrap();
        assert_eq!(writer.put(b"def"), Err(Error::BufferLength));
        writer.put(b"de").unwrap();
        assert_eq!(writer.finish().unwrap(), b"abcde");
        assert_eq!(Writer::new(&mut buffer).finish(), Err(Error::BufferLength));
        assert_eq!(Writer::new(&mut []).finish().unwrap(), b"");
    }

    #[test]
    fn a_vector_has_what_was_written() {
        let abc = filled(3, |room| {
            let mut writer = Writer::new(room);
            writer.put(b"abc")?;
            writer.finish()
        });
        assert_eq!(abc.unwrap(), b"abc");
    }

    #[test]
    fn what_was_written_is_wiped_unless_all_of_it_is() {
        let mut buffer = [MaybeUninit::new(1); 5];
        let mut writer = Writer::new(&mut buffer);
        writer.put(b"abc").unwrap();
        assert_eq!(writer.finish(), Err(Error::BufferLength));
        // SAFETY: all of it was written when it was made.
        assert_eq!(buffer.map(|byte| unsafe { byte.assume_init() }), [0, 0, 0, 1, 1]);
    }
}
