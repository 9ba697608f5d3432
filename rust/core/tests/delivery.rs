//! Groups and boxes: known answers, which the Python tests read, too, and what two threads do with one key.
#![allow(clippy::unwrap_used)] // a test fails by panicking

use std::path::Path;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use server_keys_core::{
    Delivery, Epoch, Error, GroupKeys, GroupSecretFault, KeyPair, MAX_BOX_BYTES, MAX_EPOCHS_PER_BOX, XWingKeyPair,
    open_box, seal_boxes,
};

#[derive(Deserialize)]
struct Groups {
    ask: String,
    register: String,
    groups: Vec<Group>,
}

#[derive(Deserialize)]
struct Group {
    secret: Option<String>,
    label: Option<String>,
    name: Option<String>,
    group_id: String,
    ask_tag: String,
    register_tag: String,
}

#[derive(Deserialize)]
struct Boxes {
    secret: String,
    label: String,
    boxes: Vec<KnownBox>,
}

#[derive(Deserialize)]
struct KnownBox {
    case: String,
    one_time_private_key: String,
    r#box: String,
    whole: bool,
    as_of_ms: u64,
    epochs: Vec<KnownEpoch>,
}

#[derive(Deserialize)]
struct KnownEpoch {
    number: u64,
    private_key: String,
    publish_in_ms: i64,
    ends_in_ms: u64,
}

fn read<T: DeserializeOwned>(file: &str) -> T {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/vectors").join(file);
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|index| u8::from_str_radix(&hex[index..index + 2], 16).unwrap()).collect()
}

fn group(secret: &str, label: &[u8]) -> GroupKeys {
    let mut groups = GroupKeys::from_secret_text(secret.as_bytes(), label).unwrap();
    assert_eq!(groups.len(), 1);
    groups.remove(0)
}

fn delivery_of<'a>(pairs: &[&'a KeyPair]) -> Delivery<&'a KeyPair, &'a XWingKeyPair> {
    let epochs = pairs.iter().enumerate().map(|(index, &key_pair)| Epoch {
        number: index as u64,
        key_pair,
        xwing_key_pair: None,
        publish_in_ms: -5,
        ends_in_ms: 7,
    });
    Delivery { whole: true, as_of_ms: 9, epochs: epochs.collect() }
}

#[test]
fn keys_of_groups() {
    let Groups { ask, register, groups } = read("group.json");
    assert_eq!(groups.len(), 6);
    for known in groups {
        let keys = match known {
            Group { secret: Some(secret), label: Some(label), .. } => group(&secret, &bytes(&label)),
            Group { name, .. } => GroupKeys::of_name(&bytes(&name.unwrap())).unwrap(),
        };
        assert_eq!(keys.id().as_slice(), bytes(&known.group_id));
        assert_eq!(keys.ask_tag(&bytes(&ask)).unwrap().as_slice(), bytes(&known.ask_tag));
        assert_eq!(keys.register_tag(&bytes(&register)).unwrap().as_slice(), bytes(&known.register_tag));
        assert_eq!(keys.is_ask_tag(&bytes(&ask), &bytes(&known.ask_tag)), Ok(true));
        assert_eq!(keys.is_ask_tag(&bytes(&ask), &bytes(&known.register_tag)), Ok(false));
        assert_eq!(keys.is_register_tag(&bytes(&register), &bytes(&known.register_tag)), Ok(true));
        assert_eq!(keys.is_register_tag(&bytes(&register), &bytes(&known.ask_tag)), Ok(false));
        assert_eq!(format!("{keys:?}"), format!("<GroupKeys {}>", known.group_id));
    }
}

