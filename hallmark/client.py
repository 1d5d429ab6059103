"""A client of the service: typed rows, retries with jitter, idempotency keys. Needs httpx (extra `repo`).

Example:
    >>> from hallmark.client import Client
    >>> client = Client("http://localhost:3000", key)            # doctest: +SKIP
    >>> [row] = client.predict([{"asked_at": …}])                # doctest: +SKIP
    >>> row.answer["forecast"][11]["median_mg_dl"], row.prediction_id  # doctest: +SKIP
"""

import json
import random
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from hallmark.errors import ConfigError, HallmarkError, RequestError
from hallmark.formats import FORMATS, MEDIA_TYPES

if TYPE_CHECKING:
    import httpx

RETRIED = (408, 429, 500, 502, 503, 504)
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.2, 20.0


class ServiceError(HallmarkError):
    """A call that the service refused.

    Attributes:
        status: HTTP status; 0 if the service could not be reached.
        name: kind of the problem, such as `queue_full`.
        fields: rejected fields and their problems.
    """

    def __init__(self, status: int, name: str, detail: str, fields: Sequence[Mapping[str, str]] = ()) -> None:
        super().__init__(f"{name}: {detail}" + "".join(f" {f['name']}: {f['problem']}." for f in fields))
        self.status, self.name, self.fields = status, name, fields


@dataclass(frozen=True)
class Evidence:
    """Digests of what an answer was computed with; empty where nothing of the kind was."""

    hallmark_sha256: str
    base_sha256: str
    adapter_sha256: str
    history_sha256: str


@dataclass(frozen=True)
class Row:
    """One row of an answer.

    Attributes:
        prediction_id: by which it can be looked up and replayed; empty if there is no answer.
        answer: fields of the task's response.
        evidence: what it was computed with.
        problem: why there is no answer; None if there is one.
    """

    prediction_id: str
    answer: Mapping[str, Any]
    evidence: Evidence | None
    problem: ServiceError | None


@dataclass(frozen=True)
class Job:
    """State of a job, see `Client.job`."""

    id: str
    status: str
    created_at: str
    total: int
    done: int
    problems: int
    detail: str

    @property
    def ended(self) -> bool:
        """Whether it runs no more."""
        return self.status in ("done", "cancelled", "failed")


