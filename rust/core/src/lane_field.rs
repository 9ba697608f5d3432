//! Arithmetic modulo p = 2^255 - 19 in eight lanes.
//!
//! An element has five limbs of 51 bits and a little more: the value is the sum of `limb[i] * 2^(51 * i)`. Limbs are
//! never negative. Two bounds hold everything together:
//!
//! - A factor's limbs are below 2^52, because the processor multiplies 52 bits.
//! - Limbs of a result are *narrow*: below 2^51 + 2^11.
//!
//! Each function says why its own limbs keep to them, and the tests run it over lanes that check every single
//! operation, with every limb at its largest.

use crate::lanes::{LANES, LaneFunction, Lanes};
use crate::limb_products::{LIMBS, product, square};

const LOW_51_BITS: u64 = (1 << 51) - 1;

/// 2p in limbs that are at least 2^51 + 2^11, so that subtracting narrow limbs from them never gives less than zero.
const TWICE_P: [u64; LIMBS] = [(1 << 52) - 38, (1 << 52) - 2, (1 << 52) - 2, (1 << 52) - 2, (1 << 52) - 2];

/// Eight elements, one in each lane.
#[derive(Clone, Copy)]
pub(crate) struct FieldElement<L>(pub(crate) [L; LIMBS]);

impl<L: Lanes> FieldElement<L> {
    /// Returns lanes that all hold the element of these limbs.
    #[inline(always)]
    pub(crate) fn constant(zero: L, limbs: [u64; LIMBS]) -> Self {
        let mut element = [zero; LIMBS];
        for (lanes, limb) in element.iter_mut().zip(limbs) {
            *lanes = zero.splat(limb);
        }
        Self(element)
    }

    /// Returns `chosen` in the lanes where `mask` is all ones, and `other` where it is zero.
    #[inline(always)]
    pub(crate) fn choose(mask: L, chosen: &Self, other: &Self) -> Self {
        let mut limbs = other.0;
        for (limb, chosen) in limbs.iter_mut().zip(chosen.0) {
            *limb = mask.choose(chosen, *limb);
        }
        Self(limbs)
    }

    /// Takes 51 bits of each limb and adds the rest to the next one; 2^255 is 19. The result is narrow if the last limb is
    /// below 51 * 2^52 and the others are below 267 * 2^52, as a product's are: at most 533 moves on from the others, and
    /// at most 101 from the last, where it counts 19 times, 1,919.
    #[inline(always)]
    fn carry(limbs: [L; LIMBS]) -> Self {
        limbs[0].inline(Carry(limbs))
    }

    /// Adds narrow elements: limbs are below 2^53, so at most 3 moves on.
    #[inline(always)]
    pub(crate) fn add(&self, other: &Self) -> Self {
        let mut limbs = self.0;
        for (limb, other) in limbs.iter_mut().zip(other.0) {
            *limb = limb.add(other);
        }
        Self::carry(limbs)
    }

    /// Subtracts narrow elements: 2p is added, so no limb gets below zero, and all are below 2^53.
    #[inline(always)]
    pub(crate) fn sub(&self, other: &Self) -> Self {
        let mut limbs = self.0;
        for index in 0..LIMBS {
            let twice_p = limbs[index].splat(TWICE_P[index]);
            limbs[index] = limbs[index].add(twice_p).sub(other.0[index]);
        }
        Self::carry(limbs)
    }

    /// Returns `2 * self + other` and `2 * self - other` of narrow elements: limbs are below 2^54, so at most 7 moves on.
    #[inline(always)]
    pub(crate) fn twice_add_and_sub(&self, other: &Self) -> (Self, Self) {
        let (mut sum, mut difference) = (self.0, self.0);
        for index in 0..LIMBS {
            let twice = self.0[index].add(self.0[index]);
            sum[index] = twice.add(other.0[index]);
            difference[index] = twice.add(twice.splat(TWICE_P[index])).sub(other.0[index]);
        }
        (Self::carry(sum), Self::carry(difference))
    }

