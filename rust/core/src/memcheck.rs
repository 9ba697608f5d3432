//! Valgrind's memcheck as a witness that the batch arithmetic takes the same steps whatever the private keys are.
//!
//! Memcheck follows which bits are undefined, and reports a branch or an address that depends on one. Here private keys
//! are marked as undefined. It knows no AVX-512, so the same code runs over portable lanes.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

use std::io::Write;
use std::process::Command;

use crate::base_multiples::BaseMultiples;
use crate::batch::{Scalars, public_keys};
use crate::lanes::PortableLanes;

const MAKE_UNDEFINED: u64 = (b'M' as u64) << 24 | (b'C' as u64) << 16 | 1;
const MAKE_DEFINED: u64 = MAKE_UNDEFINED + 1;
const FOUND: i32 = 99;

/// Sends memcheck a request about the bytes of `values` (valgrind.h, memcheck.h). Outside of Valgrind it does nothing.
fn request<T>(request: u64, values: &mut [T]) {
    let arguments = [request, values.as_mut_ptr().addr() as u64, size_of_val(values) as u64, 0, 0, 0];
    // SAFETY: the rotations cancel each other out, and the exchange changes nothing. Valgrind knows the sequence, reads
    // the arguments, and writes to rdx.
    unsafe {
        std::arch::asm!(
            "rol rdi, 3",
            "rol rdi, 13",
            "rol rdi, 61",
            "rol rdi, 51",
            "xchg rbx, rbx",
            in("rax") &raw const arguments,
            inout("rdx") 0_u64 => _,
            inout("rdi") 0_u64 => _,
        );
    }
}

/// Runs one of the tests below under memcheck and returns its exit status; nothing if there is no Valgrind.
fn under_memcheck(test: &str) -> Option<i32> {
    let valgrind = Command::new("valgrind")
        .args(["--quiet", "--error-exitcode=99", "--exit-on-first-error=yes", "--undef-value-errors=yes"])
        .args([std::env::current_exe().unwrap().to_str().unwrap(), "--exact", "--ignored", "--nocapture"])
        .arg(format!("memcheck::{test}"))
        .output();
    match valgrind {
        Ok(output) => {
            let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
            assert!(text.contains("running 1 test"), "{text}");
            println!("{text}");
            output.status.code()
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            // The harness shows no output of tests that pass, so write past it.
            let line = "\nSKIPPED: no valgrind to watch the batch arithmetic with: apt-get install valgrind\n";
            std::io::stderr().write_all(line.as_bytes()).unwrap();
            None
        }
        Err(error) => panic!("valgrind: {error}"),
    }
}

#[test]
fn no_branch_and_no_address_depends_on_a_private_key() {
    if let Some(status) = under_memcheck("computes_with_undefined_private_keys") {
        assert_eq!(status, 0);
    }
}

#[test]
fn memcheck_notices_a_branch_and_an_address_that_depend_on_a_private_key() {
    for leak in ["branches_on_a_private_key", "addresses_memory_by_a_private_key"] {
        if let Some(status) = under_memcheck(leak) {
            assert_eq!(status, FOUND, "{leak}");
        }
    }
}

/// More than eight: of two groups.
fn undefined_private_keys() -> [[u8; 32]; 9] {
    let mut private_keys = std::array::from_fn(|index| [index as u8; 32]);
    request(MAKE_UNDEFINED, &mut private_keys);
    private_keys
}

#[test]
#[ignore = "runs under valgrind"]
fn computes_with_undefined_private_keys() {
    let table = BaseMultiples::compute(PortableLanes::ZERO).unwrap();
    let mut scalars = Scalars::NONE;
    undefined_private_keys().iter().for_each(|private_key| scalars.push(private_key));
    let mut computed = public_keys(PortableLanes::ZERO, &table, &scalars);
    request(MAKE_DEFINED, &mut computed);
    // The key of 32 zeros, RFC 7748's base point times 2^254: the work was done.
    assert_eq!(computed[0][..4], [0x2f, 0xe5, 0x7d, 0xa3]);
}

#[test]
#[ignore = "runs under valgrind"]
fn branches_on_a_private_key() {
    if std::hint::black_box(undefined_private_keys()[0][0]) == 3 {
        println!("three");
    }
}

#[test]
#[ignore = "runs under valgrind"]
fn addresses_memory_by_a_private_key() {
    let table = std::hint::black_box([7_u8; 256]);
    std::hint::black_box(table[usize::from(std::hint::black_box(undefined_private_keys()[0][0]))]);
}
