"""The log output of the service: one event per line, as text or as JSON.

`extra` adds the client and the room to a line. A client is a number local to this replica, not a
name. What people write is never logged.
"""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime

FIELDS = ("client", "room")


class TextFormatter(logging.Formatter):
    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        about = "".join(f" {name}={value}" for name, value in _about(record).items())
        return super().formatMessage(record) + about


class JsonFormatter(logging.Formatter):
    def __init__(self, replica: str) -> None:
        super().__init__()
        self._replica = replica

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created, UTC)
        line = {
            "time": time.isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "replica": self._replica,
            "message": record.getMessage(),
            **_about(record),
        }
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def configure(level: str, form: str, replica: str) -> None:
    """Log to standard error: lines of at least this level, as `text` or `json`."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter(replica) if form == "json" else TextFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler])
    # Tornado logs each unreadable request in full. Anybody could fill the disk that way, and
    # message texts would get into the log.
    logging.getLogger("tornado.general").setLevel(logging.ERROR)


def _about(record: logging.LogRecord) -> dict[str, object]:
    return {name: value for name in FIELDS if (value := getattr(record, name, None)) is not None}
