//! Whether batches of public keys are computed eight in parallel, over which lanes, and whether the results are right.

use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering};

use crate::base_multiples::BaseMultiples;
use crate::batch::{BATCH, Scalars, public_keys};
use crate::engine::engine;
use crate::engine_fault::{EngineFault, note_fault};
use crate::error::Error;
use crate::lanes::{LaneKind, PortableLanes};
use crate::portable::Portable;
use crate::primitives::Primitives;
use crate::secret::Secret;

/// Eight keys in parallel take the time of one or two.
const LEAST: usize = 3;

/// What is compared when the table is made: the private keys of RFC 7748, section 6.1, and the extremes of the clamp.
/// Their public keys are compared, too, as if they were private ones.
const SELF_TEST: [[u8; 32]; 8] = [
    *b"\x77\x07\x6d\x0a\x73\x18\xa5\x7d\x3c\x16\xc1\x72\x51\xb2\x66\x45\xdf\x4c\x2f\x87\xeb\xc0\x99\x2a\xb1\x77\xfb\xa5\x1d\xb9\x2c\x2a",
    *b"\x5d\xab\x08\x7e\x62\x4a\x8a\x4b\x79\xe1\x7f\x8b\x83\x80\x0e\xe6\x6f\x3b\xb1\x29\x26\x18\xb6\xfd\x1c\x2f\x8b\x27\xff\x88\xe0\xeb",
    [0; 32],
    [0xff; 32],
    [0x55; 32],
    [0xaa; 32],
    [0x0f; 32],
    [0xf0; 32],
];

fn compute_table(lanes: LaneKind) -> Option<BaseMultiples> {
    match lanes {
        #[cfg(target_arch = "x86_64")]
        LaneKind::Ifma(zero) => BaseMultiples::compute(zero),
        LaneKind::Portable => BaseMultiples::compute(PortableLanes::ZERO),
    }
}

fn compute(lanes: LaneKind, table: &BaseMultiples, scalars: &Scalars) -> [[u8; 32]; BATCH] {
    match lanes {
        #[cfg(target_arch = "x86_64")]
        LaneKind::Ifma(zero) => public_keys(zero, table, scalars),
        LaneKind::Portable => public_keys(PortableLanes::ZERO, table, scalars),
    }
}

/// The engine of this process.
pub(crate) static BATCH_ENGINE: BatchEngine = BatchEngine::new();

/// Computes the public keys of batches until it is found to compute wrongly.
pub(crate) struct BatchEngine {
    /// Null until the first batch. There is no lock that a forked child could find held.
    table: AtomicPtr<BaseMultiples>,
    is_faulty: AtomicBool,
}

impl BatchEngine {
    const fn new() -> Self {
        Self { table: AtomicPtr::new(std::ptr::null_mut()), is_faulty: AtomicBool::new(false) }
    }

    /// Says whether batches are computed so fast that a thread is worth its start only for many keys.
    pub(crate) fn is_fast(&self) -> bool {
        engine().lanes().is_some_and(LaneKind::is_fast) && !self.is_faulty.load(Ordering::Relaxed)
    }

    /// Returns the public keys of `secrets`, [`BATCH`] at most, or none where they must be computed one by one.
    ///
    /// The key of the number `lot` is checked. So if `lot` is random, one key of each 256 is. If it is wrong, the engine
    /// switches itself off.
    ///
    /// # Errors
    /// [`Error::KeyErased`].
    pub(crate) fn public_keys(&self, secrets: &[Secret], lot: u8) -> Result<Option<[[u8; 32]; BATCH]>, Error> {
        match engine().lanes() {
            Some(lanes) if secrets.len() >= LEAST => self.public_keys_over(lanes, secrets, lot),
            _ => Ok(None),
        }
    }

    fn public_keys_over(
        &self,
        lanes: LaneKind,
        secrets: &[Secret],
        lot: u8,
    ) -> Result<Option<[[u8; 32]; BATCH]>, Error> {
        let Some(table) = self.table(lanes) else { return Ok(None) };
        let mut scalars = Scalars::NONE;
        for secret in secrets {
            secret.read(|private_key| scalars.push(private_key))?;
        }
        let public_keys = compute(lanes, table, &scalars);
        if let Some(secret) = secrets.get(usize::from(lot))
            && secret.read(public_key)? != public_keys[usize::from(lot)]
        {
            self.switch_off();
            return Ok(None);
        }
        Ok(Some(public_keys))
    }

