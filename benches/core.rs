//! The core's operations without Python around them: `cargo bench -p server-keys-core`.

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, Throughput};
use server_keys_core::{Error, KeyPair, SHARED_SECRET_BYTES, WipingAllocator, generate_key_pairs};

/// The heap of the Python module, so that the same work is timed.
#[global_allocator]
static HEAP: WipingAllocator = WipingAllocator;

const PRIVATE_KEY: [u8; 32] = [0x42; 32];
const MANY: usize = 1_000;

fn generate(criterion: &mut Criterion) {
    criterion.bench_function("KeyPair::generate", |bencher| {
        bencher.iter(KeyPair::generate);
    });
}

fn generate_many(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("generate_key_pairs");
    group.throughput(Throughput::Elements(MANY as u64));
    group.bench_function(MANY.to_string(), |bencher| bencher.iter(|| generate_key_pairs(black_box(MANY))));
    group.finish();
}

fn from_private_key(criterion: &mut Criterion) {
    criterion.bench_function("KeyPair::from_private_key", |bencher| {
        bencher.iter(|| KeyPair::from_private_key(black_box(&PRIVATE_KEY)));
    });
}

fn exchange(criterion: &mut Criterion) {
    let pairs = (KeyPair::from_private_key(&PRIVATE_KEY), KeyPair::generate());
    let (Ok(own), Ok(peer)) = pairs else { panic!("no keys to measure with: {pairs:?}") };
    criterion.bench_function("KeyPair::exchange", |bencher| {
        bencher.iter(|| -> Result<_, Error> {
            let mut shared_secret = [0; SHARED_SECRET_BYTES];
            own.exchange(black_box(peer.public_key()), &mut shared_secret)?;
            Ok(shared_secret)
        });
    });
}

fn main() {
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_secs(1))
        .measurement_time(Duration::from_secs(4))
        .configure_from_args();
    for benchmark in [generate, generate_many, from_private_key, exchange] {
        benchmark(&mut criterion);
    }
    criterion.final_summary();
}
