//! Messages of the wire's version 1: what is whole opens, and nothing else does.
#![allow(clippy::unwrap_used)] // a test fails by panicking

use std::mem::MaybeUninit;

use server_keys_core::{
    Error, KeyPair, RequestOpenerV1, RequestSealerV1, ResponseOpenerV1, ResponseSealerV1, XWING_ENCAPSULATED_KEY_BYTES,
    XWingKeyPair,
};

const MEBIBYTE: usize = 1024 * 1024;
const END_BYTES: usize = 20;

struct Request {
    sealer: RequestSealerV1,
    head: Vec<u8>,
    body: Vec<u8>,
}

fn request(server: &XWingKeyPair, pieces: &[&[u8]]) -> Request {
    let mut sealer = RequestSealerV1::new(server.public_key()).unwrap();
    let head = sealer.seal_head(b"POST /path").unwrap();
    let mut body: Vec<u8> = pieces.iter().flat_map(|piece| sealer.seal(piece).unwrap()).collect();
    body.extend(sealer.seal_end().unwrap());
    Request { sealer, head, body }
}

impl Request {
    fn opener(&self, server: &XWingKeyPair) -> RequestOpenerV1 {
        RequestOpenerV1::new(self.sealer.encapsulated_key(), &self.head, server, MEBIBYTE).unwrap()
    }
}

/// A body and what opens it.
trait Opener {
    fn feed(&mut self, piece: &[u8]) -> Result<Vec<u8>, Error>;
    fn finish(&mut self) -> Result<(), Error>;
    fn is_ended(&self) -> bool;
    fn expect_no_body(&mut self) -> Result<(), Error>;
}

macro_rules! opener {
    ($opener:ty) => {
        impl Opener for $opener {
            fn feed(&mut self, piece: &[u8]) -> Result<Vec<u8>, Error> {
                self.feed(piece)
            }
            fn finish(&mut self) -> Result<(), Error> {
                self.finish()
            }
            fn is_ended(&self) -> bool {
                self.is_ended()
            }
            fn expect_no_body(&mut self) -> Result<(), Error> {
                self.expect_no_body()
            }
        }
    };
}

opener!(RequestOpenerV1);
opener!(ResponseOpenerV1);

/// One message of each direction: its body with two pieces, its end, and a maker of openers.
fn each_direction(check: impl Fn(&[u8], &dyn Fn() -> Box<dyn Opener>)) {
    let server = XWingKeyPair::generate().unwrap();
    let pieces: [&[u8]; 2] = [b"first", &[7; 40]];
    let request = request(&server, &pieces);
    check(&request.body, &|| Box::new(request.opener(&server)));
    let mut response = request.opener(&server).response_sealer().unwrap();
    let head = response.seal_head(b"200").unwrap();
    let mut body: Vec<u8> = pieces.iter().flat_map(|piece| response.seal(piece).unwrap()).collect();
    body.extend(response.seal_end().unwrap());
    let nonce = *response.response_nonce();
    check(&body, &|| Box::new(request.sealer.response_opener(&nonce, &head, MEBIBYTE).unwrap()));
}

#[test]
fn what_is_sealed_is_opened_in_pieces_of_any_size() {
    let server = XWingKeyPair::generate().unwrap();
    for piece_bytes in [1, 3, 20, 21, 4096] {
        let pieces: [&[u8]; 4] = [b"first", b"", b"second", &[7; 1000]];
        let request = request(&server, &pieces);
        let mut opener = request.opener(&server);
        assert_eq!(opener.head(), b"POST /path");
        let mut plaintext = Vec::new();
        for piece in request.body.chunks(piece_bytes) {
            assert!(!opener.is_ended());
            plaintext.extend(opener.feed(piece).unwrap());
        }
        assert!(opener.is_ended());
        assert_eq!(opener.finish(), Ok(()));
        assert_eq!(plaintext, pieces.concat());

        let mut response = opener.response_sealer().unwrap();
        let head = response.seal_head(b"200").unwrap();
        let mut reader = request.sealer.response_opener(response.response_nonce(), &head, MEBIBYTE).unwrap();
        assert_eq!(reader.head(), b"200");
        let mut answer = Vec::new();
        for part in [b"token".as_slice(), b"", b" by", b" token"] {
            for piece in response.seal(part).unwrap().chunks(piece_bytes) {
                answer.extend(reader.feed(piece).unwrap());
            }
        }
        assert_eq!(reader.feed(&response.seal_end().unwrap()).unwrap(), b"");
        assert_eq!(reader.finish(), Ok(()));
        assert_eq!(answer, b"token by token");
    }
}

