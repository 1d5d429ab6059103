"""Generate text with a language model that was adapted to a target corpus."""
