//! Multiples of the base point, computed once. They are public.

use crate::curve_point::{Addend, Point};
use crate::lane_field::{FieldElement, invert_all};
use crate::lanes::{ENTRIES, LANES, LaneFunction, Lanes, Row};
use crate::limb_products::LIMBS;

/// A scalar has so many digits of five bits.
pub(crate) const DIGITS: usize = 51;

/// The multiples for one digit: the limbs of the three elements of an [`Addend`], each limb of all entries side by side.
type Multiples = [[Row; LIMBS]; 3];

/// For each digit the odd multiples 1, 3, … 31 of 32^digit times the base point B; for the last digit with B
/// subtracted, see [`crate::batch`]. It takes 97,920 bytes.
pub(crate) struct BaseMultiples(Vec<Multiples>);

impl BaseMultiples {
    /// Computes the table, or nothing where there is no memory for it.
    pub(crate) fn compute<L: Lanes>(zero: L) -> Option<Self> {
        zero.call(Compute(zero))
    }

    /// Returns in each lane the entry of which `index` holds the number, from 0 to 15. It reads all entries.
    #[inline(always)]
    pub(crate) fn pick<L: Lanes>(&self, digit: usize, index: L) -> Addend<L> {
        let [sum, difference, product] = &self.0[digit];
        Addend {
            sum: pick_element(index, sum),
            difference: pick_element(index, difference),
            product: pick_element(index, product),
        }
    }

    #[cfg(test)]
    pub(crate) fn size_bytes(&self) -> usize {
        size_of_val(self.0.as_slice())
    }

    /// Flips a bit of an entry for each digit, as a fault of the memory or the processor would.
    #[cfg(test)]
    pub(crate) fn corrupt(&mut self) {
        self.0.iter_mut().for_each(|multiples| multiples[0][0].0[0] ^= 1);
    }
}

struct Compute<L>(L);

impl<L: Lanes> LaneFunction for Compute<L> {
    type Output = Option<BaseMultiples>;

    #[inline(always)]
    fn compute(self) -> Option<BaseMultiples> {
        let mut table = Vec::new();
        table.try_reserve_exact(DIGITS).ok()?;
        let base = Point::base(self.0);
        let mut odd = odd_multiples(&base);
        for digit in 0..DIGITS {
            if digit == DIGITS - 1 {
                let minus_base = to_addends(&[base])[0].negative();
                odd.iter_mut().for_each(|point| point.add(&minus_base));
            }
            table.push(to_multiples(&to_addends(&odd)));
            for _ in 0..5 {
                odd = [odd[0].double(), odd[1].double()];
            }
        }
        Some(BaseMultiples(table))
    }
}

#[inline(always)]
fn pick_element<L: Lanes>(index: L, rows: &[Row; LIMBS]) -> FieldElement<L> {
    let mut limbs = [index; LIMBS];
    for (limb, row) in limbs.iter_mut().zip(rows) {
        *limb = index.pick(row);
    }
    FieldElement(limbs)
}

/// Returns the multiples 1, 3, … 15 in the lanes of the first point, and 17, 19, … 31 in those of the second.
#[inline(always)]
fn odd_multiples<L: Lanes>(base: &Point<L>) -> [Point<L>; 2] {
    let zero = base.x.0[0].splat(0);
    let twice = to_addends(&[base.double()])[0];
    let mut points = [*base; 2];
    // Each entry stops growing at its place.
    for step in 1..ENTRIES {
        for (half, point) in points.iter_mut().enumerate() {
            let mut grows = [0; LANES];
            for (lane, mask) in grows.iter_mut().enumerate() {
                *mask = if half * LANES + lane >= step { u64::MAX } else { 0 };
            }
            let mut grown = *point;
            grown.add(&twice);
            *point = Point::choose(zero.load(&grows), &grown, point);
        }
    }
    points
}

#[inline(always)]
fn to_addends<L: Lanes, const COUNT: usize>(points: &[Point<L>; COUNT]) -> [Addend<L>; COUNT] {
    let mut denominators = [points[0].z; COUNT];
    for (denominator, point) in denominators.iter_mut().zip(points) {
        *denominator = point.z;
    }
    let inverses = invert_all(&denominators);
    let mut addends = [points[0].to_addend(&inverses[0]); COUNT];
    for index in 1..COUNT {
        addends[index] = points[index].to_addend(&inverses[index]);
    }
    addends
}

#[inline(always)]
fn to_multiples<L: Lanes>([low, high]: &[Addend<L>; 2]) -> Multiples {
    let halves = [(low.sum, high.sum), (low.difference, high.difference), (low.product, high.product)];
    let mut multiples = [[Row([0; ENTRIES]); LIMBS]; 3];
    for (rows, (low, high)) in multiples.iter_mut().zip(halves) {
        let (low, high) = (low.canonical(), high.canonical());
        for index in 0..LIMBS {
            rows[index].0[..LANES].copy_from_slice(&low[index].store());
            rows[index].0[LANES..].copy_from_slice(&high[index].store());
        }
    }
    multiples
}
