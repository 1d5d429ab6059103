"""Where stages leave what they make; dvc.yaml names the same places, and a test compares them."""

PREPARED = "data/prepared"
MODEL = "models/current"
VALIDATION = "reports/validation"
EVALUATION = "reports/evaluation"
BUNDLE = "bundle"
LOCK = "requirements.lock"
RELEASE = "release.json"
