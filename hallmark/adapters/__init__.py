"""Per-subject LoRA adapters: many in one forward pass, their files, joint training, and a cache of them."""
