//! Boxes that are sealed with X-Wing, beside those that are sealed with X25519.
#![allow(clippy::unwrap_used)] // a test fails by panicking

use serde::Deserialize;
use server_keys_core::{
    Delivery, Epoch, Error, GroupKeys, KeyPair, MAX_BOX_BYTES, RequestOpenerV1, RequestSealerV1, XWingKeyPair,
    open_box, seal_boxes,
};

#[derive(Deserialize)]
struct Boxes {
    secret: String,
    label: String,
    as_of_ms: u64,
    boxes: Vec<KnownBox>,
}

#[derive(Deserialize)]
struct KnownBox {
    case: String,
    one_time_seed: String,
    r#box: String,
    epochs: Vec<KnownEpoch>,
}

#[derive(Deserialize)]
struct KnownEpoch {
    number: u64,
    private_key: String,
    seed: String,
    publish_in_ms: i64,
    ends_in_ms: u64,
}

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|index| u8::from_str_radix(&hex[index..index + 2], 16).unwrap()).collect()
}

fn delivery<'a>(pair: &'a KeyPair, xwing_pair: Option<&'a XWingKeyPair>) -> Delivery<&'a KeyPair, &'a XWingKeyPair> {
    let epoch = Epoch { number: 1, key_pair: pair, xwing_key_pair: xwing_pair, publish_in_ms: -5, ends_in_ms: 7 };
    Delivery { whole: true, as_of_ms: 9, epochs: vec![epoch] }
}