#[test]
fn a_body_that_is_cut_anywhere_is_never_whole() {
    each_direction(|body, opener| {
        for length in 0..body.len() {
            for piece_bytes in [1, 7, length.max(1)] {
                let mut opener = opener();
                for piece in body[..length].chunks(piece_bytes) {
                    opener.feed(piece).unwrap();
                }
                assert!(!opener.is_ended(), "cut at {length}");
                assert_eq!(opener.finish(), Err(Error::MissingEnd), "cut at {length}");
                // A fault stays one.
                assert_eq!(opener.finish(), Err(Error::MalformedMessage));
                assert_eq!(opener.feed(&body[length..]), Err(Error::MalformedMessage));
            }
        }
        let mut opener = opener();
        opener.feed(body).unwrap();
        assert_eq!(opener.finish(), Ok(()));
        assert_eq!(opener.finish(), Ok(()));
    });
}

#[test]
fn nothing_may_follow_the_end() {
    each_direction(|body, opener| {
        let end = &body[body.len() - END_BYTES..];
        let first = &body[..25];
        for more in [&b"\0"[..], &[0; 4], end, first, &[0, 0, 0, 16], body, &[0xff; 3], &[0xff; 30]] {
            for at_once in [true, false] {
                let mut opener = opener();
                let opened = if at_once {
                    opener.feed(&[body, more].concat())
                } else {
                    opener.feed(body).unwrap();
                    assert_eq!(opener.feed(b""), Ok(vec![]));
                    assert!(opener.is_ended());
                    opener.feed(more)
                };
                assert_eq!(opened, Err(Error::MalformedMessage));
                assert!(!opener.is_ended());
                assert_eq!(opener.finish(), Err(Error::MalformedMessage));
            }
        }
    });
}

#[test]
fn an_end_in_the_middle_and_frames_in_another_order_do_not_open() {
    each_direction(|body, opener| {
        let (first, rest) = body.split_at(25);
        let (second, end) = rest.split_at(60);
        let orders: [&[&[u8]]; 7] = [
            &[end],
            &[first, end],
            &[end, first, second],
            &[first, end, second],
            &[second, first, end],
            &[first, first, second, end],
            &[second, end],
        ];
        for order in orders {
            let mut opener = opener();
            assert_eq!(opener.feed(&order.concat()), Err(Error::MalformedMessage));
            assert_eq!(opener.finish(), Err(Error::MalformedMessage));
        }
    });
}

#[test]
fn a_frame_without_room_for_a_tag_is_refused_once_its_length_is_known() {
    each_direction(|body, opener| {
        for length in 0..16_u32 {
            for before in [&[][..], &body[..25]] {
                let mut opener = opener();
                opener.feed(before).unwrap();
                opener.feed(&length.to_be_bytes()[..3]).unwrap();
                assert_eq!(opener.feed(&length.to_be_bytes()[3..]), Err(Error::MalformedMessage));
                assert_eq!(opener.finish(), Err(Error::MalformedMessage));
            }
        }
        let announced = MEBIBYTE + 1;
        let refused = opener().feed(&(announced as u32).to_be_bytes());
        assert_eq!(refused, Err(Error::FrameTooLarge { announced, limit: MEBIBYTE }));
    });
}

#[test]
fn every_bit_of_a_body_counts() {
    each_direction(|body, opener| {
        for bit in 0..8 * body.len() {
            let mut changed = body.to_vec();
            changed[bit / 8] ^= 1 << (bit % 8);
            let mut opener = opener();
            // A longer length makes the body incomplete, everything else is found at once.
            let whole = opener.feed(&changed).and_then(|_| opener.finish());
            assert!(whole.is_err(), "bit {bit}");
        }
    });
}

#[test]
fn a_head_that_announces_no_body_gets_none() {
    each_direction(|body, opener| {
        let mut without = opener();
        assert_eq!(without.expect_no_body(), Ok(()));
        assert_eq!(without.expect_no_body(), Ok(()));
        assert!(without.is_ended());
        assert_eq!(without.feed(b""), Ok(vec![]));
        assert_eq!(without.finish(), Ok(()));
        for piece in [&body[..1], body, &body[body.len() - END_BYTES..]] {
            let mut without = opener();
            without.expect_no_body().unwrap();
            assert_eq!(without.feed(piece), Err(Error::MalformedMessage));
            assert_eq!(without.finish(), Err(Error::MalformedMessage));
            // And the other way round: some of a body came before the announcement.
            let mut with = opener();
            let _ = with.feed(piece);
            assert_eq!(with.expect_no_body(), Err(Error::MalformedMessage));
            assert_eq!(with.finish(), Err(Error::MalformedMessage));
        }
    });
}

