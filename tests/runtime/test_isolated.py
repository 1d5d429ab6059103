"""Steps that share nothing but a bucket: the outputs of a local run, and a machine that is lost while it trains."""

from collections.abc import Callable
from pathlib import Path

import pytest

from hallmark.learn.cluster import ENGINE
from tests.isolated import KILL
from tests.presets import outputs
from tests.stacks import compose, on_stack, repro, trained_again
from tests.workspace import copy_repository

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(("name", "killed"), [("toy", "fit_base"), ("trades", "")])
def test_a_run_whose_steps_share_only_a_bucket_has_the_outputs_of_a_local_run(
    tmp_path: Path, bucket: tuple[str, str], ran: Callable[[str], Path], name: str, killed: str
) -> None:
    where = copy_repository(tmp_path / "remote")
    compose(where, name)
    pods = on_stack(where, bucket, {KILL: killed})
    assert len(pods) >= 6, "every step ran in a process of its own"
    assert outputs(where) == outputs(ran(name))
    if killed:
        of_killed = [pod[1:] for pod in pods if pod[0] == killed]
        assert of_killed == [["0", "-9", "new"], ["1", "0", "resumed"]], "the second machine went on"


def test_training_and_evaluation_on_a_ray_cluster_have_the_outputs_of_a_local_run(
    tmp_path: Path, ran: Callable[[str], Path]
) -> None:
    where = trained_again(ran("toy"), tmp_path / "ray")
    done = repro(where, "--force", "--single-item", "train", "evaluate", **{ENGINE: "ray"})
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    assert outputs(where) == outputs(ran("toy"))
