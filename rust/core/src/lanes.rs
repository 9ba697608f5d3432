//! Eight numbers of 64 bits that are computed with side by side.
//!
//! [`Lanes`] names the few operations that the batch arithmetic needs. `Ifma` is the fast kind, of AVX-512 registers.
//! [`PortableLanes`] does the same everywhere: tests run the arithmetic over them on any processor, and under tools that
//! do not know AVX-512.

/// How many lanes there are.
pub(crate) const LANES: usize = 8;

/// How many entries a table row has.
pub(crate) const ENTRIES: usize = 16;

/// Sixteen public numbers, of which each lane picks one. The alignment is that of two AVX-512 registers.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(crate) struct Row(pub(crate) [u64; ENTRIES]);

const LOW_52_BITS: u64 = (1 << 52) - 1;

/// Eight lanes. No operation branches on a lane or addresses memory by one.
///
/// All operations are inlined into the caller. For [`Ifma`] they are fast only inside of [`Lanes::call`].
pub(crate) trait Lanes: Copy {
    /// Calls a function that is compiled for processors with such lanes, and not into the caller.
    fn call<F: LaneFunction>(self, function: F) -> F::Output;

    /// Inlines a function where speed counts. Elsewhere it calls it: eight times as many instructions, inlined everywhere,
    /// would take a quarter of a megabyte, and the compiler minutes.
    fn inline<F: LaneFunction>(self, function: F) -> F::Output;

    /// Returns lanes that all hold `value`. `self` only proves that the processor has such lanes.
    fn splat(self, value: u64) -> Self;

    /// Returns lanes that hold `values`. `self` only proves that the processor has such lanes.
    fn load(self, values: &[u64; LANES]) -> Self;

    fn store(self) -> [u64; LANES];

    /// Adds. The sum must be below 2^64.
    fn add(self, other: Self) -> Self;

    /// Subtracts. The difference must not be negative.
    fn sub(self, other: Self) -> Self;

    /// Returns all ones in the lanes that hold zero, and zero in those that hold one.
    fn ones_where_zero(self) -> Self;

    fn and(self, other: Self) -> Self;

    fn or(self, other: Self) -> Self;

    fn xor(self, other: Self) -> Self;

    fn shift_left<const BITS: u32>(self) -> Self;

    fn shift_right<const BITS: u32>(self) -> Self;

    /// Adds the low 52 bits of the product of factors below 2^52. The sum must be below 2^64.
    fn add_low_product(self, one: Self, other: Self) -> Self;

    /// Adds the high 52 bits of the product of factors below 2^52. The sum must be below 2^64.
    fn add_high_product(self, one: Self, other: Self) -> Self;

    /// Returns for each lane the entry of which `self` holds the index, below 16. It reads the whole row.
    fn pick(self, row: &Row) -> Self;

    /// Returns `chosen` in the lanes where `self` is all ones, and `other` where it is zero.
    #[inline(always)]
    fn choose(self, chosen: Self, other: Self) -> Self {
        other.xor(self.and(chosen.xor(other)))
    }
}

/// The lanes that a process computes over.
#[derive(Clone, Copy)]
pub(crate) enum LaneKind {
    #[cfg(target_arch = "x86_64")]
    Ifma(Ifma),
    Portable,
}

impl LaneKind {
    /// Returns lanes that are faster than one key after the other, or none.
    pub(crate) fn fast() -> Option<Self> {
        #[cfg(target_arch = "x86_64")]
        return Ifma::zero().map(Self::Ifma);
        #[cfg(not(target_arch = "x86_64"))]
        return None;
    }

    pub(crate) fn is_fast(self) -> bool {
        !matches!(self, Self::Portable)
    }

    pub(crate) fn name(self) -> &'static str {
        if self.is_fast() { "AVX-512 IFMA, eight in parallel" } else { "portable lanes, eight in parallel" }
    }
}

/// A function over lanes, with its arguments. What [`LaneFunction::compute`] calls must be inlined into it, down to the
/// operations of the lanes, or be another such function.
pub(crate) trait LaneFunction {
    type Output;

