//! What the two sides of a request hold once they agreed: the cipher of its frames, and the secret of its response.

use zeroize::Zeroizing;

use crate::arena::HomeProcess;
use crate::counting_cipher::CountingCipher;
use crate::error::Error;
use crate::key_schedule::{MessageSecrets, export};

const EXPORT_LABEL: &[u8] = b"ehbp response";

/// One side's context (RFC 9180, section 5.1). It stays in its box, as its cipher does.
pub(crate) struct RequestContext {
    pub(crate) cipher: CountingCipher,
    exporter_secret: Zeroizing<[u8; 32]>,
}

impl RequestContext {
    /// Call it in [`boxed_without_trace`](crate::no_trace::boxed_without_trace).
    pub(crate) fn new(secrets: MessageSecrets) -> Result<Self, Error> {
        let cipher = CountingCipher::new(HomeProcess::current()?, &secrets.key, secrets.base_nonce);
        Ok(Self { cipher, exporter_secret: secrets.exporter_secret })
    }

    /// Returns the secret that the keys of the response are derived from. Call it in
    /// [`without_trace`](crate::no_trace::without_trace).
    pub(crate) fn response_secret(&self) -> Result<Zeroizing<[u8; 32]>, Error> {
        let mut secret = Zeroizing::new([0; 32]);
        export(&self.exporter_secret, EXPORT_LABEL, &mut secret)?;
        Ok(secret)
    }
}
