"""Build the Bento around the bundle."""

from pathlib import Path

from zenml import log_metadata

from bentos import build
from hallmark.files import FileRef
from steps import references  # noqa: F401, registers FileRef
from steps.carried import step


@step
def build_bento(bundle: FileRef, lock: str) -> str:
    """Build the Bento and return its tag."""
    tag, digest = build.build_bento(Path(bundle.path), Path(lock))
    log_metadata({"bento": tag, "bento_sha256": digest})
    return tag
