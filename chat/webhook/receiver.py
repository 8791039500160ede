"""One receiver: POSTs an event to its URL, once, and says what came of it."""

from __future__ import annotations

import email.utils
import time
from datetime import UTC, datetime
from typing import NamedTuple

from tornado.httpclient import HTTPRequest, HTTPResponse
from tornado.simple_httpclient import SimpleAsyncHTTPClient

from chat.webhook.events import Delivery
from chat.webhook.signature import Secrets

# For a whole request, from looking up the name to the end of the answer. The specification
# recommends 15 to 30; the drain waits for it.
REQUEST_SECONDS = 15.0
USER_AGENT = "baremetal-chat-webhook/1"
GONE = 410


class Answer(NamedTuple):
    """`words`: what happened, for the log; without the URL, which may be a secret.
    `retry_after`: in how many seconds the receiver wants to be asked again; 0: it did not say.
    """

    taken: bool
    gone: bool
    words: str
    retry_after: float = 0.0


class Receiver:
    def __init__(self, url: str, secrets: Secrets) -> None:
        self._url = url
        self._secrets = secrets
        # One of its own: the requests of one client wait for each other.
        self._client = SimpleAsyncHTTPClient(force_instance=True)

    async def post(self, delivery: Delivery) -> Answer:
        """Any answer is one, and none is one as well."""
        body, now = delivery.body.encode(), int(time.time())
        request = HTTPRequest(
            self._url,
            method="POST",
            headers={
                "Content-Type": "application/json",
                "webhook-id": delivery.id,
                "webhook-timestamp": str(now),
                "webhook-signature": self._secrets.sign(delivery.id, now, body),
            },
            body=body,
            user_agent=USER_AGENT,
            # What is sent is for one address, and no other.
            follow_redirects=False,
            connect_timeout=REQUEST_SECONDS,
            request_timeout=REQUEST_SECONDS,
            decompress_response=False,
            # The answer's body does not matter, however long it is.
            streaming_callback=lambda _: None,
        )
        try:
            response = await self._client.fetch(request, raise_error=False)
        except Exception as error:  # noqa: BLE001 - whatever a foreign server does
            return Answer(False, False, str(error) or type(error).__name__)
        code = response.code
        words = f"it answers {code}"
        if 300 <= code < 400:
            words += "; redirects are not followed: set url to where it leads"
        taken, gone = 200 <= code < 300, code == GONE
        again = 0.0 if taken or gone else _retry_after(response)
        return Answer(taken, gone, words, again)

    def close(self) -> None:
        self._client.close()


def _retry_after(response: HTTPResponse) -> float:
    """RFC 9110, 10.2.3: seconds or a date. 0 if there is none, or it cannot be understood."""
    value = response.headers.get("Retry-After", "")
    if value.isdecimal() and value.isascii():
        return float(value[:9])
    try:
        date = email.utils.parsedate_to_datetime(value)
        if date.tzinfo is None:
            date = date.replace(tzinfo=UTC)
        return max(0.0, (date - datetime.now(UTC)).total_seconds())
    except Exception:  # noqa: BLE001 - whatever a foreign server sends
        return 0.0
