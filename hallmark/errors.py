"""Exceptions of the library: each message names the thing, the value, the configuration key and the remedy."""

INTERRUPTED = "interrupted; the next run goes on from the last checkpoint"
"""What a command says that was stopped by Ctrl-C; it ends with exit status 130."""


class HallmarkError(Exception):
    """Whatever Hallmark refuses to do; its text is one line that a stranger can act on."""


class ConfigError(HallmarkError):
    """A configuration value that cannot be built."""


class SourceError(HallmarkError):
    """A data source that cannot be read."""


class DataError(HallmarkError):
    """Rows that break the task's schema or its limits."""


class LeakageError(HallmarkError):
    """A split through which the future or a held-out subject reaches training."""


class GateError(HallmarkError):
    """A gate that did not pass; names the figure, the bound and the reason."""


class BundleError(HallmarkError):
    """A bundle or adapter whose bytes or versions are not what its manifest says."""


class RequestError(HallmarkError):
    """A request that the model must not answer."""


class ProvenanceError(HallmarkError):
    """Results that were not made from the parameters or files that the record would name."""
