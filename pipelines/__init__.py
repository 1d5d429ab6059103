"""Pipelines: wiring only, and where they leave what they make; dvc.yaml names the same places, a test compares them."""

PREPARED = "data/prepared"
MODEL = "models/current"
VALIDATION = "reports/validation"
EVALUATION = "reports/evaluation"
BUNDLE = "bundle"
BUNDLES = "bundles"
LOCK = "requirements.lock"
RELEASES = "releases.json"
CHAMPIONS = "champions"
CODE = "reports/code"


def code_of(stage: str) -> str:
    """Return where the list of a stage's code lies."""
    return f"{CODE}/{stage}.txt"
