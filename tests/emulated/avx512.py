"""Run the core's tests of AVX-512 IFMA on a processor that Bochs emulates: `make test-avx512`.

QEMU and Valgrind know no AVX-512, so the test program runs under a Linux of its own. That is not installed: Debian's
kernel and boot loader lie in a folder that git ignores.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

FOLDER = Path(__file__).parents[2] / ".cache/avx512"
ROOT = FOLDER / "root"
FETCHED = FOLDER / "fetched"
# The programs that have to be there, and Debian's packages of them.
PROGRAMS = {"bochs-bin": "bochs bochs-term bochsbios vgabios", "xorriso": "xorriso", "cpio": "cpio"}
KERNEL = "linux-image-cloud-amd64"
# A measurement of the stack belongs to them: it is deeper over these lanes.
TESTS = ["fast_lanes::", "no_computation_reaches_below_the_stack_that_is_wiped"]
ENGINE = "batches of keys: AVX-512 IFMA, eight in parallel."
LIMIT_S = 1800
# Instructions of an emulated second: few enough that Linux, which waits by the clock, waits briefly.
SPEED = 20_000_000

# Bochs 2.7 computes s2n-bignum's code with ADX wrongly, which the engine's check at its start finds; so AWS-LC is told
# that there is no ADX (bit 19) and takes the code without. The console needs a moment for the last lines before
# `poweroff`, which ends Bochs, too.
INIT = f"""#!/bin/busybox sh
/bin/busybox mkdir -p /proc /tmp
/bin/busybox mount -t proc proc /proc
/bin/busybox grep -m 1 'model name' /proc/cpuinfo
/bin/busybox grep -m 1 -o avx512ifma /proc/cpuinfo
export OPENSSL_ia32cap=:~0x80000
/tests --include-ignored --nocapture --test-threads=1 {" ".join(TESTS)} 2>&1
/bin/busybox sleep 1
/bin/busybox poweroff -f
"""
# Bochs 2.7 tells wrong sizes of what XSAVEC, XSAVES and PKU save, for which Linux would give up AVX, and the wrong
# frequency of its clock.
BOOT = f"""DEFAULT linux
LABEL linux
LINUX vmlinuz
INITRD initrd
APPEND console=ttyS0 quiet loglevel=0 mitigations=off clearcpuid=xsavec,xsaves,pku tsc_early_khz={SPEED // 1000}
"""
# Bochs would look for a sound card, and it draws on a terminal that nobody reads: once a second, it never fills up.
MACHINE = f"""cpu: model=corei3_cnl, ips={SPEED}
memory: guest=512, host=512
romimage: file=/usr/share/bochs/BIOS-bochs-latest
vgaromimage: file=/usr/share/vgabios/vgabios.bin
ata0-master: type=cdrom, path={FOLDER}/disc.iso, status=inserted
boot: cdrom
com1: enabled=1, mode=file, dev={FOLDER}/console
display_library: term
sound: driver=dummy
speaker: enabled=0
vga: realtime=0, update_freq=1
log: {FOLDER}/bochs.log
panic: action=fatal
error: action=ignore
info: action=ignore
"""


def run(command: Sequence[str | Path], cwd: Path | None = None) -> str:
    return subprocess.run(command, cwd=cwd, timeout=300, check=True, stdout=subprocess.PIPE, text=True).stdout


def fetch() -> None:
    """Unpack a kernel, a boot loader and a shell into `ROOT`."""
    # A state of its own for apt: the machine's lists may be old, and stay as they are.
    shutil.rmtree(FOLDER, ignore_errors=True)
    for folder in ("state/lists/partial", "cache/archives/partial", "packages", "root"):
        (FOLDER / folder).mkdir(parents=True)
    (FOLDER / "status").touch()
    state = {"State": FOLDER / "state", "State::status": FOLDER / "status", "Cache": FOLDER / "cache"}
    options = ["-qq", "-oAPT::Sandbox::User=root", *(f"-oDir::{name}={path}" for name, path in state.items())]
    run(["apt-get", *options, "update"])
    depends = run(["apt-cache", *options, "depends", "--important", KERNEL])
    kernel = depends.split("Depends: ")[1].split()[0]
    packages = [kernel, "isolinux", "syslinux-common", "busybox-static"]
    run(["apt-get", *options, "download", *packages], cwd=FOLDER / "packages")
    for package in (FOLDER / "packages").iterdir():
        run(["dpkg-deb", "--extract", package, ROOT])
    FETCHED.touch()


def build() -> Path:
    """Return the program of the core's unit tests, the one that `make test` runs."""
    build = ["cargo", "test", "--locked", "--no-run", "--package=server-keys-core", "--lib", "--message-format=json"]
    built = subprocess.run(build, check=True, stdout=subprocess.PIPE, text=True).stdout
    messages = [json.loads(line) for line in built.splitlines()]
    return next(Path(message["executable"]) for message in messages if message.get("executable"))


def make_disc(program: Path) -> None:
    initial, disc = FOLDER / "initial", FOLDER / "disc"
    for folder in (initial, disc):
        shutil.rmtree(folder, ignore_errors=True)
    # What the program is linked with, where it looks for it.
    files = {library: library for library in re.findall(r"/\S+", run(["ldd", program]))}
    for source, name in {**files, str(program): "/tests", str(ROOT / "bin/busybox"): "/bin/busybox"}.items():
        (initial / name[1:]).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, initial / name[1:])
    run(["strip", initial / "tests"])
    (initial / "init").write_text(INIT)
    (initial / "init").chmod(0o755)
    disc.mkdir()
    names = "\n".join(str(path.relative_to(initial)) for path in initial.rglob("*"))
    with (disc / "initrd").open("w") as initrd:
        archive = ["cpio", "--quiet", "--create", "--format=newc"]
        subprocess.run(archive, cwd=initial, input=names, text=True, stdout=initrd, check=True)
    shutil.copy(next((ROOT / "boot").glob("vmlinuz-*")), disc / "vmlinuz")
    for loader in ("ISOLINUX/isolinux.bin", "syslinux/modules/bios/ldlinux.c32"):
        shutil.copy(ROOT / "usr/lib" / loader, disc)
    (disc / "isolinux.cfg").write_text(BOOT)
    boots = ["-b", "isolinux.bin", "-no-emul-boot", "-boot-load-size", "4", "-boot-info-table"]
    run(["xorriso", "-as", "mkisofs", "-quiet", "-o", FOLDER / "disc.iso", *boots, disc])


