//! Key pairs made together are as good as those made one by one.
#![allow(clippy::unwrap_used)] // a test fails by panicking

use std::collections::HashSet;

use server_keys_core::{Error, KeyPair, MAX_KEY_PAIRS_PER_CALL, generate_key_pairs};

fn exchanged(own: &KeyPair, peer: &KeyPair) -> [u8; 32] {
    let mut shared_secret = [0; 32];
    own.exchange(peer.public_key(), &mut shared_secret).unwrap();
    shared_secret
}

#[test]
fn every_public_key_belongs_to_its_private_key() {
    let peer = KeyPair::generate().unwrap();
    // Around the sizes of lanes (8), of one batch (32), of two, and of the work that gets a second thread (128).
    for count in [0, 1, 2, 3, 7, 8, 9, 31, 32, 33, 63, 64, 65, 127, 128, 129, 1000] {
        let key_pairs = generate_key_pairs(count).unwrap();
        assert_eq!(key_pairs.len(), count);
        for key_pair in &key_pairs {
            assert_eq!(exchanged(key_pair, &peer), exchanged(&peer, key_pair));
        }
        let different: HashSet<_> = key_pairs.iter().map(KeyPair::public_key).collect();
        assert_eq!(different.len(), count);
    }
}

#[test]
fn the_same_over_portable_lanes_and_by_dalek_alone() {
    for engine in ["portable-lanes", "dalek"] {
        let tests = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--skip", "the_same_over_portable_lanes"])
            .env("SERVER_KEYS_ENGINE", engine)
            .output()
            .unwrap();
        assert!(tests.status.success(), "{engine}: {}", String::from_utf8_lossy(&tests.stdout));
    }
}

#[test]
fn threads_that_make_many_at_the_same_time_share_no_key() {
    let made = std::thread::scope(|scope| {
        let makers: Vec<_> = (0..8).map(|_| scope.spawn(|| generate_key_pairs(500).unwrap())).collect();
        makers.into_iter().flat_map(|maker| maker.join().unwrap()).collect::<Vec<_>>()
    });
    let different: HashSet<_> = made.iter().map(KeyPair::public_key).collect();
    assert_eq!(different.len(), 4000);
}

#[test]
fn a_count_above_the_limit_is_refused() {
    for count in [MAX_KEY_PAIRS_PER_CALL + 1, usize::MAX] {
        assert_eq!(
            generate_key_pairs(count).err(),
            Some(Error::TooManyKeyPairs { asked: count, limit: MAX_KEY_PAIRS_PER_CALL })
        );
    }
}
