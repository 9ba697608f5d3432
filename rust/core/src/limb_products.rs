//! Products modulo p = 2^255 - 19, from limbs of 51 bits, in eight lanes.

use crate::lanes::Lanes;

pub(crate) const LIMBS: usize = 5;

/// Multiplies limbs below 2^52. Those of the result are below 267, 213, 159, 105 and 51 times 2^52.
#[inline(always)]
pub(crate) fn product<L: Lanes>(one: &[L; LIMBS], other: &[L; LIMBS]) -> [L; LIMBS] {
    let zero = one[0].splat(0);
    let (mut low, mut high) = ([zero; 9], [zero; 9]);
    for i in 0..LIMBS {
        for j in 0..LIMBS {
            low[i + j] = low[i + j].add_low_product(one[i], other[j]);
            high[i + j] = high[i + j].add_high_product(one[i], other[j]);
        }
    }
    put_together(low, high)
}

/// Returns what `product` returns for equal factors: two equal products are added as one and doubled.
#[inline(always)]
pub(crate) fn square<L: Lanes>(limbs: &[L; LIMBS]) -> [L; LIMBS] {
    let zero = limbs[0].splat(0);
    let (mut low, mut high) = ([zero; 9], [zero; 9]);
    for i in 0..LIMBS {
        for j in i + 1..LIMBS {
            low[i + j] = low[i + j].add_low_product(limbs[i], limbs[j]);
            high[i + j] = high[i + j].add_high_product(limbs[i], limbs[j]);
        }
    }
    for k in 0..9 {
        low[k] = low[k].add(low[k]);
        high[k] = high[k].add(high[k]);
    }
    for i in 0..LIMBS {
        low[2 * i] = low[2 * i].add_low_product(limbs[i], limbs[i]);
        high[2 * i] = high[2 * i].add_high_product(limbs[i], limbs[i]);
    }
    put_together(low, high)
}

/// Adds the halves of products, modulo p. `low[k]` counts 2^(51k) times, and `high[k]` 2^(51k + 52) times.
///
/// Of the 25 products of limbs n(k) = 1, 2, 3, 4, 5, 4, 3, 2, 1 have the weight k. Each half is below 2^52, and a high
/// one counts twice at weight k + 1. So the sum at weight k is below (n(k) + 2 n(k - 1)) * 2^52: for k from 0 to 9 these
/// are 1, 4, 7, 10, 13, 14, 11, 8, 5 and 2 times 2^52. As 2^255 is 19, the sum at weight k + 5 counts 19 times at weight
/// k: 1 + 19 * 14 = 267, 4 + 19 * 11 = 213, 7 + 19 * 8 = 159, 10 + 19 * 5 = 105 and 13 + 19 * 2 = 51 times 2^52 bound
/// the limbs, far below 2^64.
#[inline(always)]
fn put_together<L: Lanes>(low: [L; 9], high: [L; 9]) -> [L; LIMBS] {
    let mut sums = [low[0]; 10];
    for k in 0..9 {
        let twice = high[k].add(high[k]);
        sums[k + 1] = if k < 8 { low[k + 1].add(twice) } else { twice };
    }
    let mut limbs = [low[0]; LIMBS];
    for k in 0..LIMBS {
        let above = sums[k + 5];
        let three_times = above.add(above.add(above));
        limbs[k] = sums[k].add(three_times).add(above.shift_left::<4>());
    }
    limbs
}
