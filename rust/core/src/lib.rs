//! X25519 key pairs (RFC 7748) for servers that replace their keys every few minutes, and the Encrypted HTTP Body
//! Protocol (EHBP) that uses them: [`RequestOpener`] and [`ResponseSealer`] on the server, [`RequestSealer`] and
//! [`ResponseOpener`] on the client.
//!
//! The wire's version 1 seals to an [`XWingKeyPair`], so that recorded messages outlast X25519, and shows when a message is
//! cut: [`RequestOpenerV1`] and [`ResponseSealerV1`], [`RequestSealerV1`] and [`ResponseOpenerV1`].
//!
//! Processes that share their keys are a group: [`GroupKeys`] are what its members have in common, and a private key goes
//! from one to another in a box ([`seal_boxes`], [`open_box`]).
//!
//! A [`SigningKey`] is a server's identity: it outlives the key pairs, and signs what publishes them.
//!
//! This crate knows no Python. Private keys live in one arena of protected memory ([`KeyPair`]). A computation with one
//! leaves no copy of it on the stack, on the heap ([`WipingAllocator`]) or in registers. The modules import each other
//! one way only; `tests/no_circles.rs` holds that.

mod arena;
#[cfg_attr(
    not(all(
        feature = "engine",
        any(target_arch = "x86_64", target_arch = "aarch64"),
        any(target_os = "linux", target_os = "macos")
    )),
    path = "no_assembly.rs"
)]
mod assembly;
mod base_multiples;
mod batch;
mod batch_engine;
mod box_contents;
#[cfg(test)]
mod checked_lanes;
mod counting_cipher;
mod curve_point;
mod deadlines;
mod delivery;
mod drawn_bytes;
mod engine;
mod engine_fault;
mod error;
#[cfg(test)]
mod fast_lanes;
mod file_fault;
#[cfg(unix)]
mod file_room;
mod frame;
mod group_keys;
mod group_secret;
mod group_secret_fault;
mod heap;
mod key_pair;
mod key_schedule;
mod lane_field;
mod lanes;
mod limb_products;
#[cfg(test)]
mod memcheck;
mod memory;
mod ml_kem;
mod new_secret_file;
mod no_trace;
mod partial_frame;
mod portable;
mod primitives;
mod private_key_pem;
mod replay_memory;
mod replay_table;
mod replay_table_fault;
mod request;
mod request_context;
mod request_v1;
mod response;
mod response_keys;
mod response_v1;
mod secret;
mod secret_file;
mod self_check;
mod signing_key;
mod signing_key_fault;
#[cfg(test)]
#[path = "../../../benches/timing.rs"]
mod timing;
mod whole_body;
mod writer;
mod x25519;
mod xwing;
mod xwing_box;
mod xwing_key_pair;

pub use arena::HomeProcess;
pub use box_contents::{Delivery, Epoch, MAX_EPOCHS_PER_BOX};
pub use delivery::{MAX_BOX_BYTES, OneTimeKey, open_box, seal_boxes};
pub use engine::{Engine, Unused, engine};
pub use engine_fault::{EngineFault, unreported_engine_fault};
pub use error::Error;
pub use file_fault::FileFault;
pub use frame::DEFAULT_MAX_FRAME_BYTES;
pub use group_keys::{GROUP_ID_BYTES, GroupKeys, TAG_BYTES};
pub use group_secret_fault::GroupSecretFault;
pub use heap::WipingAllocator;
pub use key_pair::{KeyPair, MAX_KEY_PAIRS_PER_CALL, PUBLIC_KEY_BYTES, SHARED_SECRET_BYTES, generate_key_pairs};
pub use memory::{RefusedProtection, unreported_refusal};
pub use replay_table::{
    DEFAULT_REPLAY_TABLE_CAPACITY, LONGEST_REQUEST_ID_BYTES, MAX_REPLAY_TABLE_CAPACITY, ReplayTable,
    SHORTEST_REQUEST_ID_BYTES, Sight,
};
pub use replay_table_fault::ReplayTableFault;
pub use request::{RequestOpener, RequestSealer};
pub use request_v1::{REPLAY_ID_BYTES, RequestOpenerV1, RequestSealerV1};
pub use response::{ResponseOpener, ResponseSealer};
pub use response_keys::{ENCAPSULATED_KEY_BYTES, RESPONSE_NONCE_BYTES};
pub use response_v1::{ResponseOpenerV1, ResponseSealerV1};
pub use self_check::Mismatch;
pub use signing_key::{SIGNATURE_BYTES, SIGNING_PUBLIC_KEY_BYTES, SigningKey, is_signature, is_signing_public_key};
pub use signing_key_fault::SigningKeyFault;
pub use xwing::{XWING_ENCAPSULATED_KEY_BYTES, XWING_PUBLIC_KEY_BYTES, XWingPublicKey};
pub use xwing_key_pair::XWingKeyPair;
