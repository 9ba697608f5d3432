//! Computing with a secret without leaving copies of it on the stack or in registers.

use zeroize::zeroize_stack;

/// How much of the stack below the caller is wiped. It is half again as deep as the deepest computation here when
/// optimized (sealing a box: 10.6 KB), and enough without optimization; a test measures that.
pub(crate) const WIPED_STACK_BYTES: usize = 16 * 1024;

/// The same for a batch of keys, whose numbers are eight times as large. Wiping so much takes 1 us for 32 keys.
pub(crate) const WIPED_STACK_BYTES_OF_BATCH: usize = 48 * 1024;

/// The same for computations with ML-KEM's matrices. It is more than twice as deep as the deepest of them; a test measures
/// that. Wiping it takes a microsecond.
pub(crate) const DEEPLY_WIPED_STACK_BYTES: usize = 96 * 1024;

/// Runs `computation` in a stack frame of its own, then wipes that frame and the registers that it may have used.
///
/// The computation must return nothing secret: the result passes through the caller's frame, which is not wiped. This
/// is a best effort, as always in Rust: the compiler promises neither where it spills values nor that `inline(never)`
/// holds.
pub(crate) fn without_trace<R>(computation: impl FnOnce() -> R) -> R {
    let result = in_own_frame(computation);
    wipe_stack::<WIPED_STACK_BYTES>();
    wipe_registers();
    result
}

/// Does what [`without_trace`] does for a batch of keys, which reaches further down.
pub(crate) fn batch_without_trace<R>(computation: impl FnOnce() -> R) -> R {
    let result = in_own_frame(computation);
    wipe_stack::<WIPED_STACK_BYTES_OF_BATCH>();
    wipe_registers();
    result
}

/// Does the same with a computation that needs as much of the stack as ML-KEM does.
pub(crate) fn without_deep_trace<R>(computation: impl FnOnce() -> R) -> R {
    let result = in_own_frame(computation);
    wipe_stack::<DEEPLY_WIPED_STACK_BYTES>();
    wipe_registers();
    result
}

/// Runs a computation as [`without_trace`] does and puts its result into a box, which keeps no trace of others either.
///
/// A move copies all bytes of a value, also those that were never written. They may hold another message's key, which
/// an earlier frame left on the stack, and the box would keep it. So the stack is wiped before, too.
pub(crate) fn boxed_without_trace<T, E>(computation: impl FnOnce() -> Result<T, E>) -> Result<Box<T>, E> {
    wipe_stack::<WIPED_STACK_BYTES>();
    without_trace(|| computation().map(Box::new))
}

/// Does the same with a computation that needs as much of the stack as ML-KEM does.
pub(crate) fn boxed_without_deep_trace<T, E>(computation: impl FnOnce() -> Result<T, E>) -> Result<Box<T>, E> {
    wipe_stack::<DEEPLY_WIPED_STACK_BYTES>();
    without_deep_trace(|| computation().map(Box::new))
}

/// Wipes the stack and the registers when it is dropped.
///
/// Ciphers hold one: the wipe costs more than sealing a small frame, so it comes once at the end, not after every
/// frame.
pub(crate) struct TracesWiped;

impl Drop for TracesWiped {
    fn drop(&mut self) {
        without_trace(|| ());
    }
}

