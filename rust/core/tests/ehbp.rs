//! A request and its response, sealed and opened, in pieces of every size.
#![allow(clippy::unwrap_used)] // a test fails by panicking

use std::mem::MaybeUninit;

use server_keys_core::{DEFAULT_MAX_FRAME_BYTES, Error, KeyPair, RequestOpener, RequestSealer};

const MEBIBYTE: usize = 1024 * 1024;

fn sealed_request(sealer: &mut RequestSealer, parts: &[&[u8]]) -> Vec<u8> {
    parts.iter().flat_map(|part| sealer.seal(part).unwrap()).collect()
}

fn opener<'a>(sealer: &RequestSealer, accepted: &[&'a KeyPair]) -> RequestOpener<&'a KeyPair> {
    RequestOpener::new(sealer.encapsulated_key(), accepted.iter().copied(), MEBIBYTE).unwrap()
}

#[test]
fn what_is_sealed_in_frames_is_opened_in_pieces_of_any_size() {
    let server = KeyPair::generate().unwrap();
    for piece_bytes in [1, 3, 20, 21, 4096] {
        let mut sealer = RequestSealer::new(server.public_key()).unwrap();
        let body = sealed_request(&mut sealer, &[b"first", b"", b"second", &[7; 1000]]);
        let mut opener = opener(&sealer, &[&server]);
        let mut plaintext = Vec::new();
        for piece in body.chunks(piece_bytes) {
            plaintext.extend(opener.feed(piece).unwrap());
        }
        opener.finish().unwrap();
        assert_eq!(plaintext, [b"firstsecond".as_slice(), &[7; 1000]].concat());

        let mut response = opener.response_sealer().unwrap();
        let mut reader = sealer.response_opener(response.response_nonce(), MEBIBYTE).unwrap();
        let mut answer = Vec::new();
        for part in [b"token".as_slice(), b" by", b" token"] {
            for piece in response.seal(part).unwrap().chunks(piece_bytes) {
                answer.extend(reader.feed(piece).unwrap());
            }
        }
        reader.finish().unwrap();
        assert_eq!(answer, b"token by token");
    }
}

#[test]
fn the_previous_key_opens_while_it_is_accepted_and_the_request_outlives_its_erasure() {
    let (previous, current) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let mut sealer = RequestSealer::new(previous.public_key()).unwrap();
    let (first, second) = (sealed_request(&mut sealer, &[b"first"]), sealed_request(&mut sealer, &[b"second"]));
    let mut opener = opener(&sealer, &[&current, &previous]);
    assert_eq!(opener.feed(&first).unwrap(), b"first");
    previous.erase();
    assert_eq!(opener.feed(&second).unwrap(), b"second");
    opener.finish().unwrap();
}

#[test]
fn a_key_erased_before_the_first_frame_is_a_mismatch() {
    let server = KeyPair::generate().unwrap();
    let mut sealer = RequestSealer::new(server.public_key()).unwrap();
    let body = sealed_request(&mut sealer, &[b"late"]);
    let mut opener = opener(&sealer, &[&server]);
    server.erase();
    assert_eq!(opener.feed(&body), Err(Error::KeyMismatch));
}

#[test]
fn a_changed_bit_anywhere_opens_nothing() {
    let server = KeyPair::generate().unwrap();
    let mut sealer = RequestSealer::new(server.public_key()).unwrap();
    let body = sealed_request(&mut sealer, &[b"one"]);
    for index in 4..body.len() {
        let mut changed = body.clone();
        changed[index] ^= 1;
        assert_eq!(opener(&sealer, &[&server]).feed(&changed), Err(Error::KeyMismatch));
    }
}

#[test]
fn a_later_frame_that_is_not_authentic_is_malformed() {
    let server = KeyPair::generate().unwrap();
    let mut sealer = RequestSealer::new(server.public_key()).unwrap();
    let mut body = sealed_request(&mut sealer, &[b"one", b"two"]);
    *body.last_mut().unwrap() ^= 1;
    assert_eq!(opener(&sealer, &[&server]).feed(&body), Err(Error::MalformedMessage));
}

#[test]
fn a_frame_above_the_limit_is_refused_by_its_length_alone() {
    let server = KeyPair::generate().unwrap();
    let sealer = RequestSealer::new(server.public_key()).unwrap();
    let refused = opener(&sealer, &[&server]).feed(&u32::MAX.to_be_bytes());
    assert_eq!(refused, Err(Error::FrameTooLarge { announced: u32::MAX as usize, limit: MEBIBYTE }));
}

#[test]
fn an_endless_run_of_empty_frames_is_cut_off() {
    let server = KeyPair::generate().unwrap();
    let mut sealer = RequestSealer::new(server.public_key()).unwrap();
    let mut opener = opener(&sealer, &[&server]);
    opener.feed(&[0; 4 * 1000]).unwrap();
    opener.feed(&sealed_request(&mut sealer, &[b"content"])).unwrap();
    opener.feed(&[0; 4 * 1000]).unwrap();
    assert_eq!(opener.feed(&[0; 4 * 25]), Err(Error::MalformedMessage));
}

