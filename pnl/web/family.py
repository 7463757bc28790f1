"""Several processes for one address: those that were started end with the one that started them."""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def end_with_parent() -> None:
    """Have this process told to stop once its parent is gone, however it went; only Linux has a way to.

    Tornado's parent stops without a word to its children, which would go on behind the same port.
    """
    if sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() == 1:  # it was gone before
        os.kill(os.getpid(), signal.SIGTERM)
