//! Points of the curve Ed25519 in eight lanes. It is Curve25519 in other coordinates (RFC 7748, section 4.1).

use crate::lane_field::FieldElement;
use crate::lanes::{LaneFunction, Lanes};

/// The base point (RFC 8032, section 5.1), in limbs of 51 bits.
const BASE_X: [u64; 5] = [1738742601995546, 1146398526822698, 2070867633025821, 562264141797630, 587772402128613];
const BASE_Y: [u64; 5] = [1801439850948184, 1351079888211148, 450359962737049, 900719925474099, 1801439850948198];
/// Twice the curve's constant d.
const TWICE_D: [u64; 5] = [1859910466990425, 932731440258426, 1072319116312658, 1815898335770999, 633789495995903];

/// Eight points in extended coordinates: x = X / Z, y = Y / Z, x * y = T / Z. All are narrow.
#[derive(Clone, Copy)]
pub(crate) struct Point<L> {
    pub(crate) x: FieldElement<L>,
    pub(crate) y: FieldElement<L>,
    pub(crate) z: FieldElement<L>,
    pub(crate) t: FieldElement<L>,
}

/// Eight points as a sum takes them: y + x, y - x, and 2d * x * y. Their limbs are below 2^52.
#[derive(Clone, Copy)]
pub(crate) struct Addend<L> {
    pub(crate) sum: FieldElement<L>,
    pub(crate) difference: FieldElement<L>,
    pub(crate) product: FieldElement<L>,
}

impl<L: Lanes> Addend<L> {
    /// Returns the addend of the opposite point. All is narrow, as it must be here.
    #[inline(always)]
    pub(crate) fn negative(&self) -> Self {
        let zero = FieldElement::constant(self.sum.0[0], [0; 5]);
        Self { sum: self.difference, difference: self.sum, product: zero.sub(&self.product) }
    }

    /// Returns the addend of the opposite point in the lanes where `mask` is all ones, and this one where it is zero.
    /// All limbs must be below 2^51.
    #[inline(always)]
    pub(crate) fn negative_where(&self, mask: L) -> Self {
        let negative = self.product.negative_factor();
        Self {
            sum: FieldElement::choose(mask, &self.difference, &self.sum),
            difference: FieldElement::choose(mask, &self.sum, &self.difference),
            product: FieldElement::choose(mask, &negative, &self.product),
        }
    }
}

impl<L: Lanes> Point<L> {
    /// Returns the base point in every lane.
    #[inline(always)]
    pub(crate) fn base(zero: L) -> Self {
        let (x, y) = (FieldElement::constant(zero, BASE_X), FieldElement::constant(zero, BASE_Y));
        Self { x, y, z: FieldElement::constant(zero, [1, 0, 0, 0, 0]), t: x.multiply(&y) }
    }

    /// Returns the point of an addend whose limbs are below 2^51.
    #[inline(always)]
    pub(crate) fn of(addend: &Addend<L>) -> Self {
        // These are 2x and 2y. All coordinates are scaled by 4, which changes no point.
        let (x, y) = (addend.sum.sub(&addend.difference), addend.sum.add(&addend.difference));
        let four = FieldElement::constant(x.0[0], [4, 0, 0, 0, 0]);
        Self { x: x.add(&x), y: y.add(&y), z: four, t: x.multiply(&y) }
    }

    /// Adds an addend. The formula is complete: it holds for all points, also for equal and opposite ones and for zero
    /// (Hisil, Wong, Carter, Dawson: Twisted Edwards Curves Revisited, section 3.1).
    #[inline(always)]
    pub(crate) fn add(&mut self, addend: &Addend<L>) {
        self.x.0[0].call(Add(self, addend));
    }

    /// Returns twice the point, for all points (the same paper, section 3.3).
    #[inline(always)]
    pub(crate) fn double(&self) -> Self {
        let (a, b) = (self.x.square(), self.y.square());
        let (g, h) = (a.sub(&b), a.add(&b));
        let e = h.sub(&self.x.add(&self.y).square());
        let (f, _) = self.z.square().twice_add_and_sub(&g);
        Self { x: e.multiply(&f), y: g.multiply(&h), z: f.multiply(&g), t: e.multiply(&h) }
    }

    /// Returns the point as an addend, given the inverse of Z.
    #[inline(always)]
    pub(crate) fn to_addend(self, inverse_of_z: &FieldElement<L>) -> Addend<L> {
        let (x, y) = (self.x.multiply(inverse_of_z), self.y.multiply(inverse_of_z));
        let twice_d = FieldElement::constant(x.0[0], TWICE_D);
        Addend { sum: y.add(&x), difference: y.sub(&x), product: x.multiply(&y).multiply(&twice_d) }
    }

    /// Returns the numerator and the denominator of the point's u coordinate on Curve25519 (RFC 7748, section 4.1).
    #[inline(always)]
    pub(crate) fn u_coordinate(&self) -> (FieldElement<L>, FieldElement<L>) {
        (self.z.add(&self.y), self.z.sub(&self.y))
    }

    /// Returns `chosen` in the lanes where `mask` is all ones, and `other` where it is zero.
    #[inline(always)]
    pub(crate) fn choose(mask: L, chosen: &Self, other: &Self) -> Self {
        Self {
            x: FieldElement::choose(mask, &chosen.x, &other.x),
            y: FieldElement::choose(mask, &chosen.y, &other.y),
            z: FieldElement::choose(mask, &chosen.z, &other.z),
            t: FieldElement::choose(mask, &chosen.t, &other.t),
        }
    }
}

/// The formula of [`Point::add`], in which a batch spends most of its time.
struct Add<'a, L>(&'a mut Point<L>, &'a Addend<L>);

impl<L: Lanes> LaneFunction for Add<'_, L> {
    type Output = ();

    #[inline(always)]
    fn compute(self) {
        let Self(point, addend) = self;
        let a = point.y.sub(&point.x).multiply_inline(&addend.difference);
        let b = point.y.add(&point.x).multiply_inline(&addend.sum);
        let c = point.t.multiply_inline(&addend.product);
        let (e, h) = (b.sub(&a), b.add(&a));
        let (g, f) = point.z.twice_add_and_sub(&c);
        *point = Point {
            x: e.multiply_inline(&f),
            y: g.multiply_inline(&h),
            z: f.multiply_inline(&g),
            t: e.multiply_inline(&h),
        };
    }
}
