"""Nothing in, whether this process may use tile registers out.

Linux lends the state of x86's tile registers to a process that asks for it once; every thread of
the process may then use them (arch_prctl, "Using XSTATE features in user space applications" in the
documentation of Linux).
"""

from __future__ import annotations

import ctypes
import platform
import sys

SYSCALL_ARCH_PRCTL = 158
GET_PERMISSION = 0x1022
REQUEST_PERMISSION = 0x1023
TILE_DATA = 18
"""The number of the tiles' contents among the parts of a thread's state."""


def may_use_tiles() -> bool:
    """Asks for tile registers; False where this process cannot have them. The processor must have
    them besides."""
    if not sys.platform.startswith("linux") or platform.machine().lower() not in _X86:
        return False
    call = ctypes.CDLL(None, use_errno=True).syscall
    call.restype = ctypes.c_long
    arguments = (SYSCALL_ARCH_PRCTL, REQUEST_PERMISSION, TILE_DATA)
    return bool(call(*map(ctypes.c_long, arguments)) == 0)


_X86 = ("x86_64", "amd64")
