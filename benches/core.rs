//! The core's operations without Python around them: `cargo bench -p server-keys-core`.

use std::hint::black_box;
use std::time::Duration;

use criterion::{BatchSize, Criterion, Throughput};
use server_keys_core::{
    DEFAULT_REPLAY_TABLE_CAPACITY, Error, KeyPair, ReplayTable, SHARED_SECRET_BYTES, WipingAllocator,
    generate_key_pairs,
};

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

/// A table, and the path of its file if it lies in one.
struct Table(ReplayTable, Option<std::path::PathBuf>);

type NewTable = fn() -> Table;

impl Table {
    fn own() -> Self {
        Self(made(ReplayTable::own(DEFAULT_REPLAY_TABLE_CAPACITY)), None)
    }

    #[cfg(target_os = "linux")]
    fn in_a_file() -> Self {
        let path = std::env::temp_dir().join(format!("server-keys-bench-{}", std::process::id()));
        let file = std::fs::File::options().read(true).write(true).create_new(true).open(&path);
        let file = file.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        Self(made(ReplayTable::make_shared(file.into(), DEFAULT_REPLAY_TABLE_CAPACITY)), Some(path))
    }

    fn add_all(&self, ids: &[[u8; 8]]) {
        assert!(ids.iter().all(|id| self.0.add(id).is_ok()));
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        if let Some(path) = &self.1 {
            let _ = std::fs::remove_file(path);
        }
    }
}

fn made(table: Result<ReplayTable, Error>) -> ReplayTable {
    table.unwrap_or_else(|error| panic!("no table to measure with: {error}"))
}

/// Adds ids that are new until the table is full, and ids that are there.
fn replay_table(criterion: &mut Criterion) {
    let ids: Vec<_> = (0..DEFAULT_REPLAY_TABLE_CAPACITY as u64).map(u64::to_le_bytes).collect();
    let mut group = criterion.benchmark_group("ReplayTable::add");
    group.throughput(Throughput::Elements(ids.len() as u64)).sample_size(20);
    let places: &[(&str, NewTable)] = &[
        ("in memory", Table::own),
        #[cfg(target_os = "linux")]
        ("in a file", Table::in_a_file),
    ];
    for (place, new_table) in places {
        group.bench_function(format!("new {place}"), |bencher| {
            bencher.iter_batched(new_table, |table| table.add_all(&ids), BatchSize::PerIteration);
        });
        let table = new_table();
        table.add_all(&ids);
        group.bench_function(format!("seen {place}"), |bencher| bencher.iter(|| table.add_all(&ids)));
    }
    group.finish();
}

fn main() {
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_secs(1))
        .measurement_time(Duration::from_secs(4))
        .configure_from_args();
    for benchmark in [generate, generate_many, from_private_key, exchange, replay_table] {
        benchmark(&mut criterion);
    }
    criterion.final_summary();
}