#[test]
fn a_first_frame_that_is_shorter_than_a_tag_is_malformed_not_sealed_to_another_key() {
    let server = KeyPair::generate().unwrap();
    let sealer = RequestSealer::new(server.public_key()).unwrap();
    let frame = [15_u32.to_be_bytes().as_slice(), &[0; 15]].concat();
    assert_eq!(opener(&sealer, &[&server]).feed(&frame), Err(Error::MalformedMessage));
}

#[test]
fn a_body_that_ends_inside_a_frame_or_before_the_first_one_is_malformed() {
    let server = KeyPair::generate().unwrap();
    let mut sealer = RequestSealer::new(server.public_key()).unwrap();
    let body = sealed_request(&mut sealer, &[b"whole", b"cut"]);
    for end in (0..body.len()).filter(|&end| end != 4 + 5 + 16) {
        let mut opener = opener(&sealer, &[&server]);
        opener.feed(&body[..end]).unwrap();
        assert_eq!(opener.finish(), Err(Error::MalformedMessage), "ended after {end} bytes");
    }
}

#[test]
fn a_plaintext_longer_than_the_longest_frame_is_split() {
    let server = KeyPair::generate().unwrap();
    let mut sealer = RequestSealer::new(server.public_key()).unwrap();
    let long = vec![1; DEFAULT_MAX_FRAME_BYTES + 5];
    let body = sealed_request(&mut sealer, &[&long]);
    let mut opener = RequestOpener::new(sealer.encapsulated_key(), [&server], DEFAULT_MAX_FRAME_BYTES).unwrap();
    assert!(opener.feed(&body).unwrap() == long);
    opener.finish().unwrap();
}

#[test]
fn nothing_that_was_decrypted_stays_where_a_later_frame_is_not_authentic() {
    let server = KeyPair::generate().unwrap();
    let mut sealer = RequestSealer::new(server.public_key()).unwrap();
    let mut body = sealed_request(&mut sealer, &[&[0x5a; 1000], &[0xa5; 1000]]);
    *body.last_mut().unwrap() ^= 1;
    let mut opener = opener(&sealer, &[&server]);
    let mut plaintext = vec![MaybeUninit::new(0xff); opener.plaintext_bytes(&body)];
    assert_eq!(plaintext.len(), 2000);
    assert_eq!(opener.feed_into(&body, &mut plaintext), Err(Error::MalformedMessage));
    // SAFETY: all of it was written when it was made.
    assert!(plaintext.iter().all(|byte| unsafe { byte.assume_init() } == 0));
}

#[test]
fn a_piece_is_not_taken_where_the_buffer_has_another_length() {
    let server = KeyPair::generate().unwrap();
    let mut sealer = RequestSealer::new(server.public_key()).unwrap();
    for length in [4, 6].map(|bytes| RequestSealer::sealed_bytes(bytes, DEFAULT_MAX_FRAME_BYTES)) {
        let mut sealed = vec![MaybeUninit::uninit(); length];
        assert_eq!(sealer.seal_into(b"hello", DEFAULT_MAX_FRAME_BYTES, &mut sealed), Err(Error::BufferLength));
    }
    let body = sealed_request(&mut sealer, &[b"hello"]);
    let mut opener = opener(&sealer, &[&server]);
    for length in [4, 6] {
        let mut plaintext = vec![MaybeUninit::uninit(); length];
        assert_eq!(opener.feed_into(&body, &mut plaintext), Err(Error::BufferLength));
    }
    assert_eq!(opener.feed(&body).unwrap(), b"hello");
}

#[test]
fn a_body_is_sealed_in_frames_of_the_length_that_is_asked_for() {
    let server = KeyPair::generate().unwrap();
    for (max_frame_bytes, frames) in [(0, 250), (17, 250), (18, 125), (116, 3), (usize::MAX, 1)] {
        let mut sealer = RequestSealer::new(server.public_key()).unwrap();
        let mut sealed = vec![MaybeUninit::uninit(); RequestSealer::sealed_bytes(250, max_frame_bytes)];
        assert_eq!(sealed.len(), 250 + frames * 20);
        let sealed = sealer.seal_into(&[0x5a; 250], max_frame_bytes, &mut sealed).unwrap();
        assert_eq!(opener(&sealer, &[&server]).feed(sealed).unwrap(), [0x5a; 250]);
    }
}

#[test]
fn the_length_of_a_plaintext_is_known_before_it_is_opened() {
    let server = KeyPair::generate().unwrap();
    for piece_bytes in [1, 2, 5, 23, 24, 25, 1000] {
        let mut sealer = RequestSealer::new(server.public_key()).unwrap();
        let body =
            [sealed_request(&mut sealer, &[b"hello"]), vec![0; 4], sealed_request(&mut sealer, &[&[7; 90], b"x"])];
        let mut opener = opener(&sealer, &[&server]);
        for piece in body.concat().chunks(piece_bytes) {
            let expected = opener.plaintext_bytes(piece);
            assert_eq!(opener.feed(piece).unwrap().len(), expected);
        }
    }
}
