//! The batch arithmetic over AVX-512 registers, which few machines have: `make test-avx512` runs these tests on an
//! emulated processor. They fail on one that lacks AVX-512 IFMA.
#![cfg(target_arch = "x86_64")]

use crate::batch_engine::tests::{
    assert_right, extreme_private_keys, private_keys_around_the_multiples_of_the_order, random_keys,
};
use crate::batch_engine::{BATCH_ENGINE, Measured};
use crate::engine::engine;
use crate::engine_fault::unreported_engine_fault;
use crate::key_pair::{KeyPair, generate_key_pairs};
use crate::lane_field::FieldElement;
use crate::lane_field::tests::{LARGEST_FACTOR, LARGEST_NARROW, edges};
use crate::lanes::{ENTRIES, Ifma, LANES, LaneFunction, LaneKind, Lanes, PortableLanes, Row};
use crate::limb_products::LIMBS;
use crate::no_trace::batch_without_trace;

type Numbers = [u64; LANES];

fn zero() -> Ifma {
    Ifma::zero().expect("a processor with AVX-512 IFMA: make test-avx512 emulates one")
}

fn measured() -> Measured {
    Measured::over(LaneKind::Ifma(zero())).unwrap()
}

/// Numbers at which a lane, a product's halves, or a limb overflow.
const EDGES: [u64; ENTRIES] = [
    0,
    1,
    2,
    19,
    (1 << 51) - 1,
    1 << 51,
    (1 << 52) - 2,
    (1 << 52) - 1,
    1 << 52,
    (1 << 52) + 1,
    (1 << 63) - 1,
    1 << 63,
    u64::MAX - 1,
    u64::MAX,
    0x5555_5555_5555_5555,
    0xaaaa_aaaa_aaaa_aaaa,
];

/// Eight edges, another one in each lane.
fn edges_from(first: usize) -> Numbers {
    std::array::from_fn(|lane| EDGES[(first + lane) % ENTRIES])
}

/// Every operation of lanes.
struct Operations<L>(L, [Numbers; 3]);

impl<L: Lanes> LaneFunction for Operations<L> {
    type Output = [Numbers; 18];

    #[inline(always)]
    fn compute(self) -> Self::Output {
        let Self(zero, numbers) = self;
        let [one, other, third] = [zero.load(&numbers[0]), zero.load(&numbers[1]), zero.load(&numbers[2])];
        let mask = third.and(zero.splat(1)).ones_where_zero();
        [
            zero,
            zero.splat(numbers[0][0]),
            one,
            one.add(other),
            one.sub(other),
            mask,
            one.and(other),
            one.or(other),
            one.xor(other),
            one.shift_left::<1>(),
            one.shift_left::<5>(),
            one.shift_right::<4>(),
            one.shift_right::<51>(),
            one.shift_right::<59>(),
            third.add_low_product(one, other),
            third.add_high_product(one, other),
            one.and(zero.splat(15)).pick(&Row(EDGES)),
            mask.choose(one, other),
        ]
        .map(L::store)
    }
}

#[test]
#[ignore = "needs AVX-512 IFMA: make test-avx512"]
fn every_operation_is_that_of_portable_lanes() {
    for first in 0..ENTRIES {
        for second in 0..ENTRIES {
            for third in 0..ENTRIES {
                let numbers = [edges_from(first), edges_from(second), edges_from(third)];
                let expected = PortableLanes::ZERO.call(Operations(PortableLanes::ZERO, numbers));
                assert_eq!(zero().call(Operations(zero(), numbers)), expected, "of {numbers:x?}");
            }
        }
    }
}

/// What is computed with the elements of the field: sums and differences with narrow ones, products with factors.
struct Field<L>(L, [[u64; LIMBS]; 4]);

impl<L: Lanes> LaneFunction for Field<L> {
    type Output = ([[Numbers; LIMBS]; 8], [[u8; 32]; LANES]);