#[test]
fn boxes_of_another_implementation_open() {
    let Boxes { secret, label, boxes } = read("box.json");
    let group = group(&secret, &bytes(&label));
    assert_eq!(boxes.len(), 3);
    for KnownBox { case, one_time_private_key, r#box, whole, as_of_ms, epochs } in boxes {
        let one_time_key = KeyPair::from_private_key(&bytes(&one_time_private_key)).unwrap();
        let delivery = open_box(&group, &one_time_key, &bytes(&r#box)).unwrap();
        assert_eq!((delivery.whole, delivery.as_of_ms), (whole, as_of_ms), "{case}");
        assert_eq!(delivery.epochs.len(), epochs.len(), "{case}");
        for (epoch, known) in delivery.epochs.iter().zip(epochs) {
            let pair = KeyPair::from_private_key(&bytes(&known.private_key)).unwrap();
            assert_eq!(epoch.key_pair.public_key(), pair.public_key(), "{case}");
            let times = (epoch.number, epoch.publish_in_ms, epoch.ends_in_ms);
            assert_eq!(times, (known.number, known.publish_in_ms, known.ends_in_ms), "{case}");
        }
    }
}

#[test]
fn what_is_sealed_opens_and_is_the_same_pair() {
    let group = GroupKeys::of_name(b"name").unwrap();
    let (first, second, peer) =
        (KeyPair::generate().unwrap(), KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let members: Vec<_> = (0..20).map(|_| KeyPair::generate().unwrap()).collect();
    let one_time_keys: Vec<_> = members.iter().map(|member| member.public_key().as_slice()).collect();
    let boxes = seal_boxes(&group, &one_time_keys, &delivery_of(&[&first, &second])).unwrap();
    for (sealed, member) in boxes.into_iter().zip(&members) {
        let delivery = open_box(&group, member, &sealed.unwrap()).unwrap();
        for (epoch, pair) in delivery.epochs.iter().zip([&first, &second]) {
            let (mut delivered, mut made) = ([0; 32], [0; 32]);
            epoch.key_pair.exchange(peer.public_key(), &mut delivered).unwrap();
            pair.exchange(peer.public_key(), &mut made).unwrap();
            assert_eq!(delivered, made);
        }
    }
}

#[test]
fn every_bit_and_every_length_of_a_box_counts() {
    let group = GroupKeys::of_name(b"name").unwrap();
    let (pair, member) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let sealed = seal_boxes(&group, &[member.public_key()], &delivery_of(&[&pair])).unwrap().remove(0).unwrap();
    for length in 0..sealed.len() {
        assert_eq!(open_box(&group, &member, &sealed[..length]).err(), Some(Error::MalformedMessage));
    }
    for bit in 0..8 * sealed.len() {
        let mut changed = sealed.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(open_box(&group, &member, &changed).err(), Some(Error::MalformedMessage));
    }
    assert_eq!(open_box(&group, &member, &vec![0; MAX_BOX_BYTES + 1]).err(), Some(Error::MalformedMessage));
    open_box(&group, &member, &sealed).unwrap();
}

#[test]
fn the_number_of_epochs_has_a_limit() {
    let group = GroupKeys::of_name(b"name").unwrap();
    let pair = KeyPair::generate().unwrap();
    for asked in [0, MAX_EPOCHS_PER_BOX + 1, 256, 257] {
        let refused = seal_boxes(&group, &[pair.public_key()], &delivery_of(&vec![&pair; asked])).err();
        assert_eq!(refused, Some(Error::EpochCount { asked, limit: MAX_EPOCHS_PER_BOX }));
    }
    let sealed = seal_boxes(&group, &[pair.public_key()], &delivery_of(&[&pair; MAX_EPOCHS_PER_BOX])).unwrap();
    assert_eq!(open_box(&group, &pair, sealed[0].as_ref().unwrap()).unwrap().epochs.len(), MAX_EPOCHS_PER_BOX);
}

#[test]
fn a_pair_that_is_erased_meanwhile_is_sealed_whole_or_not_at_all() {
    let group = GroupKeys::of_name(b"name").unwrap();
    let member = KeyPair::generate().unwrap();
    for _ in 0..50 {
        let pair = KeyPair::generate().unwrap();
        std::thread::scope(|scope| {
            let sealing = scope.spawn(|| {
                loop {
                    match seal_boxes(&group, &[member.public_key()], &delivery_of(&[&pair])) {
                        Ok(boxes) => {
                            let delivery = open_box(&group, &member, boxes[0].as_ref().unwrap()).unwrap();
                            assert_eq!(delivery.epochs[0].key_pair.public_key(), pair.public_key());
                        }
                        Err(error) => break error,
                    }
                }
            });
            std::thread::yield_now();
            pair.erase();
            assert_eq!(sealing.join().unwrap(), Error::KeyErased);
        });
    }
}

#[test]
fn a_secret_that_is_no_secret_is_refused() {
    let digits = "ab".repeat(32);
    for (text, fault) in [
        (String::new(), GroupSecretFault::Empty),
        (digits[1..].to_owned(), GroupSecretFault::TooShort(64)),
        (format!("{digits}a"), GroupSecretFault::OddDigits),
        (format!("{digits}g"), GroupSecretFault::NoHexDigit),
        (format!("{digits},{}", digits.to_uppercase()), GroupSecretFault::Repeated),
        (format!("{digits} {digits}cd {digits}ef"), GroupSecretFault::TooMany(2)),
        (" ".repeat(4097), GroupSecretFault::TooLong(4096)),
    ] {
        let refused = GroupKeys::from_secret_text(text.as_bytes(), b"").err();
        assert_eq!(refused, Some(Error::GroupSecret(fault)));
    }
    let refused = GroupKeys::from_secret_file(Path::new("/nowhere"), b"").err();
    assert_eq!(refused, Some(Error::GroupSecret(GroupSecretFault::Unreadable(std::io::ErrorKind::NotFound))));
}
