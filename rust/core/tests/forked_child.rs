//! In a forked child the keys of its parent are gone, and it makes its own.
#![cfg(target_os = "linux")]

use server_keys_core::{Error, KeyPair, RequestOpener, RequestSealer, generate_key_pairs};

/// Runs `child` in a forked process and returns whether it returned true there.
fn in_forked_child(child: impl FnOnce() -> bool) -> bool {
    // SAFETY: the child runs only code of this crate until it ends. Other threads of the harness hold none of its
    // locks.
    match unsafe { libc::fork() } {
        -1 => panic!("fork failed"),
        0 => {
            let succeeded = child();
            // SAFETY: this ends the process at once, before it could return to the harness.
            unsafe { libc::_exit(if succeeded { 0 } else { 1 }) }
        }
        pid => {
            let mut status = 0;
            // SAFETY: the child is ours, and nobody else waits for it.
            assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, 0) }, pid);
            status == 0
        }
    }
}

#[test]
fn a_forked_child_has_none_of_its_parents_keys_and_can_make_its_own() {
    let parents = KeyPair::generate().unwrap();
    let peer = [9; 32];
    let mut before = [0; 32];
    parents.exchange(&peer, &mut before).unwrap();

    assert!(in_forked_child(|| parents.exchange(&peer, &mut [0; 32]) == Err(Error::KeyErased)));
    assert!(in_forked_child(|| parents.is_erased()));
    assert!(in_forked_child(|| {
        parents.erase();
        let own = KeyPair::generate().unwrap();
        let in_grandchild = in_forked_child(|| {
            own.is_erased() && KeyPair::generate().is_ok_and(|grandchilds| !grandchilds.is_erased())
        });
        in_grandchild && own.exchange(&peer, &mut [0; 32]).is_ok()
    }));

    let mut after = [0; 32];
    parents.exchange(&peer, &mut after).unwrap();
    assert_eq!(before, after);
}

#[test]
fn a_forked_child_makes_many_keys_whatever_the_threads_of_its_parent_do() {
    let over = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(std::sync::atomic::Ordering::Relaxed) {
                assert!(generate_key_pairs(33).is_ok());
            }
        });
        for _ in 0..20 {
            assert!(in_forked_child(|| {
                generate_key_pairs(33).is_ok_and(|pairs| {
                    let (one, other) = (&pairs[0], &pairs[32]);
                    let (mut ours, mut theirs) = ([0; 32], [1; 32]);
                    one.exchange(other.public_key(), &mut ours).is_ok()
                        && other.exchange(one.public_key(), &mut theirs).is_ok()
                        && ours == theirs
                })
            }));
        }
        over.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}

#[test]
fn a_forked_child_cannot_go_on_with_a_message_that_its_parent_seals_under_the_same_nonces() {
    let server = KeyPair::generate().unwrap();
    let mut request = RequestSealer::new(server.public_key()).unwrap();
    let frame = request.seal(b"x").unwrap();
    let mut opener = RequestOpener::new(request.encapsulated_key(), [&server], 1000).unwrap();
    opener.feed(&frame).unwrap();
    let mut response = opener.response_sealer().unwrap();
    assert!(in_forked_child(|| {
        response.seal(b"y") == Err(Error::KeyErased)
            && request.seal(b"y") == Err(Error::KeyErased)
            && opener.response_sealer().err() == Some(Error::KeyErased)
            && opener.feed(&[]) == Err(Error::KeyErased)
    }));
    response.seal(b"y").unwrap();
    request.seal(b"y").unwrap();
}
