"""The configuration that a benchmark measures, composed in memory."""

from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


def compose(*overrides: str) -> dict[str, Any]:
    """Compose conf/ with some overrides."""
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from omegaconf import OmegaConf

    with initialize_config_dir(str(ROOT / "conf"), version_base=None):
        found = OmegaConf.to_container(hydra_compose("config", overrides=list(overrides)), resolve=True)
    assert isinstance(found, dict)
    return {str(k): v for k, v in found.items()}
