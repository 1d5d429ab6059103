"""Where alarms are told: a file, the log, a webhook, e-mail. An alarm is told again until every sink has taken it."""

import json
import logging
import os
import smtplib
import urllib.request
from email.message import EmailMessage
from pathlib import Path
from typing import Any, Protocol
from urllib.error import URLError

from hallmark.build import Count, Positive, configuration
from hallmark.errors import HallmarkError

log = logging.getLogger("hallmark.watch")


class SinkError(HallmarkError):
    """A sink that has not taken an alarm; it is told again at the next run."""


class Sink(Protocol):
    """Takes alarms, each with an `id` by which a second one of the same can be told."""

    def tell(self, alarm: dict[str, Any]) -> None:
        """Tell an alarm, JSON values.

        Raises:
            SinkError: it was not taken.
        """


@configuration
class LogSink:
    """Writes a line to the log."""

    def tell(self, alarm: dict[str, Any]) -> None:
        """Tell an alarm; see `Sink`."""
        level = {"critical": logging.ERROR, "warning": logging.WARNING}.get(alarm["severity"], logging.INFO)
        log.log(level, "%s", alarm["message"])


@configuration
class FileSink:
    """Appends a line of JSON to a file, once per alarm.

    Attributes:
        path: of the file.
    """

    path: str

    def tell(self, alarm: dict[str, Any]) -> None:
        """Tell an alarm; see `Sink`."""
        path = Path(self.path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("a+", encoding="utf-8") as file:
                file.seek(0)
                lines = file.readlines()
                if any(f'"{alarm["id"]}"' in line for line in lines):
                    return
                torn = "\n" if lines and not lines[-1].endswith("\n") else ""  # a kill has left half a line
                file.write(torn + json.dumps(alarm, ensure_ascii=False) + "\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise SinkError(f"{path} cannot be written ({error.strerror}): set path of the file sink") from None


@configuration
class WebhookSink:
    """Sends an alarm as JSON by POST.

    Attributes:
        url: where to.
        timeout_s: seconds within which it must be taken.
    """

    url: str
    timeout_s: Positive

    def tell(self, alarm: dict[str, Any]) -> None:
        """Tell an alarm; see `Sink`."""
        if not self.url.startswith(("http://", "https://")):
            raise SinkError("the url of the webhook must begin with http:// or https://")
        headers = {"content-type": "application/json", "idempotency-key": alarm["id"]}
        request = urllib.request.Request(self.url, json.dumps(alarm).encode(), headers)
        try:
            with urllib.request.urlopen(request, timeout=self.timeout_s):
                pass
        except (URLError, OSError) as error:
            raise SinkError(f"the webhook has not taken an alarm ({type(error).__name__}): set its url") from None


@configuration
class EmailSink:
    """Sends an alarm by e-mail.

    Attributes:
        host: of the mail server, which must take mail without a password.
        port: of the mail server.
        sender: address.
        recipient: address.
        timeout_s: seconds within which it must be taken.
    """

    host: str
    port: Count
    sender: str
    recipient: str
    timeout_s: Positive

    def tell(self, alarm: dict[str, Any]) -> None:
        """Tell an alarm; see `Sink`."""
        message = EmailMessage()
        message["Subject"] = f"[{alarm['severity']}] {alarm['task']}: {alarm['figure']}"
        message["From"], message["To"], message["Message-ID"] = self.sender, self.recipient, f"<{alarm['id']}@hallmark>"
        message.set_content(alarm["message"])
        try:
            with smtplib.SMTP(self.host, self.port, timeout=self.timeout_s) as server:
                server.send_message(message)
        except (smtplib.SMTPException, OSError) as error:
            where = f"{self.host}:{self.port}"
            raise SinkError(f"the mail server {where} has not taken an alarm ({type(error).__name__})") from None