    #[inline(always)]
    fn compute(self) -> Self::Output {
        let [narrow, other_narrow, factor, other_factor] = self.1.map(|limbs| FieldElement::constant(self.0, limbs));
        let (sum, difference) = narrow.twice_add_and_sub(&other_narrow);
        let elements = [
            narrow.add(&other_narrow),
            narrow.sub(&other_narrow),
            sum,
            difference,
            factor.multiply(&other_factor),
            factor.multiply_inline(&other_factor),
            factor.square(),
            FieldElement(narrow.canonical()),
        ];
        (elements.map(|element| element.0.map(L::store)), factor.multiply(&other_factor).to_bytes())
    }
}

#[test]
#[ignore = "needs AVX-512 IFMA: make test-avx512"]
fn the_field_is_that_of_portable_lanes_at_the_edges_of_limbs() {
    let (narrow, factors) = (edges(LARGEST_NARROW), edges(LARGEST_FACTOR));
    for (one, factor) in narrow.iter().zip(&factors) {
        for (other, other_factor) in narrow.iter().zip(&factors) {
            let limbs = [*one, *other, *factor, *other_factor];
            let expected = PortableLanes::ZERO.call(Field(PortableLanes::ZERO, limbs));
            assert_eq!(zero().call(Field(zero(), limbs)), expected, "of {limbs:x?}");
        }
    }
}

#[test]
#[ignore = "needs AVX-512 IFMA: make test-avx512"]
fn extreme_private_keys_have_the_public_keys_of_dalek() {
    let measured = measured();
    assert_right(&measured, &extreme_private_keys());
    assert_right(&measured, &private_keys_around_the_multiples_of_the_order());
}

#[test]
#[ignore = "needs AVX-512 IFMA: make test-avx512"]
fn random_private_keys_have_the_public_keys_of_dalek() {
    assert_right(&measured(), &random_keys(4_000));
}

#[test]
#[ignore = "needs AVX-512 IFMA: make test-avx512"]
fn the_engine_chooses_them_and_every_public_key_belongs_to_its_private_key() {
    println!("{}", engine());
    let peer = KeyPair::generate().unwrap();
    let exchanged = |own: &KeyPair, peer: &KeyPair| {
        let mut shared_secret = [0; 32];
        own.exchange(peer.public_key(), &mut shared_secret).unwrap();
        shared_secret
    };
    for count in [3, 7, 8, 9, 31, 32, 33, 129] {
        for key_pair in generate_key_pairs(count).unwrap() {
            assert_eq!(exchanged(&key_pair, &peer), exchanged(&peer, &key_pair), "{count}");
        }
    }
    // The self-test and the checks of single keys found no fault, so they still compute.
    assert_eq!(unreported_engine_fault(), None);
    assert!(BATCH_ENGINE.is_fast());
    assert_eq!(engine().batches(), "AVX-512 IFMA, eight in parallel");
}

const PATTERN: u64 = 0xa5a5_5a5a_a5a5_5a5a;

#[inline(never)]
fn fill_registers() {
    // SAFETY: this writes to vector registers that the clobber list gives up, and the tests need AVX-512.
    unsafe {
        std::arch::asm!(
            ".irp number, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31",
            "vpbroadcastq zmm\\number, {pattern}",
            ".endr",
            pattern = in(reg) PATTERN,
            clobber_abi("sysv64"),
            options(nomem, nostack),
        );
    }
}

/// Counts the words of the vector registers that hold the pattern after `computation`.
#[inline(never)]
fn words_left_in_registers(computation: impl FnOnce()) -> usize {
    let mut registers = [[0_u64; LANES]; 32];
    computation();
    // SAFETY: this writes the 32 registers of 64 bytes to an array of that size, and the tests need AVX-512.
    unsafe {
        std::arch::asm!(
            ".irp number, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31",
            "vmovdqu64 [{registers} + 64 * \\number], zmm\\number",
            ".endr",
            registers = in(reg) registers.as_mut_ptr(),
            options(nostack),
        );
    }
    registers.as_flattened().iter().filter(|word| **word == PATTERN).count()
}

#[test]
#[ignore = "needs AVX-512 IFMA: make test-avx512"]
fn nothing_stays_in_their_registers() {
    let _ = zero();
    assert!(words_left_in_registers(fill_registers) > 16 * LANES, "the search finds nothing");
    assert_eq!(words_left_in_registers(|| batch_without_trace(fill_registers)), 0);
}