    /// Every implementation is `#[inline(always)]`.
    fn compute(self) -> Self::Output;
}

/// Lanes of plain integers, which every processor has.
#[derive(Clone, Copy)]
pub(crate) struct PortableLanes([u64; LANES]);

impl PortableLanes {
    pub(crate) const ZERO: Self = Self([0; LANES]);

    #[inline(always)]
    fn with(mut self, other: Self, compute: impl Fn(u64, u64) -> u64) -> Self {
        for (lane, other) in self.0.iter_mut().zip(other.0) {
            *lane = compute(*lane, other);
        }
        self
    }
}

#[inline(always)]
fn product(one: u64, other: u64) -> u128 {
    u128::from(one & LOW_52_BITS) * u128::from(other & LOW_52_BITS)
}

impl Lanes for PortableLanes {
    #[inline(never)]
    fn call<F: LaneFunction>(self, function: F) -> F::Output {
        function.compute()
    }

    #[inline(always)]
    fn inline<F: LaneFunction>(self, function: F) -> F::Output {
        self.call(function)
    }

    #[inline(always)]
    fn splat(self, value: u64) -> Self {
        Self([value; LANES])
    }

    #[inline(always)]
    fn load(self, values: &[u64; LANES]) -> Self {
        Self(*values)
    }

    #[inline(always)]
    fn store(self) -> [u64; LANES] {
        self.0
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        self.with(other, u64::wrapping_add)
    }

    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        self.with(other, u64::wrapping_sub)
    }

    #[inline(always)]
    fn ones_where_zero(self) -> Self {
        self.with(self, |lane, _| lane.wrapping_sub(1))
    }

    #[inline(always)]
    fn and(self, other: Self) -> Self {
        self.with(other, |one, other| one & other)
    }

    #[inline(always)]
    fn or(self, other: Self) -> Self {
        self.with(other, |one, other| one | other)
    }

    #[inline(always)]
    fn xor(self, other: Self) -> Self {
        self.with(other, |one, other| one ^ other)
    }

    #[inline(always)]
    fn shift_left<const BITS: u32>(self) -> Self {
        self.with(self, |lane, _| lane << BITS)
    }

    #[inline(always)]
    fn shift_right<const BITS: u32>(self) -> Self {
        self.with(self, |lane, _| lane >> BITS)
    }

    #[inline(always)]
    fn add_low_product(self, one: Self, other: Self) -> Self {
        self.add(one.with(other, |one, other| product(one, other) as u64 & LOW_52_BITS))
    }

    #[inline(always)]
    fn add_high_product(self, one: Self, other: Self) -> Self {
        self.add(one.with(other, |one, other| (product(one, other) >> 52) as u64))
    }

    #[inline(never)]
    fn pick(self, row: &Row) -> Self {
        let mut picked = Self::ZERO;
        for (index, &entry) in (0..).zip(&row.0) {
            // Both are below 16: one less than their difference has its highest bit set only where they are equal.
            let is_here = self.with(self, |lane, _| ((lane ^ index).wrapping_sub(1) as i64 >> 63) as u64);
            picked = picked.or(is_here.and(self.splat(entry)));
        }
        picked
    }
}

#[cfg(target_arch = "x86_64")]
pub(crate) use ifma::Ifma;

#[cfg(target_arch = "x86_64")]
mod ifma {
    use std::arch::x86_64::*;

    use super::{LANES, LaneFunction, Lanes, Row};

    /// Lanes of an AVX-512 register, whose IFMA instructions multiply 52 bits by 52. A value exists only where the
    /// processor and the operating system have them.
    #[derive(Clone, Copy)]
    pub(crate) struct Ifma(__m512i);

    impl Ifma {
        /// Returns lanes of zero, or none where the processor or the operating system lacks them.
        pub(crate) fn zero() -> Option<Self> {
            let there = is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vl")
                && is_x86_feature_detected!("avx512ifma");
            // SAFETY: any 64 bytes are lanes.
            there.then(|| unsafe { std::mem::zeroed() })
        }
    }

