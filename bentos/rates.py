"""How often one client may call, and how often an address may fail to identify itself."""

import time

from limits import RateLimitItem, parse
from limits.storage import storage_from_string
from limits.strategies import SlidingWindowCounterRateLimiter

from bentos.problems import ProblemError
from bentos.settings import RateSettings
from hallmark.errors import ConfigError


class Rates:
    """Counts rows of clients and failures of addresses.

    Args:
        settings: bounds and where they are counted.

    Raises:
        ConfigError: a bound or the storage cannot be read.
    """

    def __init__(self, settings: RateSettings) -> None:
        self.rows, self.failures = _rate("ROWS", settings.rows), _rate("FAILURES", settings.failures)
        try:
            self._limiter = SlidingWindowCounterRateLimiter(storage_from_string(settings.storage))
        except Exception as error:  # it may quote the address, which may hold a password
            raise ConfigError(
                f"HALLMARK_RATE__STORAGE cannot be used ({type(error).__name__}): write memory://, or redis://HOST, "
                "which needs the package redis"
            ) from None

    def count_rows(self, client_id: str, rows: int) -> None:
        """Count rows of a client.

        Raises:
            ProblemError: 429, with the seconds after which the client may call again.
        """
        if not self._limiter.hit(self.rows, "rows", client_id, cost=rows):
            raise self._too_many(self.rows, "rows", client_id)

    def count_failure(self, address: str) -> None:
        """Count a failed identification."""
        self._limiter.hit(self.failures, "failures", address)

    def check_failures(self, address: str) -> None:
        """Refuse an address that has failed too often.

        Raises:
            ProblemError: 429.
        """
        if not self._limiter.test(self.failures, "failures", address):
            raise self._too_many(self.failures, "failures", address)

    def _too_many(self, item: RateLimitItem, *who: str) -> ProblemError:
        reset = self._limiter.get_window_stats(item, *who).reset_time
        seconds = max(1, round(reset - time.time()))
        detail = f"More than {item.amount} {who[0]} within {item.get_expiry()} s: try again in {seconds} s."
        return ProblemError(429, "too_many_requests", detail, headers={"retry-after": str(seconds)})


def _rate(name: str, text: str) -> RateLimitItem:
    try:
        return parse(text)
    except ValueError:
        raise ConfigError(f"HALLMARK_RATE__{name}={text!r} is no rate: write it as 6000/minute") from None