#[test]
fn parts_are_sealed_in_their_order_only() {
    let server = XWingKeyPair::generate().unwrap();
    let mut request = RequestSealerV1::new(server.public_key()).unwrap();
    assert_eq!(request.seal(b"x"), Err(Error::SealedOutOfOrder));
    assert_eq!(request.seal(b""), Err(Error::SealedOutOfOrder));
    assert_eq!(request.seal_end(), Err(Error::SealedOutOfOrder));
    let head = request.seal_head(b"head").unwrap();
    assert_eq!(request.seal_head(b"head"), Err(Error::SealedOutOfOrder));
    assert_eq!(request.seal(b"").unwrap(), b"");
    assert_eq!(request.seal_end().unwrap().len(), END_BYTES);
    for refused in [request.seal(b"x"), request.seal(b""), request.seal_end(), request.seal_head(b"head")] {
        assert_eq!(refused, Err(Error::SealedOutOfOrder));
    }
    let opener = RequestOpenerV1::new(request.encapsulated_key(), &head, &server, MEBIBYTE).unwrap();
    let mut response: ResponseSealerV1 = opener.response_sealer().unwrap();
    assert_eq!(response.seal(b"x"), Err(Error::SealedOutOfOrder));
    assert_eq!(response.seal_end(), Err(Error::SealedOutOfOrder));
    response.seal_head(b"head").unwrap();
    assert_eq!(response.seal_head(b"head"), Err(Error::SealedOutOfOrder));
    response.seal_end().unwrap();
    for refused in [response.seal(b"x"), response.seal(b""), response.seal_end(), response.seal_head(b"head")] {
        assert_eq!(refused, Err(Error::SealedOutOfOrder));
    }
}

#[test]
fn a_head_opens_with_its_own_encapsulated_key_and_key_pair_only() {
    let (server, other) = (XWingKeyPair::generate().unwrap(), XWingKeyPair::generate().unwrap());
    let (first, second) = (request(&server, &[]), request(&server, &[]));
    let opened = |encapsulated_key: &[u8], head: &[u8], pair| {
        RequestOpenerV1::new(encapsulated_key, head, pair, MEBIBYTE).map(|opener| *opener.replay_id())
    };
    let (enc, head) = (first.sealer.encapsulated_key(), &first.head);
    assert_ne!(opened(enc, head, &server), opened(second.sealer.encapsulated_key(), &second.head, &server));
    assert_eq!(opened(enc, head, &server), opened(enc, head, &server));
    assert_eq!(opened(enc, &second.head, &server), Err(Error::KeyMismatch));
    assert_eq!(opened(enc, head, &other), Err(Error::KeyMismatch));
    // The first frame of the body is no head, and the other way round.
    let end = &first.body[4..];
    assert_eq!(opened(enc, end, &server), Err(Error::KeyMismatch));
    let as_frame = [&(head.len() as u32).to_be_bytes(), head.as_slice()].concat();
    assert_eq!(first.opener(&server).feed(&as_frame), Err(Error::MalformedMessage));
    // Every bit counts. The curve ignores the highest one of a public key (RFC 7748, section 5), but X-Wing does not.
    for bit in 0..8 * XWING_ENCAPSULATED_KEY_BYTES {
        if bit % 8 == bit / 8 % 8 || bit / 8 >= 1088 {
            let mut changed = enc.to_vec();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(opened(&changed, head, &server), Err(Error::KeyMismatch));
        }
    }
    for bit in 0..8 * head.len() {
        let mut changed = head.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(opened(enc, &changed, &server), Err(Error::KeyMismatch));
    }
    for length in 0..head.len() {
        let expected = if length < 16 { Error::MalformedMessage } else { Error::KeyMismatch };
        assert_eq!(opened(enc, &head[..length], &server), Err(expected));
    }
    for length in [0, 32, XWING_ENCAPSULATED_KEY_BYTES - 1, XWING_ENCAPSULATED_KEY_BYTES + 1] {
        assert_eq!(opened(&vec![1; length], head, &server), Err(Error::MalformedMessage));
    }
    // A key pair that is erased is no longer accepted; a request that was opened before goes on.
    let mut begun = first.opener(&server);
    server.erase();
    assert_eq!(opened(enc, head, &server), Err(Error::KeyMismatch));
    assert_eq!(begun.feed(&first.body), Ok(vec![]));
    begun.response_sealer().unwrap();
}