    /// The features besides IFMA give the compiler a multiplication of 64 bits, and more registers for narrower vectors.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma")]
    fn call<F: LaneFunction>(function: F) -> F::Output {
        function.compute()
    }

    // SAFETY, for each block below: `self` exists, so the processor has the instruction. Loads and stores are inside of
    // the array that they are given.
    impl Lanes for Ifma {
        /// Stays apart, because the function with the features would be inlined into others with the same ones.
        #[inline(never)]
        fn call<F: LaneFunction>(self, function: F) -> F::Output {
            // SAFETY: see above.
            unsafe { call(function) }
        }

        #[inline(always)]
        fn inline<F: LaneFunction>(self, function: F) -> F::Output {
            function.compute()
        }

        #[inline(always)]
        fn splat(self, value: u64) -> Self {
            // SAFETY: see above.
            Self(unsafe { _mm512_set1_epi64(value as i64) })
        }

        #[inline(always)]
        fn load(self, values: &[u64; LANES]) -> Self {
            // SAFETY: see above.
            Self(unsafe { _mm512_loadu_si512(values.as_ptr().cast()) })
        }

        #[inline(always)]
        fn store(self) -> [u64; LANES] {
            let mut values = [0; LANES];
            // SAFETY: see above.
            unsafe { _mm512_storeu_si512(values.as_mut_ptr().cast(), self.0) };
            values
        }

        #[inline(always)]
        fn add(self, other: Self) -> Self {
            // SAFETY: see above.
            Self(unsafe { _mm512_add_epi64(self.0, other.0) })
        }

        #[inline(always)]
        fn sub(self, other: Self) -> Self {
            // SAFETY: see above.
            Self(unsafe { _mm512_sub_epi64(self.0, other.0) })
        }

        #[inline(always)]
        fn ones_where_zero(self) -> Self {
            // SAFETY: see above.
            Self(unsafe { _mm512_sub_epi64(self.0, _mm512_set1_epi64(1)) })
        }

        #[inline(always)]
        fn and(self, other: Self) -> Self {
            // SAFETY: see above.
            Self(unsafe { _mm512_and_si512(self.0, other.0) })
        }

        #[inline(always)]
        fn or(self, other: Self) -> Self {
            // SAFETY: see above.
            Self(unsafe { _mm512_or_si512(self.0, other.0) })
        }

        #[inline(always)]
        fn xor(self, other: Self) -> Self {
            // SAFETY: see above.
            Self(unsafe { _mm512_xor_si512(self.0, other.0) })
        }

        #[inline(always)]
        fn shift_left<const BITS: u32>(self) -> Self {
            // SAFETY: see above.
            Self(unsafe { _mm512_slli_epi64::<BITS>(self.0) })
        }

        #[inline(always)]
        fn shift_right<const BITS: u32>(self) -> Self {
            // SAFETY: see above.
            Self(unsafe { _mm512_srli_epi64::<BITS>(self.0) })
        }

        #[inline(always)]
        fn add_low_product(self, one: Self, other: Self) -> Self {
            // SAFETY: see above.
            Self(unsafe { _mm512_madd52lo_epu64(self.0, one.0, other.0) })
        }

        #[inline(always)]
        fn add_high_product(self, one: Self, other: Self) -> Self {
            // SAFETY: see above.
            Self(unsafe { _mm512_madd52hi_epu64(self.0, one.0, other.0) })
        }

        #[inline(always)]
        fn pick(self, row: &Row) -> Self {
            let (low, high) = row.0.split_at(LANES);
            // SAFETY: see above. The instruction picks from registers, so no address depends on a lane.
            Self(unsafe {
                let low = _mm512_loadu_si512(low.as_ptr().cast());
                let high = _mm512_loadu_si512(high.as_ptr().cast());
                _mm512_permutex2var_epi64(low, self.0, high)
            })
        }
    }
}