    /// Returns 2p minus an element whose limbs are below 2^51. The limbs are below 2^52: a factor, but not narrow.
    #[inline(always)]
    pub(crate) fn negative_factor(&self) -> Self {
        let mut limbs = self.0;
        for index in 0..LIMBS {
            limbs[index] = limbs[index].splat(TWICE_P[index]).sub(limbs[index]);
        }
        Self(limbs)
    }

    /// Multiplies elements whose limbs are below 2^52, without a call.
    #[inline(always)]
    pub(crate) fn multiply_inline(&self, other: &Self) -> Self {
        self.0[0].inline(Multiply(self, other))
    }

    /// Multiplies elements whose limbs are below 2^52.
    #[inline(always)]
    pub(crate) fn multiply(&self, other: &Self) -> Self {
        self.0[0].call(Multiply(self, other))
    }

    /// Squares an element whose limbs are below 2^52.
    #[inline(always)]
    pub(crate) fn square(&self) -> Self {
        self.square_times(1)
    }

    #[inline(always)]
    fn square_times(&self, times: u32) -> Self {
        self.0[0].call(SquareTimes(self, times))
    }

    /// Returns the inverse, or zero of zero: the power of p - 2 = 2^255 - 21, by the usual chain of 254 squarings and 11
    /// products. A name says which power of the element it is: `ones_5` is 2^5 - 1, five ones in binary.
    #[inline(always)]
    pub(crate) fn invert(&self) -> Self {
        let two = self.square();
        let nine = self.multiply(&two.square_times(2));
        let eleven = two.multiply(&nine);
        let ones_5 = nine.multiply(&eleven.square());
        let ones_10 = ones_5.square_times(5).multiply(&ones_5);
        let ones_20 = ones_10.square_times(10).multiply(&ones_10);
        let ones_40 = ones_20.square_times(20).multiply(&ones_20);
        let ones_50 = ones_40.square_times(10).multiply(&ones_10);
        let ones_100 = ones_50.square_times(50).multiply(&ones_50);
        let ones_200 = ones_100.square_times(100).multiply(&ones_100);
        let ones_250 = ones_200.square_times(50).multiply(&ones_50);
        ones_250.square_times(5).multiply(&eleven)
    }

    /// Returns the limbs of the value that is below p, each below 2^51, of a narrow element.
    #[inline(always)]
    pub(crate) fn canonical(&self) -> [L; LIMBS] {
        let low = self.0[0].splat(LOW_51_BITS);
        let nineteen = low.splat(19);
        let mut limbs = self.0;
        // A narrow element is below 2p. It is at least p exactly if adding 19 reaches 2^255: then `quotient` is one.
        let mut quotient = limbs[0].add(nineteen).shift_right::<51>();
        for limb in &limbs[1..] {
            quotient = limb.add(quotient).shift_right::<51>();
        }
        limbs[0] = limbs[0].add_low_product(quotient, nineteen);
        for index in 0..LIMBS - 1 {
            limbs[index + 1] = limbs[index + 1].add(limbs[index].shift_right::<51>());
            limbs[index] = limbs[index].and(low);
        }
        limbs[4] = limbs[4].and(low);
        limbs
    }

    /// Returns the 32 bytes of each lane, as RFC 7748 encodes them, of a narrow element.
    #[inline(always)]
    pub(crate) fn to_bytes(self) -> [[u8; 32]; LANES] {
        let limbs = self.canonical();
        let words = [
            limbs[0].or(limbs[1].shift_left::<51>()).store(),
            limbs[1].shift_right::<13>().or(limbs[2].shift_left::<38>()).store(),
            limbs[2].shift_right::<26>().or(limbs[3].shift_left::<25>()).store(),
            limbs[3].shift_right::<39>().or(limbs[4].shift_left::<12>()).store(),
        ];
        let mut bytes = [[0; 32]; LANES];
        for (index, lane) in bytes.iter_mut().enumerate() {
            for (place, word) in lane.chunks_exact_mut(8).zip(&words) {
                place.copy_from_slice(&word[index].to_le_bytes());
            }
        }
        bytes
    }
}

struct Carry<L>([L; LIMBS]);

impl<L: Lanes> LaneFunction for Carry<L> {
    type Output = FieldElement<L>;

