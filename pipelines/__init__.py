"""ZenML pipelines, which only connect steps, and the paths of their outputs; a test compares these with dvc.yaml."""

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
    """Return the path of a stage's code list."""
    return f"{CODE}/{stage}.txt"
