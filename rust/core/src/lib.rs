//! X25519 key pairs (RFC 7748) for servers that replace their keys every few minutes.
//!
//! This crate knows no Python. Private keys live in one arena of protected memory ([`KeyPair`]); whoever works with one
//! leaves no copy behind on the stack, on the heap ([`WipingAllocator`]) or in registers.

mod arena;
mod error;
mod heap;
mod key_pair;
mod memory;
mod no_trace;

pub use error::Error;
pub use heap::WipingAllocator;
pub use key_pair::{KeyPair, MAX_KEY_PAIRS_PER_CALL, PUBLIC_KEY_BYTES, SHARED_SECRET_BYTES, generate_key_pairs};
pub use memory::{RefusedProtection, unreported_refusal};