#[test]
fn boxes_of_another_implementation_open() {
    let Boxes { secret, label, as_of_ms, boxes } =
        serde_json::from_str(include_str!("../../../tests/vectors/xwing_box.json")).unwrap();
    let group = GroupKeys::from_secret_text(secret.as_bytes(), &bytes(&label)).unwrap().remove(0);
    assert_eq!(boxes.len(), 3);
    for KnownBox { case, one_time_seed, r#box, epochs } in boxes {
        let one_time_key = XWingKeyPair::from_seed(&bytes(&one_time_seed)).unwrap();
        let delivery = open_box(&group, &one_time_key, &bytes(&r#box)).unwrap();
        assert_eq!((delivery.whole, delivery.as_of_ms), (true, as_of_ms), "{case}");
        assert_eq!(delivery.epochs.len(), epochs.len(), "{case}");
        for (epoch, known) in delivery.epochs.iter().zip(epochs) {
            let pair = KeyPair::from_private_key(&bytes(&known.private_key)).unwrap();
            assert_eq!(epoch.key_pair.public_key(), pair.public_key(), "{case}");
            let seed = (!known.seed.is_empty()).then(|| XWingKeyPair::from_seed(&bytes(&known.seed)).unwrap());
            assert_eq!(
                epoch.xwing_key_pair.as_ref().map(XWingKeyPair::public_key),
                seed.as_ref().map(XWingKeyPair::public_key),
                "{case}"
            );
            let times = (epoch.number, epoch.publish_in_ms, epoch.ends_in_ms);
            assert_eq!(times, (known.number, known.publish_in_ms, known.ends_in_ms), "{case}");
        }
    }
}

#[test]
fn each_member_gets_what_its_one_time_key_may_carry() {
    let group = GroupKeys::of_name(b"name").unwrap();
    let (pair, xwing_pair) = (KeyPair::generate().unwrap(), XWingKeyPair::generate().unwrap());
    let (old, new) = (KeyPair::generate().unwrap(), XWingKeyPair::generate().unwrap());
    let one_time_keys: [&[u8]; 4] = [old.public_key(), new.public_key(), &new.public_key()[..1215], old.public_key()];
    let boxes = seal_boxes(&group, &one_time_keys, &delivery(&pair, Some(&xwing_pair))).unwrap();
    let [Some(first), Some(second), None, Some(_)] = &boxes[..] else { panic!("other boxes: {boxes:?}") };

    let opened = open_box(&group, &old, first).unwrap();
    assert_eq!(opened.epochs[0].key_pair.public_key(), pair.public_key());
    assert!(opened.epochs[0].xwing_key_pair.is_none());
    // It is as long as one of a group that has no X-Wing pairs.
    assert_eq!(
        first.len(),
        seal_boxes(&group, &[old.public_key()], &delivery(&pair, None)).unwrap()[0].as_ref().unwrap().len()
    );

    let opened = open_box(&group, &new, second).unwrap();
    assert_eq!(opened.epochs[0].key_pair.public_key(), pair.public_key());
    let delivered = opened.epochs[0].xwing_key_pair.as_ref().unwrap();
    let mut sealer = RequestSealerV1::new(xwing_pair.public_key()).unwrap();
    let head = sealer.seal_head(b"head").unwrap();
    assert_eq!(RequestOpenerV1::new(sealer.encapsulated_key(), &head, delivered, 100).unwrap().head(), b"head");

    for (sealed, one_time_key) in [(first, &new), (second, &XWingKeyPair::generate().unwrap())] {
        assert_eq!(open_box(&group, one_time_key, sealed).err(), Some(Error::MalformedMessage));
    }
    assert_eq!(open_box(&group, &old, second).err(), Some(Error::MalformedMessage));
    let other_group = GroupKeys::of_name(b"other").unwrap();
    assert_eq!(open_box(&other_group, &new, second).err(), Some(Error::MalformedMessage));
}

#[test]
fn every_bit_and_every_length_of_a_box_counts() {
    let group = GroupKeys::of_name(b"name").unwrap();
    let (pair, member) = (KeyPair::generate().unwrap(), XWingKeyPair::generate().unwrap());
    let xwing_pair = XWingKeyPair::generate().unwrap();
    let boxes = seal_boxes(&group, &[member.public_key()], &delivery(&pair, Some(&xwing_pair))).unwrap();
    let sealed = boxes[0].as_ref().unwrap();
    let refused = |sealed: &[u8]| open_box(&group, &member, sealed).err() == Some(Error::MalformedMessage);
    for length in 0..sealed.len() {
        assert!(refused(&sealed[..length]), "{length} bytes");
    }
    for bit in 0..8 * sealed.len() {
        // All bits behind ML-KEM's ciphertext, and one of each byte before.
        if bit / 8 >= 1088 || bit % 8 == bit / 8 % 8 {
            let mut changed = sealed.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(refused(&changed), "bit {bit}");
        }
    }
    let mut small_order = sealed.clone();
    small_order[1088..1120].fill(0);
    assert!(refused(&small_order));
    assert!(refused(&vec![0; MAX_BOX_BYTES + 1]));
    open_box(&group, &member, sealed).unwrap();
}

#[test]
fn nothing_is_sealed_to_a_key_that_no_honest_member_has() {
    let group = GroupKeys::of_name(b"name").unwrap();
    let (pair, member) = (KeyPair::generate().unwrap(), XWingKeyPair::generate().unwrap());
    let (mut small_order, mut not_reduced) = (*member.public_key(), *member.public_key());
    small_order[1184..].fill(0);
    not_reduced[..3].fill(0xff);
    let boxes = seal_boxes(&group, &[&small_order, &not_reduced, member.public_key()], &delivery(&pair, None)).unwrap();
    assert!(boxes[0].is_none() && boxes[1].is_none());
    let opened = open_box(&group, &member, boxes[2].as_ref().unwrap()).unwrap();
    assert!(opened.epochs[0].xwing_key_pair.is_none());
}

#[test]
fn an_erased_x_wing_pair_is_delivered_to_nobody_and_hurts_no_x25519_box() {
    let group = GroupKeys::of_name(b"name").unwrap();
    let (pair, xwing_pair) = (KeyPair::generate().unwrap(), XWingKeyPair::generate().unwrap());
    let (old, new) = (KeyPair::generate().unwrap(), XWingKeyPair::generate().unwrap());
    xwing_pair.erase();
    let sealed = |one_time_key: &[u8]| seal_boxes(&group, &[one_time_key], &delivery(&pair, Some(&xwing_pair)));
    assert_eq!(sealed(new.public_key()), Err(Error::KeyErased));
    let boxes = sealed(old.public_key()).unwrap();
    assert!(open_box(&group, &old, boxes[0].as_ref().unwrap()).is_ok());
    let boxes = seal_boxes(&group, &[new.public_key()], &delivery(&pair, None)).unwrap();
    new.erase();
    assert_eq!(open_box(&group, &new, boxes[0].as_ref().unwrap()).err(), Some(Error::KeyErased));
}
