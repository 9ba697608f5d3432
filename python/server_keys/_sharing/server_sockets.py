"""Which sockets of this process are a server's: bound stream sockets, as Linux tells of them.

This reads and changes nothing. A Python socket over a descriptor would make the socket non-blocking where a default
timeout is set, for all processes that share it; so the C functions are called.
"""

import os
import socket
import sys
from collections.abc import Callable
from typing import NamedTuple

_MOST_BYTES = 256
"""More than what is read takes. A socket's name has up to 128 bytes, what is used of `tcp_info` 144."""
_PORT = slice(2, 4)
"""Where the name of a TCP socket has its port."""
_SEGMENTS = slice(136, 144)
"""Where C's `tcp_info` counts the segments that a socket sent and received, since Linux 4.2."""


class ServerSocket(NamedTuple):
    """A TCP socket with a port or a Unix socket with a name, and no connection. It need not listen yet."""

    inode: int
    maker: int
    """The user who made it."""
    shared_port: str | None
    """Where others of the same user may bind sockets to the same port (SO_REUSEPORT): its name, in hex digits."""


def server_sockets() -> list[ServerSocket]:
    """Return the server's sockets that this process has open, once for each descriptor.

    Raises:
        ImportError: this Python was built without `ctypes`.
        OSError: there is no /proc.
    """
    reader = _SocketReader()
    found = []
    for descriptor in map(int, os.listdir("/proc/self/fd")):
        name = reader.server_name(descriptor)
        if name is None:
            continue
        try:
            status = os.fstat(descriptor)
        except OSError:
            continue  # closed since
        shares = reader.option(descriptor, socket.SOL_SOCKET, socket.SO_REUSEPORT)
        found.append(ServerSocket(status.st_ino, status.st_uid, name.hex() if shares else None))
    return found


def sockets_of(pid: int) -> set[int]:
    """Return the inodes of all sockets that a process has open.

    Raises:
        PermissionError: this process may not look into that one.
        OSError: there is no such process, or no /proc.
    """
    folder = f"/proc/{pid}/fd"
    found = set()
    for descriptor in os.listdir(folder):
        try:
            # Unlike stat, this never waits for a file system.
            target = os.readlink(f"{folder}/{descriptor}")
        except FileNotFoundError:
            continue  # closed since
        if target.startswith("socket:["):
            found.add(int(target[len("socket:[") : -1]))
    return found


class _SocketReader:
    """Asks the system about sockets, with buffers that are made once."""

    def __init__(self) -> None:
        import ctypes

        self._libc = ctypes.PyDLL(None)
        self._value = ctypes.create_string_buffer(_MOST_BYTES)
        self._length = ctypes.c_uint32()
        self._places = self._value, ctypes.byref(self._length)

    def server_name(self, descriptor: int) -> bytes | None:
        """Return the name (`sockaddr`) of a bound stream socket of TCP or Unix; None for all else."""
        name = self._read(self._libc.getsockname, descriptor)
        family = _number(name[:2])
        if family in (socket.AF_INET, socket.AF_INET6):
            is_bound = name[_PORT] != bytes(2)
        else:
            is_bound = family == socket.AF_UNIX and len(name) > 2
        if not is_bound or self.option(descriptor, socket.SOL_SOCKET, socket.SO_TYPE) != socket.SOCK_STREAM:
            return None
        if self.option(descriptor, socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            return name
        if self._read(self._libc.getpeername, descriptor):
            return None
        if family != socket.AF_UNIX:
            # A connection that broke has a name and no peer, as a socket has that does not listen yet.
            facts = self._read(self._libc.getsockopt, descriptor, socket.IPPROTO_TCP, socket.TCP_INFO)
            if _number(facts[_SEGMENTS]):
                return None
        return name

    def option(self, descriptor: int, level: int, option: int) -> int:
        """Return an option of a socket; 0 if it cannot be had."""
        return _number(self._read(self._libc.getsockopt, descriptor, level, option))

    def _read(self, function: Callable[..., int], *arguments: int) -> bytes:
        """Return what a C function writes, or nothing if it fails."""
        self._length.value = _MOST_BYTES
        return self._value.raw[: self._length.value] if function(*arguments, *self._places) == 0 else b""


def _number(value: bytes) -> int:
    return int.from_bytes(value, sys.byteorder)