    /// Returns the table, which the first caller makes and tests; none if the engine is switched off, or memory is short.
    fn table(&self, lanes: LaneKind) -> Option<&BaseMultiples> {
        if self.is_faulty.load(Ordering::Relaxed) {
            return None;
        }
        let seen = self.table.load(Ordering::Acquire);
        // SAFETY: a published table is never freed or changed.
        if let Some(table) = unsafe { seen.as_ref() } {
            return Some(table);
        }
        let table = compute_table(lanes)?;
        if !passes_self_test(lanes, &table) {
            self.switch_off();
            return None;
        }
        let new = Box::into_raw(Box::new(table));
        match self.table.compare_exchange(seen, new, Ordering::AcqRel, Ordering::Acquire) {
            // SAFETY: as above.
            Ok(_) => unsafe { new.as_ref() },
            Err(published) => {
                // SAFETY: another thread published its table first, so nobody has seen this one.
                drop(unsafe { Box::from_raw(new) });
                // SAFETY: as above.
                unsafe { published.as_ref() }
            }
        }
    }

    fn switch_off(&self) {
        self.is_faulty.store(true, Ordering::Relaxed);
        note_fault(EngineFault::Batches);
    }
}

fn passes_self_test(lanes: LaneKind, table: &BaseMultiples) -> bool {
    let mut private_keys = SELF_TEST;
    (0..2).all(|_| {
        let mut scalars = Scalars::NONE;
        private_keys.iter().for_each(|private_key| scalars.push(private_key));
        let computed = compute(lanes, table, &scalars);
        let agree = private_keys.iter().zip(&computed).all(|(private_key, key)| public_key(private_key) == *key);
        private_keys.copy_from_slice(&computed[..SELF_TEST.len()]);
        agree
    })
}

/// Computes what is right.
fn public_key(private_key: &[u8; 32]) -> [u8; 32] {
    Portable.public_key(private_key)
}

/// Lanes with their table, for measurements.
#[cfg(test)]
pub(crate) struct Measured(LaneKind, BaseMultiples);

