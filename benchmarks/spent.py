"""CPU seconds and memory of this process and of those that it forked and has waited for."""

import os
import resource


def cpu_seconds() -> float:
    """CPU seconds until now, user and system."""
    return sum(os.times()[:4])


def peak_gb() -> float:
    """Peak of the largest of them, GB; pages that forked processes share count in each."""
    whose = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return max(resource.getrusage(who).ru_maxrss for who in whose) / 1e6
