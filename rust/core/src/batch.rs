//! The public keys of up to 32 private keys at once: multiples of the base point B, eight in parallel.
//!
//! X25519 clamps a private key to a scalar x between 2^254 and 2^255, a multiple of 8. The number x + 2^255 has 51 digits
//! u of five bits above its lowest bit, which is zero. With the odd digits d = 2u - 31 the sum of d * 32^i is
//! x + 2^255 - (32^51 - 1) = x + 1. So x * B is the sum of table entries for 51 digits, with their signs, less B, which
//! the table has subtracted already from the entries for the highest digit. That one is never negative, because the
//! clamp sets bit 254. No digit is zero, so every digit of every key takes the same steps.
//!
//! The result is never the point zero: x is below eight times the order of B.

use crate::base_multiples::{BaseMultiples, DIGITS};
use crate::curve_point::Point;
use crate::lane_field::{FieldElement, invert_all};
use crate::lanes::{LANES, LaneFunction, Lanes};

/// The largest number of keys of a batch.
pub(crate) const BATCH: usize = 32;
const GROUPS: usize = BATCH / LANES;

/// The scalars of a batch and 2^255 each, as four words, in the lanes of the groups.
pub(crate) struct Scalars {
    words: [[[u64; LANES]; 4]; GROUPS],
    count: usize,
}

const HIGHEST_BITS: u64 = 0b11 << 62;

impl Scalars {
    /// Lanes without a key hold a scalar, too: a point zero there would spoil its lane in the other groups.
    pub(crate) const NONE: Self =
        Self { words: [[[0; LANES], [0; LANES], [0; LANES], [HIGHEST_BITS; LANES]]; GROUPS], count: 0 };

    /// Adds the scalar of a private key, which it clamps (RFC 7748, section 5). There is room for [`BATCH`].
    pub(crate) fn push(&mut self, private_key: &[u8; 32]) {
        let words = &mut self.words[self.count / LANES];
        let lane = self.count % LANES;
        for (word, bytes) in words.iter_mut().zip(private_key.as_chunks::<8>().0) {
            word[lane] = u64::from_le_bytes(*bytes);
        }
        words[0][lane] &= !0b111;
        words[3][lane] |= HIGHEST_BITS;
        self.count += 1;
    }
}

/// Returns the public keys of the scalars, in their order, and keys of no meaning after them.
pub(crate) fn public_keys<L: Lanes>(zero: L, table: &BaseMultiples, scalars: &Scalars) -> [[u8; 32]; BATCH] {
    zero.call(PublicKeys(zero, table, scalars))
}

struct PublicKeys<'a, L>(L, &'a BaseMultiples, &'a Scalars);

impl<L: Lanes> LaneFunction for PublicKeys<'_, L> {
    type Output = [[u8; 32]; BATCH];

    #[inline(always)]
    fn compute(self) -> [[u8; 32]; BATCH] {
        let Self(zero, table, scalars) = self;
        let one = FieldElement::constant(zero, [1, 0, 0, 0, 0]);
        let (mut numerators, mut denominators) = ([one; GROUPS], [one; GROUPS]);
        for (group, words) in scalars.words[..scalars.count.div_ceil(LANES)].iter().enumerate() {
            (numerators[group], denominators[group]) = multiply_base(zero, table, words).u_coordinate();
        }
        let inverses = invert_all(&denominators);
        let mut keys = [[0; 32]; BATCH];
        for (group, keys) in keys.as_chunks_mut::<LANES>().0.iter_mut().enumerate() {
            *keys = numerators[group].multiply(&inverses[group]).to_bytes();
        }
        keys
    }
}

#[inline(always)]
fn multiply_base<L: Lanes>(zero: L, table: &BaseMultiples, words: &[[u64; LANES]; 4]) -> Point<L> {
    let mut rest = [zero.load(&words[0]), zero.load(&words[1]), zero.load(&words[2]), zero.load(&words[3])];
    let low_4_bits = zero.splat(15);
    let highest = next_digit(&mut rest).and(low_4_bits);
    let mut point = Point::of(&table.pick(DIGITS - 1, highest));
    for digit in (0..DIGITS - 1).rev() {
        let next = next_digit(&mut rest);
        // From 16 up a digit u stands for the entry u - 16. Below, it stands for the negative entry 15 - u.
        let negative = next.shift_right::<4>().ones_where_zero();
        let index = next.xor(negative).and(low_4_bits);
        point.add(&table.pick(digit, index).negative_where(negative));
    }
    point
}

/// Takes the five highest bits off.
#[inline(always)]
fn next_digit<L: Lanes>(rest: &mut [L; 4]) -> L {
    let digit = rest[3].shift_right::<59>();
    for index in (1..4).rev() {
        rest[index] = rest[index].shift_left::<5>().or(rest[index - 1].shift_right::<59>());
    }
    rest[0] = rest[0].shift_left::<5>();
    digit
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checked_lanes::CheckedLanes;
    use crate::lanes::PortableLanes;

    #[test]
    fn no_number_leaves_its_bounds() {
        let checked = BaseMultiples::compute(CheckedLanes::ZERO).unwrap();
        let table = BaseMultiples::compute(PortableLanes::ZERO).unwrap();
        for seed in 0..8 {
            let mut scalars = Scalars::NONE;
            let mut key = [seed; 32];
            for _ in 0..BATCH - 2 {
                scalars.push(&key);
                let digest = <sha2::Sha256 as sha2::Digest>::digest(key);
                key = digest.into();
            }
            scalars.push(&[0; 32]);
            scalars.push(&[0xff; 32]);
            let expected = public_keys(PortableLanes::ZERO, &table, &scalars);
            assert_eq!(public_keys(CheckedLanes::ZERO, &checked, &scalars), expected);
        }
    }

    #[test]
    fn the_table_has_the_size_that_is_documented() {
        let table = BaseMultiples::compute(PortableLanes::ZERO).unwrap();
        assert_eq!(table.size_bytes(), 97_920);
    }
}