#[test]
fn the_heads_and_bodies_of_two_responses_do_not_fit_together() {
    let server = XWingKeyPair::generate().unwrap();
    let request = request(&server, &[]);
    let answers: Vec<_> = (0..2)
        .map(|_| {
            let mut response = request.opener(&server).response_sealer().unwrap();
            let head = response.seal_head(b"200").unwrap();
            (*response.response_nonce(), head, response.seal(b"answer").unwrap())
        })
        .collect();
    let [(nonce, head, body), (other_nonce, other_head, other_body)] = &answers[..] else { unreachable!() };
    let opener = |nonce: &[u8], head: &[u8]| request.sealer.response_opener(nonce, head, MEBIBYTE);
    assert_eq!(opener(nonce, other_head).err(), Some(Error::MalformedMessage));
    assert_eq!(opener(other_nonce, head).err(), Some(Error::MalformedMessage));
    assert_eq!(opener(&nonce[..31], head).err(), Some(Error::MalformedMessage));
    assert_eq!(opener(nonce, &head[..15]).err(), Some(Error::MalformedMessage));
    assert_eq!(opener(nonce, &request.head).err(), Some(Error::MalformedMessage));
    assert_eq!(opener(nonce, head).unwrap().feed(body).unwrap(), b"answer");
    assert_eq!(opener(nonce, head).unwrap().feed(other_body), Err(Error::MalformedMessage));
}

#[test]
fn a_public_key_of_another_length_and_a_seed_of_another_length_are_refused() {
    for length in [0, 32, 1184, 1215, 1217] {
        assert_eq!(RequestSealerV1::new(&vec![1; length]).err(), Some(Error::XWingPublicKeyLength(length)));
    }
    for length in [0, 31, 33, 64] {
        assert_eq!(XWingKeyPair::from_seed(&vec![1; length]).err(), Some(Error::SeedLength(length)));
    }
    let refused = RequestSealerV1::new(KeyPair::generate().unwrap().public_key());
    assert_eq!(refused.err(), Some(Error::XWingPublicKeyLength(32)));
}

#[test]
fn an_erasure_waits_for_uses_and_no_use_comes_after_it() {
    for _ in 0..20 {
        let server = XWingKeyPair::generate().unwrap();
        let request = request(&server, &[]);
        std::thread::scope(|scope| {
            let opening = scope.spawn(|| {
                loop {
                    let enc = request.sealer.encapsulated_key();
                    match RequestOpenerV1::new(enc, &request.head, &server, MEBIBYTE) {
                        Ok(opener) => assert_eq!(opener.head(), b"POST /path"),
                        Err(error) => break error,
                    }
                }
            });
            std::thread::yield_now();
            server.erase();
            assert!(server.is_erased());
            assert_eq!(opening.join().unwrap(), Error::KeyMismatch);
        });
    }
}

#[test]
fn a_pair_shows_the_first_bytes_of_its_public_key() {
    let pair = XWingKeyPair::from_seed(&[1; 32]).unwrap();
    let first = pair.public_key()[..4].iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    assert_eq!(format!("{pair:?}"), format!("<XWingKeyPair {first}…>"));
    pair.erase();
    assert_eq!(format!("{pair:?}"), format!("<XWingKeyPair {first}…, erased>"));
}

#[test]
fn the_last_piece_is_sealed_with_the_end_frame_into_as_many_bytes_as_are_told() {
    let server = XWingKeyPair::generate().unwrap();
    let mut sealer = RequestSealerV1::new(server.public_key()).unwrap();
    let head = sealer.seal_head(b"head").unwrap();
    let told = RequestSealerV1::last_sealed_bytes(250, 116);
    assert_eq!(told, RequestSealerV1::sealed_bytes(250, 116) + 20);
    for length in [told - 1, told + 1] {
        let mut room = vec![MaybeUninit::uninit(); length];
        assert_eq!(sealer.seal_last_into(&[7; 250], 116, &mut room), Err(Error::BufferLength));
    }
    let mut room = vec![MaybeUninit::uninit(); told];
    let sealed = sealer.seal_last_into(&[7; 250], 116, &mut room).unwrap();
    let mut opener = RequestOpenerV1::new(sealer.encapsulated_key(), &head, &server, 116).unwrap();
    assert_eq!(opener.feed(sealed).unwrap(), [7; 250]);
    assert!(opener.is_ended());
    assert_eq!(
        sealer.seal_last_into(&[7; 250], 116, &mut vec![MaybeUninit::uninit(); told]),
        Err(Error::SealedOutOfOrder)
    );
}