def emulate() -> str:
    """Return what the emulated machine wrote to its console until it switched itself off."""
    (FOLDER / "machine").write_text(MACHINE)
    # Debian's Bochs is one with a debugger, which waits for a command.
    (FOLDER / "commands").write_text("continue\n")
    console = FOLDER / "console"
    console.unlink(missing_ok=True)
    bochs: list[str | Path] = ["bochs-bin", "-q", "-f", FOLDER / "machine", "-rc", FOLDER / "commands"]
    environment = {**os.environ, "TERM": "xterm"}
    with (FOLDER / "screen").open("w") as screen:
        try:
            subprocess.run(
                bochs, env=environment, stdin=subprocess.DEVNULL, stdout=screen, stderr=screen, timeout=LIMIT_S
            )
        except subprocess.TimeoutExpired:
            print(f"The emulated machine took more than {LIMIT_S} s, and was stopped.")
    return console.read_text(errors="replace") if console.exists() else ""


def main() -> None:
    missing = [package for program, package in PROGRAMS.items() if shutil.which(program) is None]
    if missing:
        sys.exit(f"Emulating a processor needs more: apt-get install --no-install-recommends {' '.join(missing)}")
    if not FETCHED.exists():
        fetch()
    program = build()
    asked_for = run([program, "--list", "--include-ignored", *TESTS]).count(": test\n")
    make_disc(program)
    start = time.monotonic()
    said = emulate()
    print(said)
    # Bochs' own status says nothing.
    if ENGINE not in said or f"test result: ok. {asked_for} passed; 0 failed; 0 ignored;" not in said:
        sys.exit(f"Not all {asked_for} tests of AVX-512 IFMA passed on the emulated processor: see {FOLDER}")
    print(f"All {asked_for} tests passed over AVX-512 IFMA, after {time.monotonic() - start:.0f} s of emulation.")


if __name__ == "__main__":
    main()
