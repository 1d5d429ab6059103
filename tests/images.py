"""Tools that build and run images without a daemon; images of steps have no pytest."""

import subprocess

PODMAN_RUN = (
    *("podman", "--runtime", "runc", "--cgroup-manager=cgroupfs", "run", "--rm", "--network", "host"),
    *("--ulimit", "nofile=4096:4096", "--ulimit", "nproc=4096:4096"),
)


def tool(*command: str) -> str:
    """Run a tool; returns what it printed."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()
