//! A key pair that one thread erases while another uses it.
#![allow(clippy::unwrap_used)] // a test fails by panicking

use std::sync::Barrier;

use server_keys_core::{Error, KeyPair, SHARED_SECRET_BYTES, generate_key_pairs};

fn shared(own: &KeyPair, peer: &KeyPair) -> [u8; SHARED_SECRET_BYTES] {
    let mut shared_secret = [0; SHARED_SECRET_BYTES];
    own.exchange(peer.public_key(), &mut shared_secret).unwrap();
    shared_secret
}

#[test]
fn every_exchange_gives_the_whole_secret_or_none_and_none_succeeds_after_the_erasure() {
    let peer = KeyPair::generate().unwrap();
    for pair in generate_key_pairs(200).unwrap() {
        let expected = shared(&pair, &peer);
        let exchanging = Barrier::new(2);
        std::thread::scope(|scope| {
            let user = scope.spawn(|| {
                let mut shared_secret = [0; SHARED_SECRET_BYTES];
                exchanging.wait();
                loop {
                    match pair.exchange(peer.public_key(), &mut shared_secret) {
                        Ok(()) => assert_eq!(shared_secret, expected),
                        Err(error) => break error,
                    }
                }
            });
            exchanging.wait();
            pair.erase();
            let mut untouched = [0xa5; SHARED_SECRET_BYTES];
            assert_eq!(pair.exchange(peer.public_key(), &mut untouched), Err(Error::KeyErased));
            assert_eq!(untouched, [0xa5; SHARED_SECRET_BYTES]);
            assert_eq!(user.join().unwrap(), Error::KeyErased);
        });
    }
}