#[cfg(test)]
impl Measured {
    /// Returns all lanes that this processor has.
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        let lanes = LaneKind::fast().into_iter().chain([LaneKind::Portable]);
        lanes.filter_map(Self::over)
    }

    pub(crate) fn over(lanes: LaneKind) -> Option<Self> {
        Some(Self(lanes, compute_table(lanes)?))
    }

    pub(crate) fn name(&self) -> &'static str {
        self.0.name()
    }

    pub(crate) fn public_keys(&self, scalars: &Scalars) -> [[u8; 32]; BATCH] {
        compute(self.0, &self.1, scalars)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::engine_fault::unreported_engine_fault;

    fn computed(measured: &Measured, private_keys: &[[u8; 32]]) -> Vec<[u8; 32]> {
        let batches = private_keys.chunks(BATCH).flat_map(|private_keys| {
            let mut scalars = Scalars::NONE;
            private_keys.iter().for_each(|private_key| scalars.push(private_key));
            measured.public_keys(&scalars).into_iter().take(private_keys.len())
        });
        batches.collect()
    }

    #[track_caller]
    pub(crate) fn assert_right(measured: &Measured, private_keys: &[[u8; 32]]) {
        for (private_key, computed) in private_keys.iter().zip(computed(measured, private_keys)) {
            assert_eq!(computed, public_key(private_key), "for {private_key:02x?} over {}", measured.name());
        }
    }

    fn secrets(private_keys: &[[u8; 32]]) -> Vec<Secret> {
        let secret = |private_key: &[u8; 32]| {
            Secret::new(|bytes| {
                *bytes = *private_key;
                Ok(())
            })
        };
        private_keys.iter().map(|private_key| secret(private_key).unwrap()).collect()
    }

    pub(crate) fn random_keys(count: usize) -> Vec<[u8; 32]> {
        let mut keys = vec![[0; 32]; count];
        getrandom::fill(keys.as_flattened_mut()).unwrap();
        keys
    }

    pub(crate) fn extreme_private_keys() -> Vec<[u8; 32]> {
        let mut private_keys = vec![[0; 32], [0xff; 32]];
        for bit in 0..256 {
            let mut single = [0; 32];
            single[bit / 8] = 1 << (bit % 8);
            private_keys.extend([single, single.map(|byte| !byte)]);
        }
        // Every byte alike: among them digits that are all the largest, the smallest and the middle ones.
        private_keys.extend((0..=255).map(|byte| [byte; 32]));
        // Each value of each digit, between digits of the smallest and of the largest value.
        for digit in 0..crate::base_multiples::DIGITS {
            for value in 0..32_u8 {
                for around in [0, 0xff] {
                    let mut key = [around; 32];
                    for bit in 0..5 {
                        let place = 5 * digit + 1 + bit;
                        key[place / 8] &= !(1 << (place % 8));
                        key[place / 8] |= (value >> bit & 1) << (place % 8);
                    }
                    private_keys.push(key);
                }
            }
        }
        private_keys
    }

    pub(crate) fn private_keys_around_the_multiples_of_the_order() -> Vec<[u8; 32]> {
        // The order l = 2^252 + 27742317777372353535851937790883648493, four times, in words. Scalars are multiples of
        // eight from 2^254 up, so the multiples of l among them are 4l, 6l and 7l, or lie between two of them.
        const ORDER: [u64; 4] = [0x5812631a5cf5d3ed, 0x14def9dea2f79cd6, 0, 0x1000000000000000];
        let mut private_keys = Vec::new();
        for times in 4..=7 {
            for offset in -64_i64..=64 {
                let mut key = [0; 32];
                let mut carry = i128::from(offset);
                for (place, word) in key.as_chunks_mut::<8>().0.iter_mut().zip(ORDER) {
                    carry += i128::from(word) * times;
                    *place = (carry as u64).to_le_bytes();
                    carry >>= 64;
                }
                private_keys.push(key);
            }
        }
        private_keys
    }

    #[test]
    fn the_public_keys_of_rfc_7748() {
        for measured in Measured::all() {
            let keys = computed(&measured, &SELF_TEST[..2]);
            let hex: Vec<_> = keys.iter().map(|key| key.map(|byte| format!("{byte:02x}")).concat()).collect();
            assert_eq!(hex[0], "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a");
            assert_eq!(hex[1], "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f");
        }
    }

    #[test]
    fn the_public_keys_of_extreme_private_keys() {
        for measured in Measured::all() {
            assert_right(&measured, &extreme_private_keys());
        }
    }

    #[test]
    fn scalars_around_the_multiples_of_the_base_points_order() {
        for measured in Measured::all() {
            assert_right(&measured, &private_keys_around_the_multiples_of_the_order());
        }
    }

    #[test]
    fn random_private_keys() {
        for measured in Measured::all() {
            assert_right(&measured, &random_keys(20_000));
        }
    }

    #[test]
    #[ignore = "takes two minutes: cargo test --release -p server-keys-core --lib -- --ignored million"]
    fn a_million_random_private_keys() {
        for measured in Measured::all() {
            for _ in 0..100 {
                assert_right(&measured, &random_keys(10_000));
            }
            println!("a million keys are right over {}", measured.name());
        }
    }

    #[test]
    fn batches_of_every_size() {
        for Measured(lanes, _) in Measured::all() {
            let engine = BatchEngine::new();
            for count in LEAST..=BATCH {
                let private_keys = random_keys(count);
                let keys = engine.public_keys_over(lanes, &secrets(&private_keys), 0).unwrap().unwrap();
                for (private_key, key) in private_keys.iter().zip(keys) {
                    assert_eq!(key, public_key(private_key), "{count}");
                }
            }
        }
    }

    #[test]
    fn a_table_that_is_wrong_from_the_start_is_never_used() {
        for Measured(lanes, mut table) in Measured::all() {
            assert!(passes_self_test(lanes, &table));
            table.corrupt();
            assert!(!passes_self_test(lanes, &table));
        }
    }

    #[test]
    fn a_wrong_key_switches_the_engine_off_and_is_reported_once() {
        assert_eq!(unreported_engine_fault(), None);
        for Measured(lanes, mut table) in Measured::all() {
            table.corrupt();
            let engine = BatchEngine::new();
            engine.table.store(Box::into_raw(Box::new(table)), Ordering::Release);
            // Of so many digits some pick the wrong entry.
            let secrets = secrets(&random_keys(BATCH));
            // Nobody looks at a key beyond the last one.
            assert!(engine.public_keys_over(lanes, &secrets, BATCH as u8).unwrap().is_some());
            assert!(engine.public_keys_over(lanes, &secrets, BATCH as u8 - 1).unwrap().is_none());
            assert!(engine.public_keys_over(lanes, &secrets, BATCH as u8).unwrap().is_none());
        }
        assert_eq!(unreported_engine_fault(), Some(EngineFault::Batches));
        assert_eq!(unreported_engine_fault(), None);
    }

    #[test]
    fn an_erased_secret_gives_no_key() {
        let secrets = secrets(&random_keys(BATCH));
        secrets[5].erase();
        assert_eq!(BatchEngine::new().public_keys_over(LaneKind::Portable, &secrets, 0), Err(Error::KeyErased));
    }

    #[test]
    fn threads_that_race_for_the_table_get_the_same_one() {
        let engine = BatchEngine::new();
        let tables = std::thread::scope(|scope| {
            let racers: Vec<_> = (0..8)
                .map(|_| scope.spawn(|| std::ptr::from_ref(engine.table(LaneKind::Portable).unwrap()).addr()))
                .collect();
            racers.into_iter().map(|racer| racer.join().unwrap()).collect::<std::collections::HashSet<_>>()
        });
        assert_eq!(tables.len(), 1);
    }
}
