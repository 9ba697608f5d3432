//! Lanes that fail when a number leaves the bounds that the arithmetic is argued with. Only tests compute over them.

use crate::lanes::{LANES, LaneFunction, Lanes, PortableLanes, Row};

#[derive(Clone, Copy)]
pub(crate) struct CheckedLanes(PortableLanes);

impl CheckedLanes {
    pub(crate) const ZERO: Self = Self(PortableLanes::ZERO);

    fn each(self, other: Self, compute: impl Fn(u64, u64) -> Option<u64>, broken: &str) -> Self {
        let (one, other) = (self.store(), other.store());
        self.load(&std::array::from_fn(|lane| {
            compute(one[lane], other[lane]).unwrap_or_else(|| panic!("{broken}: {} and {}", one[lane], other[lane]))
        }))
    }

    fn require_factors(one: Self, other: Self) {
        let factor = |number| (number < 1 << 52).then_some(number);
        one.each(other, |one, other| factor(one).and(factor(other)), "these are no factors below 2^52");
    }
}

impl Lanes for CheckedLanes {
    #[inline(never)]
    fn call<F: LaneFunction>(self, function: F) -> F::Output {
        function.compute()
    }

    fn inline<F: LaneFunction>(self, function: F) -> F::Output {
        self.call(function)
    }

    fn splat(self, value: u64) -> Self {
        Self(self.0.splat(value))
    }

    fn load(self, values: &[u64; LANES]) -> Self {
        Self(self.0.load(values))
    }

    fn store(self) -> [u64; LANES] {
        self.0.store()
    }

    fn add(self, other: Self) -> Self {
        self.each(other, u64::checked_add, "this sum reaches 2^64")
    }

    fn sub(self, other: Self) -> Self {
        self.each(other, u64::checked_sub, "this difference is negative")
    }

    fn ones_where_zero(self) -> Self {
        self.each(self, |lane, _| (lane <= 1).then_some(lane), "these are not zero or one");
        Self(self.0.ones_where_zero())
    }

    fn and(self, other: Self) -> Self {
        Self(self.0.and(other.0))
    }

    fn or(self, other: Self) -> Self {
        Self(self.0.or(other.0))
    }

    fn xor(self, other: Self) -> Self {
        Self(self.0.xor(other.0))
    }

    fn shift_left<const BITS: u32>(self) -> Self {
        Self(self.0.shift_left::<BITS>())
    }

    fn shift_right<const BITS: u32>(self) -> Self {
        Self(self.0.shift_right::<BITS>())
    }

    fn add_low_product(self, one: Self, other: Self) -> Self {
        Self::require_factors(one, other);
        self.add(Self(PortableLanes::ZERO.add_low_product(one.0, other.0)))
    }

    fn add_high_product(self, one: Self, other: Self) -> Self {
        Self::require_factors(one, other);
        self.add(Self(PortableLanes::ZERO.add_high_product(one.0, other.0)))
    }

    fn pick(self, row: &Row) -> Self {
        self.each(self, |lane, _| (lane < 16).then_some(lane), "these are no indices below 16");
        Self(self.0.pick(row))
    }
}
