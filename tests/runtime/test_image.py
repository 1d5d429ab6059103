"""The image in which the steps of a stack run: a step trains in it to the bytes of a local run."""

import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from bentos.container import build
from hallmark.errors import ConfigError
from runtime.image import stage
from tests.isolated import IMAGE
from tests.presets import outputs
from tests.stacks import on_stack, trained_again

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def image(image_base: str) -> str:
    """The image of the steps."""
    with tempfile.TemporaryDirectory() as scratch:
        return build(stage(Path(scratch), "cpu"), image_base, "buildah")


def test_clients_of_a_remote_that_are_not_installed_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^(gcsfs|dvc-gs) is not installed: .*the extra of pyproject\.toml"):
        stage(tmp_path, "cpu", extras=("gcs",))


def test_a_step_runs_in_the_image(
    tmp_path: Path, bucket: tuple[str, str], ran: Callable[[str], Path], image: str
) -> None:
    where = trained_again(ran("toy"), tmp_path / "remote")
    pods = on_stack(where, bucket, {IMAGE: f"fit_base={image}"}, "--force", "--single-item", "train")
    assert ["fit_base", "0", "0", "container"] in pods
    assert outputs(where) == outputs(ran("toy"))
