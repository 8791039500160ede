"""One webhook: what happens in its room goes to its receiver, in order, one event at a time.

Nothing is queued here. While the receiver takes nothing, the events stay in the room's history, and
the webhook reads on from its position later. So each webhook has a bounded size, and none waits for
another.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
import time

from chat.client import Chat, DisconnectedError, RefusedError, connect
from chat.webhook.config import Webhook
from chat.webhook.events import Delivery, Kind, Missing, delivery_of
from chat.webhook.metrics import Metrics
from chat.webhook.reader import History, Reader, Token
from chat.webhook.receiver import Answer, Receiver
from chat.webhook.state import State, Store

log = logging.getLogger("chat.webhook")

# Between two attempts. It doubles with each one that fails, less up to half of it at random.
RETRY_SECONDS = (1.0, 300.0)
# Between two times that the position is kept though nothing is delivered. The older it is, the more
# of the log is read after a restart.
SAVE_SECONDS = 60.0
# At most so long a receiver may ask to wait (`Retry-After`).
MOST_ASKED_SECONDS = 3600.0
# Between two tries to read a room that cannot be read, less up to half of it at random.
REOPEN_SECONDS = 30.0


class Sender:
    """`key` and `token` are those of `connect`. `give_up_seconds`: an event that a failing receiver
    has not taken for so long is dropped.
    """

    def __init__(
        self,
        webhook: Webhook,
        store: Store,
        receiver: Receiver,
        metrics: Metrics,
        *,
        chat: str,
        user: str,
        key: str,
        token: Token | None,
        give_up_seconds: float,
    ) -> None:
        self._webhook = webhook
        self._store = store
        self._receiver = receiver
        self._metrics = metrics
        self._chat = chat
        self._user = user
        self._key = key
        self._token = token
        self._give_up_seconds = give_up_seconds
        self._state: State = store.load(webhook.room)
        # Attempts that failed since the last one that did not.
        self._failed = 0
        self._saved_at = -math.inf
        self._connection: Chat | None = None
        metrics.watch(webhook.name, self._is_connected, self._waiting_since)
        metrics.gone.labels(webhook.name).set(self._state.gone)

    async def run(self) -> None:
        """Ends when the receiver is gone. Cancelled, it ends with the attempt that is under way."""
        try:
            while not self._state.gone:
                await self._relay()
            log.error(
                "%s: %s wants nothing more (410); to go on where it ended, set `gone` to false"
                " in %s",
                self._webhook.name,
                self._webhook.host,
                self._store.place,
            )
        finally:
            self._receiver.close()

    async def _relay(self) -> None:
        """Deliver what is pending, and then what happens in the room, until that cannot be read, or
        the receiver is gone.
        """
        history = History(self._chat, self._token)
        try:
            await self._deliver()
            if self._state.gone:
                return
            async with connect(self._chat, self._user, key=self._key, token=self._token) as chat:
                await self._read(chat, history)
        except (RefusedError, DisconnectedError, OSError) as error:
            delay = REOPEN_SECONDS * random.uniform(0.5, 1)
            log.warning("%s: %s; again in %.0f s", self._webhook.name, error, delay)
            await asyncio.sleep(delay)
        finally:
            history.close()
            self._connection = None

    async def _read(self, chat: Chat, history: History) -> None:
        webhook, state = self._webhook, self._state
        self._connection = chat
        log.info(
            "%s: reads %s from %s on, for %s",
            webhook.name,
            webhook.room,
            state.position or "now",
            webhook.host,
        )
        async for event, position in Reader(chat, webhook.room, history).read(state.position):
            moved = position != state.position
            state.position = position
            state.pending = delivery_of(event, webhook.room, webhook.events) if event else None
            if state.pending:
                if isinstance(event, Missing):
                    self._miss(event)
                await self._deliver()
            elif (moved or state.gap) and time.monotonic() - self._saved_at >= SAVE_SECONDS:
                if state.gap:
                    # There may be no next event, before which it would be delivered.
                    await self._attempt()
                else:
                    await self._save()
            if state.gone:
                return

    def _miss(self, missing: Missing) -> None:
        self._metrics.gaps.labels(self._webhook.name).inc()
        lost = Kind.CREATED in missing.kinds
        log.log(
            logging.ERROR if lost else logging.WARNING,
            "%s: %s",
            self._webhook.name,
            "the chat's log has lost messages before they were read: the receiver never gets them"
            if lost
            else "it was away for so long that it may have missed edits and deletions",
        )

    # Deliveries.

    async def _deliver(self) -> None:
        """Deliver what is pending, or give it up. Returns then, or when the receiver is gone."""
        state = self._state
        while state.pending and not state.gone:
            if self._is_too_late(state.pending):
                await self._give_up(state.pending)
                return
            answer = await self._attempt()
            if not answer.taken and not answer.gone:
                await asyncio.sleep(self._delay(answer))

    async def _attempt(self) -> Answer:
        """Keep everything that is pending, and try to deliver it. Cancelled, it ends with the
        request that is under way.

        It is kept before each attempt, although only the first one changes it: a process that was
        replaced or cut off learns it here. Its successor may have delivered the event, and its
        deletion.
        """
        await self._save()
        posting = asyncio.create_task(self._post())
        try:
            return await asyncio.shield(posting)
        except asyncio.CancelledError:
            # The receiver may have taken the event.
            await asyncio.wait([posting])
            if failure := posting.exception():
                log.warning("%s: %s", self._webhook.name, failure)
            raise

    async def _post(self) -> Answer:
        """Try to deliver everything that is pending, and keep what the receiver took."""
        state, name = self._state, self._webhook.name
        answer = Answer(True, False, "")
        while answer.taken and (delivery := state.gap or state.pending):
            answer = await self._receiver.post(delivery)
            if answer.taken:
                self._metrics.delivered.labels(name).inc()
                if self._failed:
                    log.info("%s: %s takes events again", name, self._webhook.host)
                self._failed, state.failing_since = 0, 0.0
                if state.gap:
                    state.gap = None
                else:
                    state.pending = None
        if not answer.taken:
            self._failed += 1
            self._metrics.failures.labels(name).inc()
            state.failing_since = state.failing_since or time.time()
        if answer.gone:
            state.gone = True
            self._metrics.gone.labels(name).set(1)
        if answer.taken or answer.gone:
            await self._save()
        return answer

    def _delay(self, answer: Answer) -> float:
        """For how many seconds to wait after a failed attempt."""
        least, most = RETRY_SECONDS
        delay = min(most, least * 2.0 ** min(self._failed - 1, 20)) * random.uniform(0.5, 1)
        delay = max(delay, min(answer.retry_after, MOST_ASKED_SECONDS))
        log.warning(
            "%s: %s: %s; attempt %d failed, again in %.1f s",
            self._webhook.name,
            self._webhook.host,
            answer.words,
            self._failed,
            delay,
        )
        return delay

    def _is_too_late(self, delivery: Delivery) -> bool:
        since = self._state.failing_since
        return since > 0 and time.time() - max(delivery.time, since) > self._give_up_seconds

    async def _give_up(self, delivery: Delivery) -> None:
        state, name = self._state, self._webhook.name
        self._metrics.given_up.labels(name).inc()
        log.error(
            "%s: %s has not taken %s for %g h: the event is given up",
            name,
            self._webhook.host,
            delivery.id,
            self._give_up_seconds / 3600,
        )
        state.gap = state.gap or delivery_of(
            Missing(self._webhook.events), self._webhook.room, self._webhook.events
        )
        state.pending = None
        await self._save()

    async def _save(self) -> None:
        """Raises `OSError` and `StateError`."""
        self._saved_at = time.monotonic()
        await asyncio.to_thread(self._store.save, self._state)

    def _is_connected(self) -> bool:
        return self._connection is not None and self._connection.connected

    def _waiting_since(self) -> float:
        pending = self._state.gap or self._state.pending
        return pending.time if pending else 0.0
