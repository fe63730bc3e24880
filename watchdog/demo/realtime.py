"""What a measuring process sets up for itself.

On a busy two-core machine a prober that waits for its turn would report its own delay as an outage. So probers,
samplers and the responder run with the lowest real-time priority where the kernel allows it, and end with their lab.
"""

from __future__ import annotations

import ctypes
import os
import signal

PR_SET_PDEATHSIG = 1


def measure_in_real_time() -> None:
    """Ask for real-time scheduling (a refusal is accepted) and die with the parent (prctl(2))."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    try:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    except OSError:
        pass  # no privilege: the prober's own gap is reported beside every result
