//! X25519 key pairs.

use std::num::NonZero;
use std::thread;
use std::time::Duration;

use crate::arena::{SECRET_BYTES, reserve_secrets};
use crate::batch::BATCH;
use crate::error::Error;
use crate::memory::require_headroom;
use crate::no_trace::{batch_without_trace, without_trace};
use crate::secret::Secret;
use crate::x25519;

/// The length of an X25519 public key.
pub const PUBLIC_KEY_BYTES: usize = 32;
/// The length of the secret that two parties share after an exchange.
pub const SHARED_SECRET_BYTES: usize = 32;
/// The largest count that [`generate_key_pairs`] takes: 32 MiB of private keys.
pub const MAX_KEY_PAIRS_PER_CALL: usize = 1 << 20;

/// More than the scratch buffers of a batch take if each lies on pages of its own.
const SCRATCH_BYTES_PER_THREAD: usize = 64 * 1024;
/// Many times the stack that computations in [`without_trace`] and their wipe take.
const STACK_BYTES_PER_THREAD: usize = 256 * 1024;
/// Starting a thread costs about as much time as making this many key pairs one by one.
const LEAST_PER_THREAD: usize = 64;
/// The same where eight are computed in parallel.
const LEAST_PER_THREAD_IN_PARALLEL: usize = 256;

/// An X25519 key pair (RFC 7748). Its private key never leaves this process. Erasing or dropping the pair wipes it.
pub struct KeyPair {
    public_key: [u8; PUBLIC_KEY_BYTES],
    private_key: Secret,
}

impl KeyPair {
    /// Makes a key pair from the system's random source.
    ///
    /// # Errors
    /// [`Error::Entropy`], [`Error::OutOfMemory`].
    pub fn generate() -> Result<Self, Error> {
        Self::with_private_key(random_secret()?)
    }

    /// Makes the key pair of an existing private key. The caller must wipe its own copy.
    ///
    /// # Errors
    /// [`Error::PrivateKeyLength`] unless there are 32 bytes, [`Error::OutOfMemory`].
    pub fn from_private_key(private_key: &[u8]) -> Result<Self, Error> {
        if private_key.len() != SECRET_BYTES {
            return Err(Error::PrivateKeyLength(private_key.len()));
        }
        Self::with_private_key(Secret::new(|bytes| {
            bytes.copy_from_slice(private_key);
            Ok(())
        })?)
    }

    fn with_private_key(private_key: Secret) -> Result<Self, Error> {
        let public_key = private_key.read(|scalar| without_trace(|| x25519::public_key(scalar)))?;
        Ok(Self { public_key, private_key })
    }

    /// Returns the public key, as RFC 7748 encodes it.
    pub fn public_key(&self) -> &[u8; PUBLIC_KEY_BYTES] {
        &self.public_key
    }

    /// Writes the secret shared with the owner of `peer_public_key` to `shared_secret`. On failure it writes nothing.
    ///
    /// # Errors
    /// [`Error::PublicKeyLength`], [`Error::PublicKeySmallOrder`], [`Error::KeyErased`].
    pub fn exchange(&self, peer_public_key: &[u8], shared_secret: &mut [u8; SHARED_SECRET_BYTES]) -> Result<(), Error> {
        let peer: [u8; PUBLIC_KEY_BYTES] =
            peer_public_key.try_into().map_err(|_| Error::PublicKeyLength(peer_public_key.len()))?;
        self.private_key.read(|scalar| without_trace(|| x25519::agree(scalar, &peer, shared_secret)))?
    }

    pub(crate) fn private_key(&self) -> &Secret {
        &self.private_key
    }

    /// Waits until no other thread uses the private key, then wipes it. Every later use fails with
    /// [`Error::KeyErased`].
    pub fn erase(&self) {
        self.private_key.erase();
    }

    /// Has the private key erased after `delay` by a thread of this crate, which waits for nothing else. Of several
    /// calls the earliest deadline counts. Time goes on while the machine sleeps, where the system has a clock that
    /// does.
    ///
    /// # Errors
    /// [`Error::NoThread`]. Then the deadlines are as they were.
    pub fn erase_in(&self, delay: Duration) -> Result<(), Error> {
        self.private_key.erase_in(delay)
    }

    /// Says whether the private key is gone: erased, or left in the process that this one was forked from.
    pub fn is_erased(&self) -> bool {
        self.private_key.is_erased()
    }
}

