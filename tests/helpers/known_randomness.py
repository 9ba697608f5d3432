"""A library whose getrandom() gives bytes that the test knows, for programs that preload it."""

import shutil
import subprocess
from pathlib import Path

# Random bytes that the test knows, once it says so. The library holds them inverted, so that they are not found there.
KNOWN_RANDOMNESS = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <sys/types.h>

static const volatile unsigned char inverted[32] = {%s};
static volatile int known;

void know_randomness(int whether) { known = whether; }

ssize_t getrandom(void *buffer, size_t length, unsigned int flags) {
    if (known) {
        for (size_t index = 0; index < length; index++)
            ((volatile unsigned char *)buffer)[index] = inverted[index %% 32] ^ 0xff;
        return length;
    }
    ssize_t (*original)(void *, size_t, unsigned int);
    *(void **)&original = dlsym(RTLD_NEXT, "getrandom");
    return original(buffer, length, flags);
}
"""


def known_randomness(folder: Path, drawn: bytes) -> Path:
    """Build a library whose getrandom() gives `drawn` again and again, between two calls of `know_randomness`."""
    compiler = shutil.which("cc")
    assert compiler, "a C compiler is needed, as for building the package"
    source, library = folder / "known_getrandom.c", folder / "known_getrandom.so"
    source.write_text(KNOWN_RANDOMNESS % ",".join(str(byte ^ 0xFF) for byte in drawn))
    subprocess.run([compiler, "-shared", "-fPIC", "-Wall", "-Werror", "-o", library, source, "-ldl"], check=True)
    return library
