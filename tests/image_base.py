"""A base for images, made of Debian's packages, in a storage of its own: nothing of it stays on the machine."""

import os
import shutil
import subprocess
from collections.abc import Iterator

import pytest

from tests.images import tool

TOOLS = ("buildah", "podman", "runc", "debootstrap")
MISSING = [tool for tool in TOOLS if shutil.which(tool) is None]
PYTHON = "python3-minimal,python3-distutils,libpython3.11-stdlib,ca-certificates,libgomp1"


@pytest.fixture(scope="session")
def image_storage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A storage of images for the tools that this process and its children start.

    Layers share what they have in common where the machine mounts overlays; elsewhere each is a copy of all below it.
    """
    home = tmp_path_factory.mktemp("images")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("BUILDAH_ISOLATION", "chroot")
        patched.setenv("CONTAINERS_STORAGE_CONF", str(home / "storage.conf"))
        for driver in ("overlay", "vfs"):
            root = home / driver
            lines = ("[storage]", f'driver = "{driver}"', f'graphroot = "{root}"', f'runroot = "{root}-run"')
            (home / "storage.conf").write_text("\n".join(lines))
            if mounts():
                break
        yield
        tool("buildah", "rm", "--all")
        tool("buildah", "rmi", "--all", "--force")


def mounts() -> bool:
    """Return whether a container of the storage can be mounted."""
    begun = subprocess.run(["buildah", "from", "scratch"], capture_output=True, text=True, check=False)
    if begun.returncode:
        return False
    name = begun.stdout.strip()
    mounted = subprocess.run(["buildah", "mount", name], capture_output=True, check=False)
    subprocess.run(["buildah", "rm", name], capture_output=True, check=False)
    return mounted.returncode == 0


@pytest.fixture(scope="session")
def image_base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """An image with Python and nothing else, made of Debian's packages: no registry is asked."""
    if MISSING or os.geteuid():
        pytest.skip(f"building an image needs root and {', '.join(MISSING)}")
    request.getfixturevalue("image_storage")
    root = tmp_path_factory.mktemp("base") / "root"
    made = subprocess.run(
        ["debootstrap", "--variant=minbase", f"--include={PYTHON}", "bookworm", str(root)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if made.returncode:
        pytest.skip(f"debootstrap cannot make a base here: {(made.stdout.strip().splitlines() or [''])[-1]}")
    for unused in ("var/cache/apt", "var/lib/apt/lists", "usr/share/doc", "usr/share/locale", "usr/share/man"):
        shutil.rmtree(root / unused)
    (root / "usr/bin/python").symlink_to("python3")
    name = "localhost/hallmark-test-base"
    container = tool("buildah", "from", "scratch")
    tool("buildah", "add", "-q", container, str(root), "/")
    tool("buildah", "commit", "-q", "--timestamp", "0", container, name)
    tool("buildah", "rm", container)
    shutil.rmtree(root)
    return name