#[cfg(test)]
thread_local! {
    static NOT_WIPING: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

/// Inlined, so that the wiped stack begins where the frame of [`in_own_frame`] began.
#[inline(always)]
fn wipe_stack<const BYTES: usize>() {
    #[cfg(test)]
    if NOT_WIPING.get() {
        return;
    }
    zeroize_stack::<BYTES>();
}

#[inline(never)]
fn in_own_frame<R>(computation: impl FnOnce() -> R) -> R {
    computation()
}

/// Zeroes the registers that a call need not preserve. `computation` restored the others when it returned.
#[cfg(target_arch = "x86_64")]
fn wipe_registers() {
    if std::arch::is_x86_feature_detected!("avx512f") {
        // SAFETY: this zeroes vector and mask registers that the clobber list gives up, with instructions that this CPU
        // has.
        unsafe {
            std::arch::asm!(
                "vpxorq zmm16, zmm16, zmm16",
                "vpxorq zmm17, zmm17, zmm17",
                "vpxorq zmm18, zmm18, zmm18",
                "vpxorq zmm19, zmm19, zmm19",
                "vpxorq zmm20, zmm20, zmm20",
                "vpxorq zmm21, zmm21, zmm21",
                "vpxorq zmm22, zmm22, zmm22",
                "vpxorq zmm23, zmm23, zmm23",
                "vpxorq zmm24, zmm24, zmm24",
                "vpxorq zmm25, zmm25, zmm25",
                "vpxorq zmm26, zmm26, zmm26",
                "vpxorq zmm27, zmm27, zmm27",
                "vpxorq zmm28, zmm28, zmm28",
                "vpxorq zmm29, zmm29, zmm29",
                "vpxorq zmm30, zmm30, zmm30",
                "vpxorq zmm31, zmm31, zmm31",
                "kxorw k0, k0, k0",
                "kxorw k1, k1, k1",
                "kxorw k2, k2, k2",
                "kxorw k3, k3, k3",
                "kxorw k4, k4, k4",
                "kxorw k5, k5, k5",
                "kxorw k6, k6, k6",
                "kxorw k7, k7, k7",
                clobber_abi("sysv64"),
                options(nomem, nostack),
            );
        }
    }
    if std::arch::is_x86_feature_detected!("avx") {
        // SAFETY: as above; `vzeroall` zeroes all of the first sixteen vector registers.
        unsafe { std::arch::asm!("vzeroall", clobber_abi("sysv64"), options(nomem, nostack)) };
    } else {
        // SAFETY: as above, with SSE2, which every x86-64 CPU has.
        unsafe {
            std::arch::asm!(
                "xorps xmm0, xmm0",
                "xorps xmm1, xmm1",
                "xorps xmm2, xmm2",
                "xorps xmm3, xmm3",
                "xorps xmm4, xmm4",
                "xorps xmm5, xmm5",
                "xorps xmm6, xmm6",
                "xorps xmm7, xmm7",
                "xorps xmm8, xmm8",
                "xorps xmm9, xmm9",
                "xorps xmm10, xmm10",
                "xorps xmm11, xmm11",
                "xorps xmm12, xmm12",
                "xorps xmm13, xmm13",
                "xorps xmm14, xmm14",
                "xorps xmm15, xmm15",
                clobber_abi("sysv64"),
                options(nomem, nostack),
            );
        }
    }
    // SAFETY: this zeroes general registers that the clobber list gives up.
    unsafe {
        std::arch::asm!(
            "xor eax, eax",
            "xor ecx, ecx",
            "xor edx, edx",
            "xor esi, esi",
            "xor edi, edi",
            "xor r8d, r8d",
            "xor r9d, r9d",
            "xor r10d, r10d",
            "xor r11d, r11d",
            clobber_abi("sysv64"),
            options(nomem, nostack),
        );
    }
}

/// Zeroes the registers that a call need not preserve. `computation` restored the others when it returned.
#[cfg(target_arch = "aarch64")]
fn wipe_registers() {
    // SAFETY: this zeroes registers that the clobber list gives up. It leaves x18 to the platform.
    unsafe {
        std::arch::asm!(
            "movi v0.16b, #0",
            "movi v1.16b, #0",
            "movi v2.16b, #0",
            "movi v3.16b, #0",
            "movi v4.16b, #0",
            "movi v5.16b, #0",
            "movi v6.16b, #0",
            "movi v7.16b, #0",
            "movi v16.16b, #0",
            "movi v17.16b, #0",
            "movi v18.16b, #0",
            "movi v19.16b, #0",
            "movi v20.16b, #0",
            "movi v21.16b, #0",
            "movi v22.16b, #0",
            "movi v23.16b, #0",
            "movi v24.16b, #0",
            "movi v25.16b, #0",
            "movi v26.16b, #0",
            "movi v27.16b, #0",
            "movi v28.16b, #0",
            "movi v29.16b, #0",
            "movi v30.16b, #0",
            "movi v31.16b, #0",
            "mov x0, #0",
            "mov x1, #0",
            "mov x2, #0",
            "mov x3, #0",
            "mov x4, #0",
            "mov x5, #0",
            "mov x6, #0",
            "mov x7, #0",
            "mov x8, #0",
            "mov x9, #0",
            "mov x10, #0",
            "mov x11, #0",
            "mov x12, #0",
            "mov x13, #0",
            "mov x14, #0",
            "mov x15, #0",
            "mov x16, #0",
            "mov x17, #0",
            clobber_abi("C"),
            options(nomem, nostack),
        );
    }
    // SAFETY: this zeroes the halves of registers of which a call need not preserve that half.
    unsafe {
        std::arch::asm!(
            "mov v8.d[1], xzr",
            "mov v9.d[1], xzr",
            "mov v10.d[1], xzr",
            "mov v11.d[1], xzr",
            "mov v12.d[1], xzr",
            "mov v13.d[1], xzr",
            "mov v14.d[1], xzr",
            "mov v15.d[1], xzr",
            out("v8") _,
            out("v9") _,
            out("v10") _,
            out("v11") _,
            out("v12") _,
            out("v13") _,
            out("v14") _,
            out("v15") _,
            options(nomem, nostack),
        );
    }
}

/// Wipes nothing: registers are wiped on x86-64 and AArch64 only.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn wipe_registers() {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Delivery, Epoch, GroupKeys, KeyPair, RequestOpener, RequestOpenerV1, RequestSealer, RequestSealerV1,
        XWingKeyPair, open_box, seal_boxes,
    };

    const PATTERN: u64 = 0xa5a5_5a5a_a5a5_5a5a;
    const MEASURED_BYTES: usize = 256 * 1024;

    /// Returns how far below this frame `computation` writes to the stack.
    #[inline(never)]
    fn stack_depth(computation: impl FnOnce()) -> usize {
        let here = std::hint::black_box(0_u64);
        // Make the pointer from its number: the compiler lets a pointer to `here` reach nothing but `here`.
        let top =
            std::ptr::with_exposed_provenance_mut::<u64>(std::hint::black_box((&raw const here).expose_provenance()));
        // Leave out some words below this frame: the calls that paint need them.
        let painted = 64..MEASURED_BYTES / size_of::<u64>();
        for index in painted.clone() {
            // SAFETY: this thread's stack is longer than `MEASURED_BYTES`, and nothing alive is below this frame.
            unsafe { top.sub(index).write_volatile(PATTERN) };
        }
        in_own_frame(computation);
        let deepest = painted.clone().rev().find(|&index| {
            // SAFETY: as above.
            (unsafe { top.sub(index).read_volatile() }) != PATTERN
        });
        deepest.unwrap_or(painted.start) * size_of::<u64>()
    }

    /// Counts the words of a private key that `computation` leaves on the stack below this frame.
    #[inline(never)]
    fn words_left(private_key: &[u8; 32], computation: impl FnOnce()) -> usize {
        let here = std::hint::black_box(0_u64);
        let top = std::ptr::with_exposed_provenance::<u64>(std::hint::black_box((&raw const here).expose_provenance()));
        in_own_frame(computation);
        // The first and the last word change with the decoding of the scalar.
        let words: [u64; 2] = std::array::from_fn(|index| {
            u64::from_ne_bytes(std::array::from_fn(|byte| private_key[8 + 8 * index + byte]))
        });
        (1..MEASURED_BYTES / size_of::<u64>())
            .filter(|&index| {
                // SAFETY: this thread's stack is longer than `MEASURED_BYTES`; bytes of it that nobody wrote are zero.
                words.contains(&unsafe { top.sub(index).read_volatile() })
            })
            .count()
    }

    #[inline(never)]
    fn copy_to_the_stack(private_key: &[u8; 32]) {
        std::hint::black_box(&mut std::hint::black_box(*private_key));
    }

    #[test]
    fn no_computation_leaves_words_of_a_private_key_on_the_stack() {
        let measured = std::thread::Builder::new().stack_size(4 * MEASURED_BYTES).spawn(|| {
            let mut private_key = [0; 32];
            getrandom::fill(&mut private_key).unwrap();
            let peer = *KeyPair::generate().unwrap().public_key();
            let pair = KeyPair::from_private_key(&private_key).unwrap();
            let mut sealer = RequestSealer::new(pair.public_key()).unwrap();
            let body = sealer.seal(b"hello").unwrap();
            assert!(words_left(&private_key, || copy_to_the_stack(&private_key)) > 0, "the search finds nothing");
            [
                words_left(&private_key, || without_trace(|| copy_to_the_stack(&private_key))),
                words_left(&private_key, || drop(KeyPair::from_private_key(&private_key).unwrap())),
                words_left(&private_key, || pair.exchange(&peer, &mut [0; 32]).unwrap()),
                words_left(&private_key, || {
                    let mut opener = RequestOpener::new(sealer.encapsulated_key(), [&pair], 1000).unwrap();
                    opener.feed(&body).unwrap();
                }),
            ]
        });
        assert_eq!(measured.unwrap().join().unwrap(), [0; 4]);
    }

    #[test]
    fn no_computation_leaves_words_of_a_seed_on_the_stack() {
        let measured = std::thread::Builder::new().stack_size(4 * MEASURED_BYTES).spawn(|| {
            let mut seed = [0; 32];
            getrandom::fill(&mut seed).unwrap();
            let pair = XWingKeyPair::from_seed(&seed).unwrap();
            let mut sealer = RequestSealerV1::new(pair.public_key()).unwrap();
            let head = sealer.seal_head(b"head").unwrap();
            assert!(words_left(&seed, || copy_to_the_stack(&seed)) > 0, "the search finds nothing");
            [
                words_left(&seed, || drop(XWingKeyPair::from_seed(&seed).unwrap())),
                words_left(&seed, || {
                    drop(RequestOpenerV1::new(sealer.encapsulated_key(), &head, &pair, 1000).unwrap());
                }),
            ]
        });
        assert_eq!(measured.unwrap().join().unwrap(), [0; 2]);
    }

    #[test]
    fn no_computation_with_ml_kem_reaches_below_the_stack_that_is_wiped_then() {
        let measured = std::thread::Builder::new().stack_size(4 * MEASURED_BYTES).spawn(|| {
            let (server, member) = (XWingKeyPair::generate().unwrap(), XWingKeyPair::generate().unwrap());
            let mut sealer = RequestSealerV1::new(server.public_key()).unwrap();
            let head = sealer.seal_head(&[7; 10_000]).unwrap();
            let group = GroupKeys::of_name(b"name").unwrap();
            let key_pair = KeyPair::generate().unwrap();
            let epoch = Epoch {
                number: 1,
                key_pair: &key_pair,
                xwing_key_pair: Some(&server),
                publish_in_ms: 0,
                ends_in_ms: 0,
            };
            let delivery = Delivery { whole: true, as_of_ms: 0, epochs: vec![epoch] };
            let sealed = seal_boxes(&group, &[member.public_key()], &delivery).unwrap().remove(0).unwrap();
            // Measure without the wiping, which would be deepest.
            NOT_WIPING.set(true);
            [
                ("generate", stack_depth(|| drop(XWingKeyPair::generate().unwrap()))),
                ("seal", stack_depth(|| drop(RequestSealerV1::new(server.public_key()).unwrap()))),
                (
                    "open",
                    stack_depth(|| {
                        drop(RequestOpenerV1::new(sealer.encapsulated_key(), &head, &server, 20_000).unwrap());
                    }),
                ),
                ("seal a box", stack_depth(|| drop(seal_boxes(&group, &[member.public_key()], &delivery).unwrap()))),
                ("open a box", stack_depth(|| drop(open_box(&group, &member, &sealed).unwrap()))),
            ]
        });
        for (computation, depth) in measured.unwrap().join().unwrap() {
            println!("{computation} with ML-KEM: {depth} bytes");
            assert!(depth < DEEPLY_WIPED_STACK_BYTES, "{computation} reaches {depth} bytes down");
            assert!(depth > WIPED_STACK_BYTES, "{computation} needs no deeper wipe");
        }
    }

    #[test]
    fn no_computation_reaches_below_the_stack_that_is_wiped() {
        let measured = std::thread::Builder::new().stack_size(4 * MEASURED_BYTES).spawn(|| {
            let (server, peer) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
            let mut sealer = RequestSealer::new(server.public_key()).unwrap();
            // Long enough for the code that handles many blocks at once.
            let text = vec![7; 10_000];
            let body = sealer.seal(&text).unwrap();
            let mut shared_secret = [0; 32];
            let group = GroupKeys::of_name(b"name").unwrap();
            let epoch = Epoch {
                number: 1,
                key_pair: &server,
                xwing_key_pair: None::<&XWingKeyPair>,
                publish_in_ms: 0,
                ends_in_ms: 0,
            };
            let delivery = Delivery { whole: true, as_of_ms: 0, epochs: vec![epoch] };
            let sealed = seal_boxes(&group, &[peer.public_key()], &delivery).unwrap().remove(0).unwrap();
            let secret = [b'a'; 64];
            // The first batch also makes a table, of nothing secret.
            drop(crate::generate_key_pairs(63).unwrap());
            // Measure without the wiping, which would be deepest.
            NOT_WIPING.set(true);
            let batch = stack_depth(|| drop(crate::generate_key_pairs(63).unwrap()));
            println!("a batch: {batch} bytes");
            assert!(batch < WIPED_STACK_BYTES_OF_BATCH, "a batch reaches {batch} bytes down");
            [
                ("generate", stack_depth(|| drop(KeyPair::generate().unwrap()))),
                ("exchange", stack_depth(|| server.exchange(peer.public_key(), &mut shared_secret).unwrap())),
                (
                    "seal",
                    stack_depth(|| {
                        let mut sealer = RequestSealer::new(server.public_key()).unwrap();
                        sealer.seal(&text).unwrap();
                    }),
                ),
                (
                    "open",
                    stack_depth(|| {
                        let mut opener = RequestOpener::new(sealer.encapsulated_key(), [&server], 20_000).unwrap();
                        opener.feed(&body).unwrap();
                        drop(opener.response_sealer().unwrap());
                    }),
                ),
                ("derive keys", stack_depth(|| drop(GroupKeys::from_secret_text(&secret, b"label").unwrap()))),
                ("check a tag", stack_depth(|| assert_eq!(group.is_ask_tag(b"ask", &[0; 32]), Ok(false)))),
                ("seal a box", stack_depth(|| drop(seal_boxes(&group, &[peer.public_key()], &delivery).unwrap()))),
                ("open a box", stack_depth(|| drop(open_box(&group, &peer, &sealed).unwrap()))),
            ]
        });
        for (computation, depth) in measured.unwrap().join().unwrap() {
            println!("{computation}: {depth} bytes");
            assert!(depth < WIPED_STACK_BYTES, "{computation} reaches {depth} bytes down");
        }
    }

    #[test]
    fn nor_does_it_over_portable_lanes_or_by_dalek_alone() {
        for engine in ["portable-lanes", "dalek"] {
            let measured = std::process::Command::new(std::env::current_exe().unwrap())
                .args(["--nocapture", "no_computation_reaches_below_the_stack_that_is_wiped"])
                .env("SERVER_KEYS_ENGINE", engine)
                .output()
                .unwrap();
            println!("{engine}: {}", String::from_utf8_lossy(&measured.stdout));
            assert!(measured.status.success(), "{engine}");
        }
    }
}
