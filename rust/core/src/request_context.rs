//! What the two sides of a request hold once they agreed: the cipher of its frames, and the secret of its response.

use zeroize::Zeroizing;

use crate::arena::HomeProcess;
use crate::counting_cipher::CountingCipher;
use crate::error::Error;
use crate::key_schedule::{Exporter, MessageSecrets};

/// One side's context (RFC 9180, section 5.1). It stays in its box, as its cipher does.
pub(crate) struct RequestContext {
    pub(crate) cipher: CountingCipher,
    exporter: Exporter,
    response_label: &'static [u8],
}

impl RequestContext {
    /// Makes the context of a protocol that exports the secret of a response with this label. Call it in
    /// [`boxed_without_trace`](crate::no_trace::boxed_without_trace).
    pub(crate) fn new(secrets: &MessageSecrets, response_label: &'static [u8]) -> Result<Self, Error> {
        let cipher = CountingCipher::new(HomeProcess::current()?, &secrets.key, secrets.base_nonce);
        Ok(Self { cipher, exporter: secrets.exporter.clone(), response_label })
    }

    /// Exports bytes that both sides know and nobody else. Call it in
    /// [`without_trace`](crate::no_trace::without_trace).
    pub(crate) fn export(&self, label: &[u8], exported: &mut [u8]) -> Result<(), Error> {
        self.exporter.export(label, exported)
    }

    /// Returns the secret that the keys of the response are derived from. Call it in
    /// [`without_trace`](crate::no_trace::without_trace).
    pub(crate) fn response_secret(&self) -> Result<Zeroizing<[u8; 32]>, Error> {
        let mut secret = Zeroizing::new([0; 32]);
        self.export(self.response_label, secret.as_mut_slice())?;
        Ok(secret)
    }
}
