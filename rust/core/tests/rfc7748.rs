//! Known answers: the vectors of RFC 7748 and the points of small order. The Python tests read the same files.
#![allow(clippy::unwrap_used)] // a test fails by panicking

use std::path::Path;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use server_keys_core::{Error, KeyPair, RequestOpener, RequestSealer, SHARED_SECRET_BYTES};

#[derive(Deserialize)]
struct Vectors {
    products: Vec<Product>,
    iterated: Iterated,
    agreement: Agreement,
}

#[derive(Deserialize)]
struct Product {
    private_key: String,
    public_key: String,
    shared_secret: String,
}

#[derive(Deserialize)]
struct Iterated {
    start: String,
    results: Vec<IteratedResult>,
}

#[derive(Deserialize)]
struct IteratedResult {
    iterations: usize,
    shared_secret: String,
}

#[derive(Deserialize)]
struct Agreement {
    alice: Party,
    bob: Party,
    shared_secret: String,
}

#[derive(Deserialize)]
struct Party {
    private_key: String,
    public_key: String,
}

#[derive(Deserialize)]
struct SmallOrderPoints {
    points: Vec<SmallOrderPoint>,
}

#[derive(Deserialize)]
struct SmallOrderPoint {
    point: String,
    public_key: String,
}

fn read<T: DeserializeOwned>(file: &str) -> T {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/vectors").join(file);
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn bytes(hex: &str) -> [u8; 32] {
    assert_eq!(hex.len(), 64);
    std::array::from_fn(|index| u8::from_str_radix(&hex[2 * index..2 * index + 2], 16).unwrap())
}

fn x25519(private_key: [u8; 32], public_key: [u8; 32]) -> [u8; 32] {
    let mut shared_secret = [0; SHARED_SECRET_BYTES];
    KeyPair::from_private_key(&private_key).unwrap().exchange(&public_key, &mut shared_secret).unwrap();
    shared_secret
}

#[test]
fn products() {
    let products = read::<Vectors>("rfc7748.json").products;
    assert_eq!(products.len(), 2);
    for product in products {
        assert_eq!(x25519(bytes(&product.private_key), bytes(&product.public_key)), bytes(&product.shared_secret));
    }
}

#[test]
fn iterated_products() {
    let Iterated { start, results } = read::<Vectors>("rfc7748.json").iterated;
    assert_eq!(results.iter().map(|result| result.iterations).max(), Some(1000));
    for result in results {
        let (mut scalar, mut point) = (bytes(&start), bytes(&start));
        for _ in 0..result.iterations {
            (scalar, point) = (x25519(scalar, point), scalar);
        }
        assert_eq!(scalar, bytes(&result.shared_secret), "after {} iterations", result.iterations);
    }
}

#[test]
fn both_sides_of_an_agreement() {
    let Agreement { alice, bob, shared_secret } = read::<Vectors>("rfc7748.json").agreement;
    for (own, peer) in [(&alice, &bob), (&bob, &alice)] {
        let key_pair = KeyPair::from_private_key(&bytes(&own.private_key)).unwrap();
        assert_eq!(*key_pair.public_key(), bytes(&own.public_key));
        assert_eq!(x25519(bytes(&own.private_key), bytes(&peer.public_key)), bytes(&shared_secret));
    }
}

#[test]
fn no_point_of_small_order_gives_a_secret() {
    let points = read::<SmallOrderPoints>("small_order_points.json").points;
    assert_eq!(points.len(), 14);
    let key_pair = KeyPair::generate().unwrap();
    for SmallOrderPoint { point, public_key } in points {
        let mut shared_secret = [0xa5; SHARED_SECRET_BYTES];
        let refused = key_pair.exchange(&bytes(&public_key), &mut shared_secret);
        assert_eq!(refused, Err(Error::PublicKeySmallOrder), "{point}");
        assert_eq!(shared_secret, [0xa5; SHARED_SECRET_BYTES], "{point}");
        assert_eq!(RequestSealer::new(&bytes(&public_key)).err(), Some(Error::PublicKeySmallOrder), "{point}");
        let mut opener = RequestOpener::new(&bytes(&public_key), [&key_pair], 1000).unwrap();
        assert_eq!(opener.finish_without_body(), Err(Error::MalformedMessage), "{point}");
        let frame = [20_u32.to_be_bytes().as_slice(), &[0; 20]].concat();
        assert_eq!(opener.feed(&frame), Err(Error::MalformedMessage), "{point}");
    }
}
