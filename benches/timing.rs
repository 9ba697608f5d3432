//! Whether the time of a batch depends on its private keys: the statistic of dudect (Reparaz, Balasch, Verbauwhede: Dude,
//! is my code constant time?). It is compiled into the core's tests, because it measures what the crate does not export:
//! `cargo test --release -p server-keys-core --lib -- --ignored --nocapture timing`.
#![cfg(test)]

use std::hint::black_box;
use std::time::{Duration, Instant};

use crate::batch::{BATCH, Scalars};
use crate::batch_engine::Measured;

const DURATION: Duration = Duration::from_secs(5);
/// Of dudect: above it, a difference is likely.
const SUSPICIOUS: f64 = 4.5;

/// The mean and variance of what came so far (Welford).
#[derive(Default)]
struct Samples {
    count: f64,
    mean: f64,
    squares: f64,
}

impl Samples {
    fn add(&mut self, sample: f64) {
        self.count += 1.0;
        let off = sample - self.mean;
        self.mean += off / self.count;
        self.squares += off * (sample - self.mean);
    }

    fn squared_error(&self) -> f64 {
        self.squares / (self.count - 1.0) / self.count
    }
}

/// Welch's t of two classes of times, without the slowest tenth, which interrupts make.
fn welch_t(times: &[(bool, f64)]) -> f64 {
    let mut sorted: Vec<_> = times.iter().map(|(_, time)| *time).collect();
    sorted.sort_by(f64::total_cmp);
    let limit = sorted[sorted.len() / 10 * 9];
    let mut classes = [Samples::default(), Samples::default()];
    for (is_fixed, time) in times.iter().filter(|(_, time)| *time < limit) {
        classes[usize::from(*is_fixed)].add(*time);
    }
    let [random, fixed] = classes;
    (random.mean - fixed.mean) / (random.squared_error() + fixed.squared_error()).sqrt()
}

fn random_bytes<const COUNT: usize>() -> [u8; COUNT] {
    let mut bytes = [0; COUNT];
    getrandom::fill(&mut bytes).unwrap();
    bytes
}

/// Returns scalars of one fixed key or of random ones, and which.
fn random_class() -> (bool, Scalars) {
    let is_fixed = random_bytes::<1>()[0] & 1 == 1;
    let mut scalars = Scalars::NONE;
    for _ in 0..BATCH {
        // Draw for both classes, so that they are prepared alike.
        let random = random_bytes::<32>();
        scalars.push(if is_fixed { &[0; 32] } else { &random });
    }
    (is_fixed, scalars)
}

/// Times `compute` with batches of one fixed key and of random keys, in random order.
fn timed(mut compute: impl FnMut(&Scalars)) -> Vec<(bool, f64)> {
    let began = Instant::now();
    let mut times = Vec::new();
    while began.elapsed() < DURATION {
        let inputs: Vec<_> = (0..500).map(|_| random_class()).collect();
        for (is_fixed, scalars) in &inputs {
            let began = Instant::now();
            compute(black_box(scalars));
            times.push((*is_fixed, began.elapsed().as_secs_f64()));
        }
    }
    times
}

#[test]
#[ignore = "measures; it decides nothing"]
fn welch_t_of_batches_with_a_fixed_key_and_with_random_ones() {
    for measured in Measured::all() {
        let times = timed(|scalars| {
            black_box(measured.public_keys(scalars));
        });
        let t = welch_t(&times);
        let verdict = if t.abs() < SUSPICIOUS { "no difference seen" } else { "look into it" };
        println!(
            "batches by {}: Welch's t = {t:.2} of {} batches: {verdict} (suspicious from {SUSPICIOUS})",
            measured.name(),
            times.len()
        );
    }
}

#[test]
fn the_statistic_sees_a_difference_of_a_few_per_mille() {
    let noise = |index: usize| ((index * 7919) % 100) as f64;
    let times = |slower: f64| -> Vec<_> {
        (0..20_000).map(|index| (index % 2 == 1, 1000.0 + noise(index / 2) + slower * (index % 2) as f64)).collect()
    };
    assert!(welch_t(&times(0.0)).abs() < SUSPICIOUS);
    assert!(welch_t(&times(5.0)).abs() > SUSPICIOUS);
}