    #[inline(always)]
    fn compute(self) -> FieldElement<L> {
        let limbs = self.0;
        let low = limbs[0].splat(LOW_51_BITS);
        let mut rest = limbs;
        let mut carried = limbs;
        for index in 0..LIMBS {
            rest[index] = limbs[index].shift_right::<51>();
            carried[index] = limbs[index].and(low);
        }
        carried[0] = carried[0].add_low_product(rest[4], low.splat(19));
        for index in 1..LIMBS {
            carried[index] = carried[index].add(rest[index - 1]);
        }
        FieldElement(carried)
    }
}

struct Multiply<'a, L>(&'a FieldElement<L>, &'a FieldElement<L>);

impl<L: Lanes> LaneFunction for Multiply<'_, L> {
    type Output = FieldElement<L>;

    #[inline(always)]
    fn compute(self) -> FieldElement<L> {
        FieldElement::carry(product(&self.0.0, &self.1.0))
    }
}

struct SquareTimes<'a, L>(&'a FieldElement<L>, u32);

impl<L: Lanes> LaneFunction for SquareTimes<'_, L> {
    type Output = FieldElement<L>;

    #[inline(always)]
    fn compute(self) -> FieldElement<L> {
        let mut squared = *self.0;
        for _ in 0..self.1 {
            squared = FieldElement::carry(square(&squared.0));
        }
        squared
    }
}

