//! A table of seen requests: each id is new once.
#![allow(clippy::unwrap_used)] // a test fails by panicking

use std::sync::Barrier;
use std::thread;

use server_keys_core::{
    DEFAULT_REPLAY_TABLE_CAPACITY, Error, MAX_REPLAY_TABLE_CAPACITY, ReplayTable, ReplayTableFault, Sight,
};

const THREADS: usize = 8;

/// Adds the ids from all threads at the same time, each in an order of its own, and returns how many were new to whom.
fn firsts_of_each_thread(table: &ReplayTable, ids: u64) -> Vec<Vec<u64>> {
    let start = Barrier::new(THREADS);
    thread::scope(|scope| {
        let threads = (0..THREADS as u64).map(|thread| {
            let start = &start;
            scope.spawn(move || {
                start.wait();
                // Half of them go up, half of them down, so that they meet.
                let order = (0..ids).map(|id| if thread % 2 == 0 { id } else { ids - 1 - id });
                order.filter(|id| table.add(&id.to_le_bytes()) == Ok(Sight::First)).collect()
            })
        });
        let threads: Vec<_> = threads.collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

#[test]
fn of_all_threads_that_add_an_id_exactly_one_is_the_first() {
    let ids = 1_000_000;
    let table = ReplayTable::own(1_000_000).unwrap();
    let mut firsts = firsts_of_each_thread(&table, ids).concat();
    firsts.sort_unstable();
    assert!(firsts.into_iter().eq(0..ids));
    assert_eq!(table.used(), 1_000_000);
}

#[test]
fn all_threads_together_add_no_more_than_fit_and_one_each() {
    let table = ReplayTable::own(1_000).unwrap();
    let firsts = firsts_of_each_thread(&table, 100_000).concat();
    assert!((1_000..1_000 + THREADS).contains(&firsts.len()), "{}", firsts.len());
    assert!(firsts.iter().all(|id| table.add(&id.to_le_bytes()) == Ok(Sight::Again)));
}

#[test]
fn of_10_million_ids_and_as_many_replays_each_is_taken_once_over_the_tables_of_successive_keys() {
    const BEYOND: usize = 1_000;
    let (mut offered, mut firsts_of_each) = (0, [0, 0]);
    while offered < 10_000_000 {
        let table = ReplayTable::own(DEFAULT_REPLAY_TABLE_CAPACITY).unwrap();
        let ids = offered..offered + (DEFAULT_REPLAY_TABLE_CAPACITY + BEYOND) as u64;
        let offer = |ids: &mut dyn Iterator<Item = u64>| -> Vec<u64> {
            ids.filter(|id| table.add(&id.to_le_bytes()) == Ok(Sight::First)).collect()
        };
        let start = Barrier::new(2);
        let firsts = thread::scope(|scope| {
            let down = scope.spawn(|| {
                start.wait();
                offer(&mut ids.clone().rev())
            });
            start.wait();
            [offer(&mut ids.clone()), down.join().unwrap()]
        });
        firsts_of_each = [0, 1].map(|thread| firsts_of_each[thread] + firsts[thread].len());
        let mut firsts = firsts.concat();
        firsts.sort_unstable();
        // Both may take the last one at the same time.
        assert!((table.capacity()..table.capacity() + 2).contains(&firsts.len()));
        assert_eq!(table.used(), firsts.len());
        let mut firsts = firsts.into_iter().peekable();
        for id in ids.clone() {
            let was_first = firsts.next_if_eq(&id).is_some();
            let expected = if was_first { Ok(Sight::Again) } else { Err(ReplayTableFault::Full) };
            assert_eq!(table.add(&id.to_le_bytes()), expected);
        }
        assert_eq!(firsts.next(), None, "two threads were told that an id is new");
        offered = ids.end;
    }
    assert!(firsts_of_each.iter().all(|firsts| *firsts > 0), "the threads did not run at the same time");
}

#[test]
fn a_full_table_still_knows_what_it_has_seen() {
    for capacity in [1, 2, 3, 1_000] {
        let table = ReplayTable::own(capacity).unwrap();
        let ids: Vec<_> = (0..capacity as u64).map(u64::to_be_bytes).collect();
        assert!(ids.iter().all(|id| table.add(id) == Ok(Sight::First)));
        assert_eq!(table.add(b"one more"), Err(ReplayTableFault::Full));
        assert!(ids.iter().all(|id| table.add(id) == Ok(Sight::Again)));
        assert_eq!(table.used(), capacity);
    }
}

#[test]
fn an_id_and_a_longer_one_that_begins_with_it_are_two() {
    let table = ReplayTable::own(100).unwrap();
    for length in 8..=32 {
        assert_eq!(table.add(&vec![0; length]), Ok(Sight::First));
    }
}

#[test]
fn an_id_of_another_length_and_a_capacity_out_of_range_are_refused() {
    let table = ReplayTable::own(1).unwrap();
    for length in [0, 7, 33] {
        assert!(matches!(table.add(&vec![0; length]), Err(ReplayTableFault::IdLength { .. })));
    }
    assert_eq!(table.used(), 0);
    for asked in [0, MAX_REPLAY_TABLE_CAPACITY + 1, usize::MAX] {
        let fault = ReplayTableFault::Capacity { asked, limit: MAX_REPLAY_TABLE_CAPACITY };
        assert_eq!(ReplayTable::own(asked).unwrap_err(), Error::ReplayTable(fault));
    }
}

/// In its file, a table begins with a header of this length, in which its secret is.
#[cfg(target_os = "linux")]
const HEADER_BYTES: usize = 128;
#[cfg(target_os = "linux")]
const SECRET: std::ops::Range<usize> = 24..40;

#[cfg(target_os = "linux")]
#[test]
fn ids_that_are_chosen_to_lie_side_by_side_in_one_table_lie_anywhere_in_another() {
    use siphasher::sip::SipHasher24;

    let (chosen_for, other) = (table_file("chosen-for"), table_file("other"));
    let secret = std::fs::read(&chosen_for.1).unwrap()[SECRET].try_into().unwrap();
    // What whoever knows the secret can do: choose ids whose place is in the first 64th.
    let hasher = SipHasher24::new_with_key(&secret);
    let first = |id: &[u8]| hasher.hash(id) >> 58 == 0;
    let ids: Vec<_> = (0..).map(u64::to_le_bytes).filter(|id| first(id)).take(1_000).collect();
    for (table, _) in [&chosen_for, &other] {
        assert!(ids.iter().all(|id| table.add(id) == Ok(Sight::First)));
    }
    let in_first_64th = |path| {
        let file = std::fs::read(path).unwrap();
        let slots = file[HEADER_BYTES..].as_chunks::<8>().0;
        slots[..slots.len() / 64].iter().filter(|slot| **slot != [0; 8]).count()
    };
    // The last ones may lie behind its end, because others have their places.
    assert!(in_first_64th(&chosen_for.1) >= 990);
    assert!(in_first_64th(&other.1) < 50);
    for (_, path) in [chosen_for, other] {
        std::fs::remove_file(path).unwrap();
    }
}

/// Makes a table of 2^16 ids in a file, and returns it with the path.
#[cfg(target_os = "linux")]
fn table_file(name: &str) -> (ReplayTable, std::path::PathBuf) {
    let path = std::env::temp_dir().join(format!("replay-table-{name}-{}", std::process::id()));
    let file = std::fs::File::options().read(true).write(true).create_new(true).open(&path).unwrap();
    (ReplayTable::make_shared(file.into(), 1 << 16).unwrap(), path)
}
