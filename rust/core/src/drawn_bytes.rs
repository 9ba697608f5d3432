//! The randomness of one HPKE message.

use hpke::rand_core::{TryCryptoRng, TryRng};
use zeroize::Zeroizing;

use crate::error::Error;

/// Random bytes that were drawn already, in the form that hpke takes. hpke would panic where the system's source fails.
pub(crate) struct DrawnBytes(Zeroizing<[u8; 32]>);

impl DrawnBytes {
    /// Makes the place for the bytes. They are drawn where it is, because a move would leave a copy.
    pub(crate) fn none_yet() -> Self {
        Self(Zeroizing::new([0; 32]))
    }

    /// Draws the key material of one message.
    pub(crate) fn draw(&mut self) -> Result<(), Error> {
        Ok(getrandom::fill(self.0.as_mut_slice())?)
    }
}

impl TryRng for DrawnBytes {
    type Error = std::convert::Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
        let mut bytes = [0; 4];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u32::from_ne_bytes(bytes))
    }

    fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
        let mut bytes = [0; 8];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u64::from_ne_bytes(bytes))
    }

    fn try_fill_bytes(&mut self, destination: &mut [u8]) -> Result<(), Self::Error> {
        // hpke draws once, the 32 bytes of one private key (RFC 9180, GenerateKeyPair).
        assert_eq!(destination.len(), self.0.len(), "hpke draws another number of bytes than one private key has");
        destination.copy_from_slice(self.0.as_slice());
        Ok(())
    }
}

impl TryCryptoRng for DrawnBytes {}
