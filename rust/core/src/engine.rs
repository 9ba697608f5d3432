//! Which implementation of the primitives this process uses, and why.

use std::ffi::OsString;
use std::fmt;
use std::sync::OnceLock;

use crate::assembly::{self, Assembly};
use crate::engine_fault::batches_are_faulty;
use crate::lanes::LaneKind;
use crate::self_check::{Mismatch, check};

/// The environment variable that switches the engine off.
const SWITCH: &str = "SERVER_KEYS_ENGINE";
/// The one value that users may give it.
const OFF: &str = "dalek";
/// The value by which tests have batches computed as on a processor with AVX-512 IFMA, only slowly.
const PORTABLE_LANES: &str = "portable-lanes";

/// What computes in this process. Its `Display` is a sentence.
pub struct Engine {
    assembly: Result<Assembly, Unused>,
    lanes: Option<LaneKind>,
}

/// Why the engine does not compute. Its `Display` ends the sentence that begins with "because".
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Unused {
    /// The build left it out, or was for a system that it does not support.
    NotInThisBuild,
    /// The environment variable says so.
    SwitchedOff,
    /// The environment variable has a value that means nothing. Whoever set it did not want the default, so dalek
    /// computes.
    UnknownName(String),
    /// It failed the comparison with dalek and RustCrypto.
    Failed(Mismatch),
}

impl Unused {
    /// Says whether somebody should look after it: nobody asked for it.
    pub fn is_unexpected(&self) -> bool {
        matches!(self, Self::UnknownName(_) | Self::Failed(_))
    }
}

impl fmt::Display for Unused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotInThisBuild => f.write_str("this build has no AWS-LC"),
            Self::SwitchedOff => write!(f, "{SWITCH}={OFF} is set"),
            Self::UnknownName(name) => {
                write!(f, "{SWITCH} has the unknown value {name:?}: set it to {OFF}, or unset it to use AWS-LC")
            }
            Self::Failed(mismatch) => {
                write!(f, "AWS-LC failed the check at its start: {mismatch}; tell the project which processor this is")
            }
        }
    }
}

impl Engine {
    fn choose(switch: Option<OsString>) -> Self {
        let portable_lanes = switch.as_ref().is_some_and(|name| name == PORTABLE_LANES);
        let assembly = Self::find(switch);
        let lanes = match &assembly {
            _ if portable_lanes => Some(LaneKind::Portable),
            // Where AWS-LC does not support the system, lanes suit it all the same.
            Ok(_) | Err(Unused::NotInThisBuild) if cfg!(feature = "engine") => LaneKind::fast(),
            _ => None,
        };
        Self { assembly, lanes }
    }

    fn find(switch: Option<OsString>) -> Result<Assembly, Unused> {
        match switch {
            Some(name) if name == PORTABLE_LANES => {}
            Some(name) if name == OFF => return Err(Unused::SwitchedOff),
            Some(name) => return Err(Unused::UnknownName(name.to_string_lossy().into_owned())),
            None => {}
        }
        let assembly = Assembly::new().ok_or(Unused::NotInThisBuild)?;
        check(&assembly).map_err(Unused::Failed)?;
        Ok(assembly)
    }

    pub(crate) fn assembly(&self) -> Option<&Assembly> {
        self.assembly.as_ref().ok()
    }

    /// Returns the lanes to compute batches of keys over; none if they are not computed in parallel.
    pub(crate) fn lanes(&self) -> Option<LaneKind> {
        self.lanes
    }

    /// Returns why the engine does not compute, if it does not.
    pub fn unused(&self) -> Option<&Unused> {
        self.assembly.as_ref().err()
    }

    /// Returns what computes the public keys of single key pairs.
    pub fn keys(&self) -> &'static str {
        self.either("s2n-bignum", "dalek")
    }

    /// Returns what computes shared secrets.
    pub fn exchanges(&self) -> &'static str {
        self.either("s2n-bignum", "dalek")
    }

    /// Returns what computes the public keys of pairs that are made together.
    pub fn batches(&self) -> &'static str {
        match self.lanes {
            Some(lanes) if !batches_are_faulty() => lanes.name(),
            _ => self.either("s2n-bignum, one by one", "dalek, with one inversion for many"),
        }
    }

    /// Returns what computes AES-256-GCM.
    pub fn aes_gcm(&self) -> &'static str {
        self.either("AWS-LC", "RustCrypto")
    }

    fn either(&self, assembly: &'static str, portable: &'static str) -> &'static str {
        if self.assembly.is_ok() { assembly } else { portable }
    }
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.assembly {
            Ok(_) => write!(
                f,
                "AWS-LC {} computes X25519 (s2n-bignum) and AES-256-GCM, checked against dalek and RustCrypto",
                assembly::VERSION
            )?,
            Err(unused) => write!(f, "dalek computes X25519 and RustCrypto AES-256-GCM, because {unused}")?,
        }
        write!(f, "; batches of keys: {}.", self.batches())
    }
}

/// Returns what computes in this process. The first call chooses it, which takes about half a millisecond.
pub fn engine() -> &'static Engine {
    static ENGINE: OnceLock<Engine> = OnceLock::new();
    ENGINE.get_or_init(|| Engine::choose(std::env::var_os(SWITCH)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_engine_or_its_switch_are_expected() {
        let chosen = |switch: Option<&str>| Engine::choose(switch.map(OsString::from));
        if cfg!(feature = "engine") {
            assert_eq!(chosen(None).unused(), None);
        } else {
            assert_eq!(chosen(None).unused(), Some(&Unused::NotInThisBuild));
        }
        assert_eq!(chosen(Some("dalek")).unused(), Some(&Unused::SwitchedOff));
        assert!(chosen(Some("dalek")).lanes().is_none());
        assert_eq!(chosen(Some("portable-lanes")).unused(), chosen(None).unused());
        assert!(matches!(chosen(Some("portable-lanes")).lanes(), Some(LaneKind::Portable)));
        assert_eq!(chosen(None).lanes().is_some(), cfg!(feature = "engine") && LaneKind::fast().is_some());
        for unknown in ["", "Dalek", "dalek ", "aws-lc"] {
            let engine = chosen(Some(unknown));
            assert_eq!(engine.unused(), Some(&Unused::UnknownName(unknown.to_owned())));
            assert!(engine.unused().is_some_and(Unused::is_unexpected));
            assert_eq!(engine.keys(), "dalek");
            assert!(engine.lanes().is_none());
            assert!(engine.to_string().contains(&format!("{unknown:?}")));
        }
        assert!(!Unused::SwitchedOff.is_unexpected() && !Unused::NotInThisBuild.is_unexpected());
        assert!(Unused::Failed(Mismatch::PublicKey).is_unexpected());
    }
}
