//! Faults of the fast ways to compute: what computed wrongly is switched off, and the user is told once.

use std::sync::atomic::{AtomicU8, Ordering};

/// Something that gave a wrong result. Its `Display` tells the operator what to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EngineFault {
    /// A batch of keys had a public key that x25519-dalek computes differently.
    Batches,
}

impl EngineFault {
    const ALL: [Self; 1] = [Self::Batches];

    fn bit(self) -> u8 {
        1 << self as u8
    }
}

impl std::fmt::Display for EngineFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Batches => {
                "the arithmetic for many keys at once (AVX-512 IFMA) gave another public key than x25519-dalek, which \
                 computes alone from now on: replace the keys that this process has made together, and have the \
                 machine's processor and memory checked"
            }
        })
    }
}

static FOUND: AtomicU8 = AtomicU8::new(0);
static REPORTED: AtomicU8 = AtomicU8::new(0);

/// Returns a fault that no earlier call in this process has returned.
pub fn unreported_engine_fault() -> Option<EngineFault> {
    let unreported = FOUND.load(Ordering::Relaxed) & !REPORTED.load(Ordering::Relaxed);
    EngineFault::ALL
        .into_iter()
        .filter(|fault| unreported & fault.bit() != 0)
        .find(|fault| REPORTED.fetch_or(fault.bit(), Ordering::Relaxed) & fault.bit() == 0)
}

/// Says whether a fault of batches was found in this process.
pub(crate) fn batches_are_faulty() -> bool {
    FOUND.load(Ordering::Relaxed) & EngineFault::Batches.bit() != 0
}

pub(crate) fn note_fault(fault: EngineFault) {
    FOUND.fetch_or(fault.bit(), Ordering::Relaxed);
}