/// Inverts all elements at the price of one inversion and three products for each (Montgomery's trick). If one is zero
/// in a lane, all results are zero in that lane.
#[inline(always)]
pub(crate) fn invert_all<L: Lanes, const COUNT: usize>(
    elements: &[FieldElement<L>; COUNT],
) -> [FieldElement<L>; COUNT] {
    let mut products = *elements;
    for index in 1..COUNT {
        products[index] = products[index - 1].multiply(&elements[index]);
    }
    let mut inverse = products[COUNT - 1].invert();
    for index in (1..COUNT).rev() {
        let alone = inverse.multiply(&products[index - 1]);
        inverse = inverse.multiply(&elements[index]);
        products[index] = alone;
    }
    products[0] = inverse;
    products
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::checked_lanes::CheckedLanes;

    type Element = FieldElement<CheckedLanes>;

    /// A number below 2^256, lowest word first, and plain arithmetic with it modulo p.
    type Number = [u64; 4];
    const P: Number = [u64::MAX - 18, u64::MAX, u64::MAX, u64::MAX >> 1];
    const NARROW: u64 = (1 << 51) + (1 << 11);
    pub(crate) const LARGEST_NARROW: [u64; LIMBS] = [NARROW - 1; LIMBS];
    pub(crate) const LARGEST_FACTOR: [u64; LIMBS] = [(1 << 52) - 1; LIMBS];

    fn at_least(one: &Number, other: &Number) -> bool {
        one.iter().rev().ge(other.iter().rev())
    }

    fn plus(one: &Number, other: &Number) -> Number {
        let mut carry = 0;
        let mut sum = std::array::from_fn(|index| {
            carry += u128::from(one[index]) + u128::from(other[index]);
            let word = carry as u64;
            carry >>= 64;
            word
        });
        assert_eq!(carry, 0);
        while at_least(&sum, &P) {
            sum = minus(&sum, &P);
        }
        sum
    }

    fn minus(one: &Number, other: &Number) -> Number {
        let mut borrow = 0_i128;
        std::array::from_fn(|index| {
            borrow += i128::from(one[index]) - i128::from(other[index]);
            let word = borrow as u64;
            borrow >>= 64;
            word
        })
    }

    fn times(one: &Number, other: &Number) -> Number {
        (0..256).rev().fold([0; 4], |product, bit| {
            let doubled = plus(&product, &product);
            if other[bit / 64] >> (bit % 64) & 1 == 1 { plus(&doubled, one) } else { doubled }
        })
    }

    /// The value of limbs, modulo p.
    fn value(limbs: &[u64; LIMBS]) -> Number {
        limbs.iter().rev().fold([0; 4], |value, &limb| plus(&times(&value, &[1 << 51, 0, 0, 0]), &[limb, 0, 0, 0]))
    }

    /// Limbs at their smallest, their largest, and each one alone at its largest.
    pub(crate) fn edges(largest: [u64; LIMBS]) -> Vec<[u64; LIMBS]> {
        let mut edges = vec![[0; LIMBS], [1, 0, 0, 0, 0], largest, largest.map(|limb| limb / 3)];
        for index in 0..LIMBS {
            let (mut alone, mut missing) = ([0; LIMBS], largest);
            (alone[index], missing[index]) = (largest[index], 0);
            edges.extend([alone, missing]);
        }
        edges
    }

    fn element(limbs: &[u64; LIMBS]) -> Element {
        Element::constant(CheckedLanes::ZERO, *limbs)
    }

    #[track_caller]
    fn assert_narrow(result: &Element, expected: &Number) {
        let limbs = result.0.map(|limb| limb.store()[LANES - 1]);
        assert!(limbs.iter().all(|limb| *limb < NARROW), "{limbs:?} is not narrow");
        assert_eq!(value(&limbs), *expected);
    }

    #[test]
    fn products_of_the_largest_factors_are_right_and_narrow() {
        for one in edges(LARGEST_FACTOR) {
            assert_narrow(&element(&one).square(), &times(&value(&one), &value(&one)));
            for other in edges(LARGEST_FACTOR) {
                assert_narrow(&element(&one).multiply(&element(&other)), &times(&value(&one), &value(&other)));
            }
        }
    }

    #[test]
    fn sums_and_differences_of_the_largest_narrow_elements_are_right_and_narrow() {
        for one in edges(LARGEST_NARROW) {
            for other in edges(LARGEST_NARROW) {
                let (a, b) = (element(&one), element(&other));
                let (one, other) = (value(&one), value(&other));
                let (twice, opposite) = (plus(&one, &one), minus(&P, &other));
                assert_narrow(&a.add(&b), &plus(&one, &other));
                assert_narrow(&a.sub(&b), &plus(&one, &opposite));
                assert_narrow(&a.twice_add_and_sub(&b).0, &plus(&twice, &other));
                assert_narrow(&a.twice_add_and_sub(&b).1, &plus(&twice, &opposite));
            }
        }
    }

    #[test]
    fn the_negative_of_a_table_entry_is_a_factor() {
        for limbs in edges([LOW_51_BITS; LIMBS]) {
            let negative = element(&limbs).negative_factor().0.map(|limb| limb.store()[0]);
            assert!(negative.iter().all(|limb| *limb < 1 << 52), "{negative:?}");
            assert_eq!(plus(&value(&negative), &value(&limbs)), [0; 4]);
        }
    }

    #[test]
    fn encodes_the_number_below_p() {
        let p = [LOW_51_BITS - 18, LOW_51_BITS, LOW_51_BITS, LOW_51_BITS, LOW_51_BITS];
        let near_p = (0..40).map(|less| [LOW_51_BITS - less, p[1], p[2], p[3], p[4]]);
        for limbs in edges(LARGEST_NARROW).into_iter().chain(edges([LOW_51_BITS; LIMBS])).chain(near_p) {
            let bytes = element(&limbs).to_bytes();
            let words: Number =
                std::array::from_fn(|index| u64::from_le_bytes(bytes[3][8 * index..8 * index + 8].try_into().unwrap()));
            assert_eq!(words, value(&limbs), "{limbs:?}");
        }
    }

    #[test]
    fn inverses_together_are_those_of_each_and_lanes_do_not_mix() {
        let lanes: [u64; LANES] = std::array::from_fn(|lane| lane as u64 + 2);
        let different = Element::constant(CheckedLanes::ZERO, LARGEST_NARROW)
            .multiply(&FieldElement([CheckedLanes::ZERO.load(&lanes); LIMBS]));
        let elements = [different, different.square(), element(&[1, 0, 0, 0, 0])];
        for (element, inverse) in elements.iter().zip(invert_all(&elements)) {
            let one = element.multiply(&inverse).to_bytes();
            assert!(one.iter().all(|lane| lane[0] == 1 && lane[1..] == [0; 31]), "{one:?}");
        }
        let values: std::collections::HashSet<_> = different.to_bytes().into_iter().collect();
        assert_eq!(values.len(), LANES);
        assert_eq!(element(&[0; LIMBS]).invert().to_bytes(), [[0; 32]; LANES]);
    }
}