class Client:
    """Calls a service. One client may be shared by threads.

    Args:
        address: such as `https://forecasts.example`.
        key: API key or token.
        timeout_s: seconds of one attempt.
        attempts: how often a call is tried that found no service, or one that has too much to do.

    Raises:
        ConfigError: the address or the key cannot be sent.
    """

    def __init__(self, address: str, key: str, timeout_s: float = 60.0, attempts: int = 5) -> None:
        import httpx

        if not address.startswith(("http://", "https://")):
            raise ConfigError(f"address={address!r} must begin with http:// or https://, such as http://localhost:3000")
        if not key or not key.isascii() or not key.isprintable():
            raise ConfigError("key must be an API key or a token: printable ASCII characters")
        headers = {"authorization": f"Bearer {key}"}
        self._http = httpx.Client(base_url=address, headers=headers, timeout=timeout_s)
        self.attempts = attempts
        self._random = random.Random()

    def __enter__(self) -> "Client":
        """Return the client, which is closed at the end of the block."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the connections."""
        self._http.close()

    def predict(self, rows: Sequence[Mapping[str, Any]], idempotency_key: str | None = None) -> list[Row]:
        """Ask for answers, one per row and in order.

        Args:
            rows: requests of the task; `datetime` values are written as ISO 8601.
            idempotency_key: of the call; a new one by default. The same key gives the recorded answers again, so that
                a retry records nothing twice.

        Raises:
            ServiceError: the call as a whole was refused, or the service could not be reached.
            TypeError: `rows` is one request, not a list of them.
        """
        if isinstance(rows, Mapping):
            raise TypeError("predict takes a list of requests: write [request]")
        headers = {"idempotency-key": idempotency_key or str(uuid.uuid4())}
        response = self._call("POST", "/v1/predict", headers=headers, content=_json({"rows": list(rows)}))
        return [_row(row) for row in response.json()["rows"]]

    def prediction(self, prediction_id: str) -> Mapping[str, Any]:
        """Return what was answered, from which inputs, by which version, and what really happened."""
        return dict(self._call("GET", f"/v1/predictions/{quote(prediction_id, safe='')}").json())

    def outcome(self, prediction_id: str, value: float | str, observed_at: datetime, horizon: str = "") -> bool:
        """Tell what really happened after a prediction; returns whether the service knows the prediction.

        The first outcome of a prediction and horizon counts.

        Args:
            prediction_id: of the prediction.
            value: a number in the task's unit, or a label.
            observed_at: when: of a forecast, the subject's local time; a time without a zone is this machine's.
            horizon: of a forecast, in minutes.

        Raises:
            ServiceError: this cannot be an outcome of the prediction, or the call failed.
        """
        happened = {
            "prediction_id": prediction_id,
            "value": value,
            "observed_at": observed_at.astimezone(),
            "horizon": horizon,
        }
        response = self._call("POST", "/v1/outcomes", content=_json({"outcomes": [happened]}))
        return not response.json()["unknown"]

    def feedback(self, prediction_id: str, *, helpful: bool) -> bool:
        """Tell whether an answer has helped; returns whether it was recorded: the first feedback to an answer counts.

        Raises:
            ServiceError: no prediction of this caller has this id (404), or the call failed.
        """
        said = {"prediction_id": prediction_id, "helpful": helpful}
        return bool(self._call("POST", "/v1/feedback", content=_json(said)).json()["recorded"])

    def models(self) -> list[Mapping[str, Any]]:
        """Describe the models that answer."""
        return list(self._call("GET", "/v1/models").json())

    def stream(self, request: Mapping[str, Any]) -> Iterator[str]:
        """Yield a generated text piece by piece.

        Raises:
            ServiceError: the request was refused, or generating failed.
        """
        with self._open("POST", "/v1/stream", content=_json(request), headers=_TYPE) as response:
            for name, data in _events(response.iter_lines()):
                if name == "piece":
                    yield data["text"]
                elif name == "problem":
                    raise ServiceError(data["status"], _name(data), data["detail"])

    def job(self, file: Path | str) -> Job:
        """Send a file of requests, CSV, Parquet or NDJSON, that is answered in the background.

        Raises:
            RequestError: the file's ending names none of these formats.
            ServiceError: the file was refused, or the service could not be reached.
        """
        path = Path(file)
        if path.suffix.lower() not in FORMATS:
            raise RequestError(f"{path}: name a {', '.join(FORMATS)} file")
        headers = {"content-type": MEDIA_TYPES[FORMATS[path.suffix.lower()]]}
        with path.open("rb") as body:  # it is not sent again by itself: each attempt would be a job of its own
            return Job(**self._call("POST", "/v1/jobs", attempts=1, headers=headers, content=body).json())

    def job_state(self, job_id: str) -> Job:
        """Return the state of a job."""
        return Job(**self._call("GET", f"/v1/jobs/{quote(job_id, safe='')}").json())

    def job_rows(self, job_id: str) -> Iterator[Row]:
        """Yield the answers of a job, without holding them in memory."""
        with self._open("GET", f"/v1/jobs/{quote(job_id, safe='')}/result") as response:
            for line in response.iter_lines():
                yield _row(json.loads(line))

    def cancel(self, job_id: str) -> Job:
        """Cancel a job, or delete one that has ended."""
        return Job(**self._call("DELETE", f"/v1/jobs/{quote(job_id, safe='')}").json())

    @contextmanager
    def _open(self, method: str, path: str, **options: Any) -> Iterator["httpx.Response"]:
        """Open a response that is read piece by piece; it is not tried again."""
        import httpx

        try:
            with self._http.stream(method, path, **options) as response:
                if response.status_code != 200:
                    response.read()
                    raise _error(response)
                yield response
        except httpx.HTTPError as error:
            raise self._unreachable(error) from error

    def _unreachable(self, error: Exception) -> ServiceError:
        where = str(self._http.base_url).rstrip("/")
        detail = f"no service answers at {where} ({type(error).__name__}): is it running, and is this its address?"
        return ServiceError(0, "unreachable", detail)

    def _call(self, method: str, path: str, attempts: int | None = None, **options: Any) -> "httpx.Response":
        import httpx

        options["headers"] = {**_TYPE, **options.get("headers", {})}
        attempts = attempts or self.attempts
        for attempt in range(1, attempts + 1):
            failure: ServiceError
            pause = 0.0
            try:
                response = self._http.request(method, path, **options)
            except httpx.HTTPError as error:
                failure = self._unreachable(error)
            else:
                if response.is_success:
                    return response
                failure = _error(response)
                if response.status_code not in RETRIED:
                    raise failure
                pause = float(response.headers.get("retry-after", 0))
            if attempt == attempts:
                raise failure
            longest = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2**attempt)
            time.sleep(max(pause, self._random.uniform(0, longest)))
        raise AssertionError("a loop of at least one attempt has ended")


_TYPE = {"content-type": "application/json"}


def _json(value: Any) -> bytes:
    return json.dumps(value, default=datetime.isoformat).encode()


def _row(row: Mapping[str, Any]) -> Row:
    if row["status"] == "problem":
        problem = row["problem"]
        refused = ServiceError(problem["status"], _name(problem), problem["detail"], problem.get("fields", ()))
        return Row("", {}, None, refused)
    return Row(row["prediction_id"], row["answer"], Evidence(**row["evidence"]), None)


def _name(problem: Mapping[str, Any]) -> str:
    return str(problem["type"]).rpartition(":")[2]


def _error(response: "httpx.Response") -> ServiceError:
    try:
        problem = response.json()
        return ServiceError(response.status_code, _name(problem), problem["detail"], problem.get("fields", ()))
    except (ValueError, KeyError, TypeError):  # a proxy has answered
        return ServiceError(response.status_code, "http_error", response.reason_phrase)


def _events(lines: Iterator[str]) -> Iterator[tuple[str, Any]]:
    """Parse server-sent events."""
    name = ""
    for line in lines:
        if line.startswith("event: "):
            name = line[7:]
        elif line.startswith("data: "):
            yield name, json.loads(line[6:])