impl std::fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [a, b, c, d, ..] = self.public_key;
        write!(f, "<KeyPair {a:02x}{b:02x}{c:02x}{d:02x}…{}>", if self.is_erased() { ", erased" } else { "" })
    }
}

/// Makes `count` key pairs, on all processors where that is faster.
///
/// # Errors
/// [`Error::TooManyKeyPairs`] above [`MAX_KEY_PAIRS_PER_CALL`]; [`Error::Entropy`], [`Error::OutOfMemory`]. Then no
/// pair stays.
pub fn generate_key_pairs(count: usize) -> Result<Vec<KeyPair>, Error> {
    if count > MAX_KEY_PAIRS_PER_CALL {
        return Err(Error::TooManyKeyPairs { asked: count, limit: MAX_KEY_PAIRS_PER_CALL });
    }
    let processors = thread::available_parallelism().map_or(1, NonZero::get);
    let least_per_thread = if x25519::computes_in_parallel() { LEAST_PER_THREAD_IN_PARALLEL } else { LEAST_PER_THREAD };
    let threads = processors.min(count / least_per_thread).max(1);
    let share = count / threads;
    // Allocate here all that grows with `count`: here a lack of memory is an error. Libraries allocate the little that
    // is needed later, and for them a lack of memory ends the process.
    let mut key_pairs = room_for(count)?;
    let rooms = (1..threads).map(|_| room_for(share)).collect::<Result<Vec<_>, _>>()?;
    reserve_secrets(count)?;
    require_headroom(threads * (SCRATCH_BYTES_PER_THREAD + STACK_BYTES_PER_THREAD))?;
    // Each call starts its own threads. A forked child would wait for ever for a pool's threads, which it does not
    // have.
    thread::scope(|scope| {
        // If the system refuses a thread, this one does its work.
        let workers: Vec<_> = rooms
            .into_iter()
            .map_while(|room| {
                let builder = thread::Builder::new().stack_size(STACK_BYTES_PER_THREAD);
                builder.spawn_scoped(scope, move || generate_batches(share, room)).ok()
            })
            .collect();
        key_pairs = generate_batches(count - share * workers.len(), key_pairs)?;
        for worker in workers {
            key_pairs.append(&mut worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?);
        }
        Ok(key_pairs)
    })
}

fn room_for(count: usize) -> Result<Vec<KeyPair>, Error> {
    let mut room = Vec::new();
    room.try_reserve_exact(count).map_err(|_| Error::OutOfMemory)?;
    Ok(room)
}

/// Fills `key_pairs`, which is empty and has room for `count`.
fn generate_batches(count: usize, mut key_pairs: Vec<KeyPair>) -> Result<Vec<KeyPair>, Error> {
    while key_pairs.len() < count {
        generate_batch(BATCH.min(count - key_pairs.len()), &mut key_pairs)?;
        // Let an event loop that woke meanwhile run now, after 0.3 ms at most: the end of this thread's time slice is milliseconds away.
        thread::yield_now();
    }
    Ok(key_pairs)
}

fn generate_batch(count: usize, key_pairs: &mut Vec<KeyPair>) -> Result<(), Error> {
    let mut secrets = Vec::with_capacity(count);
    let public_keys = batch_without_trace(|| {
        let lot = draw_secrets(count, &mut secrets)?;
        x25519::public_keys(&secrets, lot)
    })?;
    key_pairs.extend(
        secrets.into_iter().zip(public_keys).map(|(private_key, public_key)| KeyPair { public_key, private_key }),
    );
    Ok(())
}

/// Draws `count` secrets, [`BATCH`] at most, and a random byte by one system call. It leaves its buffer to
/// [`batch_without_trace`].
fn draw_secrets(count: usize, secrets: &mut Vec<Secret>) -> Result<u8, Error> {
    let mut drawn = [0; BATCH * SECRET_BYTES + 1];
    let drawn = &mut drawn[..count * SECRET_BYTES + 1];
    getrandom::fill(drawn)?;
    let (private_keys, lot) = drawn.as_chunks::<SECRET_BYTES>();
    for private_key in private_keys {
        secrets.push(Secret::new(|bytes| {
            bytes.copy_from_slice(private_key);
            Ok(())
        })?);
    }
    Ok(lot[0])
}

fn random_secret() -> Result<Secret, Error> {
    Secret::new(|bytes| Ok(getrandom::fill(bytes)?))
}
