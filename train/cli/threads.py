"""How many threads a command uses, and that idle ones wait without spinning."""

import math
import os
from collections.abc import MutableMapping
from pathlib import Path

import psutil


CGROUP = Path("/sys/fs/cgroup")


def settle_threads(environment: MutableMapping[str, str] = os.environ) -> None:
    """Sets the wait policy and the number of OpenMP threads, unless the user has; torch reads them when imported.

    By default idle OpenMP threads spin for a while. On cores that two programs share, each then keeps the other from
    working: see `benchmarks/threads.md`.
    """
    environment.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    environment.setdefault("OMP_NUM_THREADS", str(available_cores()))


def available_cores(cgroup: Path = CGROUP) -> int:
    """Cores that this process may use: physical ones, within its affinity and the quota of its control group."""
    cores = psutil.cpu_count(logical=False) or os.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        cores = min(cores, len(os.sched_getaffinity(0)))
    quota = cpu_quota(cgroup)
    return cores if quota is None else max(1, min(cores, math.ceil(quota)))


def cpu_quota(cgroup: Path = CGROUP) -> float | None:
    """Cores that a control group grants, of version 2 or 1; None where it sets no limit."""
    try:
        if (cgroup / "cpu.max").exists():
            quota, period = (cgroup / "cpu.max").read_text(encoding="ascii").split()
        else:
            quota = (cgroup / "cpu" / "cpu.cfs_quota_us").read_text(encoding="ascii")
            period = (cgroup / "cpu" / "cpu.cfs_period_us").read_text(encoding="ascii")
        cores = int(quota) / int(period)
    except (OSError, ValueError):  # no control groups, or "max"
        return None
    return cores if cores > 0 else None
