"""What learns: inputs, personal context, ridge, trainer, adapters, intervals, search."""
