"""Exceptions of the library: each message names the thing, the value, the configuration key and the remedy."""

INTERRUPTED = "interrupted; the next run resumes from the last checkpoint"
"""Message of a command that Ctrl-C stopped; its exit status is 130."""


class HallmarkError(Exception):
    """Base class of all errors of Hallmark; the message is one line that names the remedy."""


class ConfigError(HallmarkError):
    """A configuration value that cannot be built."""


class SourceError(HallmarkError):
    """A data source that cannot be read."""


class DataError(HallmarkError):
    """Rows that violate the task's schema or its limits."""


class LeakageError(HallmarkError):
    """A split that lets future values or a held-out subject into training."""


class GateError(HallmarkError):
    """A gate that did not pass; names the measured value, the bound and the reason."""


class MemoryExhausted(HallmarkError):
    """A training step that does not fit into the memory of its device; says what to set."""


class BundleError(HallmarkError):
    """A bundle or adapter whose bytes or versions are not what its manifest says."""


class RequestError(HallmarkError):
    """A request that cannot be read or that the model must not answer."""


class ProvenanceError(HallmarkError):
    """Results that were made from other parameters or files than their record would name."""


class RecordsError(HallmarkError):
    """The database or the spool of the records cannot be read or written."""


class ReplayError(HallmarkError):
    """A recorded answer that cannot be computed again here; says why."""
