"""Integration of the tools: Hydra's composition, DVC's stages and ZenML's store, registry and dashboard."""
