"""The hub: all rooms of this replica, fed by the relay in log order.

It puts members into rooms, appends their messages to the log, and shows them what the log delivers.
The window keeps the recent part of the log, `Acks` the senders that wait, `History` reads older
messages, and `Announcer` broadcasts presence. The hub knows neither bytes on a wire nor Kafka.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Sequence, Set

from msgspec import UNSET, Raw

from chat.acks import Acks
from chat.announcer import Announcer
from chat.archive import Page
from chat.history import History
from chat.limits import Shares
from chat.metrics import Metrics
from chat.positions import Positions
from chat.presence import Presence
from chat.protocol import (
    Ack,
    CloseCode,
    Error,
    ErrorCode,
    Joined,
    Position,
    RefusedError,
    no_message,
)
from chat.relay.base import Batch, Record, Relay, Revision
from chat.room import Member, Outlets, Room, StoredMessage, frame_of
from chat.slow import Slow
from chat.window import Window


class Hub:
    """`history`, `recent` and `page` count messages of a room, `page_bytes` their bytes; `window`
    and `scan` count offsets of a partition; `places` how many clients may be here, in two rooms,
    one counts twice, and `places_elsewhere` how many on other replicas are known; `pending_bytes`
    is what messages may take that wait for the log. `revisions`: whether people may delete and edit
    messages; those in the log count in any case. `slow`: where people wait between messages.
    """

    def __init__(
        self,
        relay: Relay,
        outlets: Outlets,
        metrics: Metrics,
        *,
        history: int,
        recent: int,
        window: int,
        window_bytes: int = 64 << 20,
        page: int,
        page_bytes: int,
        scan: int,
        position_seconds: float,
        heartbeat: float,
        members_shown: int,
        typing_seconds: float,
        name_hold: float,
        places: int = 100_000,
        places_elsewhere: int = 100_000,
        pending_bytes: int = 16 << 20,
        revisions: bool = False,
        slow: Slow | None = None,
    ) -> None:
        self._relay = relay
        self._outlets = outlets
        self._metrics = metrics
        self._history_size = history
        self._recent = recent
        self._window_size = window
        self._window_bytes = window_bytes
        self._page = page
        self._page_bytes = page_bytes
        self._scan = scan
        self.places = Shares(places)
        self.revisions = revisions
        self._slow = slow
        self._open("", [])
        self._positions = Positions(lambda: self._window, position_seconds)
        self._acks = Acks(relay, metrics, most_bytes=pending_bytes)
        # The rooms of the batches at hand, and the acks for those whose messages are kept.
        self._posted: dict[Room, list[tuple[Member, bytes]]] = {}
        self.presence = Presence(
            heartbeat=heartbeat,
            shown=members_shown,
            typing=typing_seconds,
            hold=name_hold,
            elsewhere=places_elsewhere,
        )
        self._announcer = Announcer(
            relay,
            self.presence,
            room=lambda name: self._window.rooms.get(name),
            leave=self.leave,
            typing_seconds=typing_seconds,
        )
        # Done, with the error, if the hub does not work any more.
        self.failed: asyncio.Future[None]
        self._tellers: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        self.failed = asyncio.get_running_loop().create_future()
        await self._relay.start(self)
        self._tellers = [
            asyncio.create_task(self._positions.run()),
            asyncio.create_task(self._announcer.run()),
            asyncio.create_task(self._acks.run()),
        ]
        for teller in self._tellers:
            teller.add_done_callback(self.ended)

    @property
    def rooms(self) -> int:
        """How many have members or history."""
        return len(self._window.rooms)

    def ended(self, task: asyncio.Task[None]) -> None:
        """A task that works for as long as the replica does has ended."""
        if not task.cancelled() and not self.failed.done():
            self.failed.set_exception(task.exception() or RuntimeError("a task ended"))

    async def stop(self, seconds: float) -> None:
        """Stop the relay, which has so many seconds to get everything into the log."""
        for teller in self._tellers:
            teller.cancel()
        # Whether one had failed before, `failed` has told.
        await asyncio.gather(*self._tellers, return_exceptions=True)
        self._announcer.farewell()
        await self._relay.stop(seconds)

    # What clients ask for.

    async def join(self, member: Member, name: str, since: str | None) -> str:
        """Put `member`, who may read it, into the room and push `joined`: missed messages, or the
        last ones. Returns the room's name, one string for all its members. Raises `RefusedError`.
        """
        position = left = Position.parse(since) if since is not None else None
        older = None
        edited: dict[int, StoredMessage | None] = {}
        if position is not None:
            await self._window.reach(position)
            self._require_history()
            history = self._history
            address = member.address
            if await history.holds(position, address) and await history.learn(
                name, position, address
            ):
                edited = await history.edited(name, position, address)
                older = await history.missed(name, position, address)
            else:
                position = None
            if history is not self._history:
                position = None
        # Do not await from here on: messages that are not in `joined` arrive as `message` frames.
        # Another token may have come meanwhile, of somebody who may do less.
        member.rights.check_read(name)
        self._require_history()
        # Its name is one string for all that is kept of its members.
        if (known := self._window.rooms.get(name)) is not None:
            name = known.name
        if not self._is_in(member, name):
            self._require_place(member.address)
            self.presence.enter(name, member.person)
            self.places.take(member.address)
        room = self._window.room(name)
        partition = self._window.partition_of(name)
        missed = None
        if (
            position is not None
            and (position.epoch, position.partition) == (room.epoch, room.partition)
            and position.offset <= partition.position
        ):
            since_then = older.position.offset if older else position.offset
            missed = room.missed(since_then, partition.floor)
            if older and missed is not None:
                missed = older.messages + missed
            if missed is not None and not self._fits(missed):
                missed = None
        revised = self._history.revised(room, left, edited)
        if not revised.whole:
            missed = None
        if since is not None:
            self._metrics.resumes.labels(str(missed is not None).lower()).inc()
        messages = missed
        if messages is None:
            messages = room.recent(self._recent, self._page_bytes)
        if not room.members:
            room.told = partition.position
        room.members[member] = member.connection
        partition.occupied.add(room)
        joined = Joined(
            name,
            self._window.position(room),
            missed is not None,
            [Raw(message.payload) for message in messages],
            more=missed is None and room.has_before(messages, partition.floor),
            read_only=not member.rights.may_write(name),
            moderator=member.rights.may_moderate(name) or UNSET,
            until=member.rights.sanctioned_until(name) or UNSET,
            deleted=revised.deleted or UNSET,
            edited=[Raw(message.payload) for message in revised.edited] or UNSET,
        )
        member.connection.push(frame_of(joined))
        self._announcer.welcome(member, name)
        return room.name

    def leave(self, member: Member, name: str) -> None:
        room = self._window.rooms.get(name)
        if room is None or member not in room.members:
            return
        del room.members[member]
        self.places.give_back(member.address)
        self.presence.exit(name, member.person)
        if not room.members:
            self._window.partitions[room.partition].occupied.discard(room)
            self._window.drop_if_idle(room)

    def review(self, name: str, authors: Set[str]) -> None:
        """What these people may do in the room may have changed."""
        room = self._window.rooms.get(name)
        # A copy, because those who may not read it leave.
        for member in tuple(room.members) if room is not None else ():
            if member.person.author in authors:
                member.review(name)

    def send(self, sender: Member, name: str, text: str, cid: str) -> None:
        """Append a message; `sender`, who need not be in the room, is pushed an `ack` once the log
        delivers it, or an error. Raises `RefusedError`.
        """
        record = Record(name, sender.person.user, text, cid, sender.person.author)
        if self._repeats(sender, record):
            return
        # Only new messages are checked from here on. A refused repeat would mean that the log does
        # not have the message.
        sender.rights.check_write(name)
        if not self._is_in(sender, name):
            self.presence.check(name, sender.person)
        slow = self._slow
        if slow is not None and sender.rights.may_moderate(name):
            slow = None
        if slow is not None:
            slow.check(name, record.author, cid)
        self._acks.append(sender, record)
        if slow is not None:
            slow.sent(name, record.author, cid)

    def tell(self, sender: Member, name: str, text: str, cid: str) -> None:
        """The same for the chat itself: nobody's rights or names count."""
        record = Record(name, sender.person.user, text, cid, sender.person.author)
        if not self._repeats(sender, record):
            self._acks.append(sender, record)

    def _repeats(self, sender: Member, record: Record) -> bool:
        """Whether the log has the message, or is being given it. Then `sender` is answered as for
        the first. Raises `RefusedError`.
        """
        self._require_history()
        ack = self._window.ack(record)
        if ack is not None:
            sender.connection.push(frame_of(ack))
            return True
        if self._acks.has(record):
            self._acks.append(sender, record)
            return True
        return False

    async def revise(
        self,
        member: Member,
        name: str,
        of: str,
        text: str,
        cid: str,
        witness: Member | None = None,
    ) -> StoredMessage | None:
        """Append that a message (`of` is its id) is deleted, or has this text now; `member` is
        pushed an `ack` once the log delivers that, or an error. Returns the message if it is
        somebody else's, and was not deleted before. Then `witness` is pushed the same.

        Raises `RefusedError`, in the same way for a message that is not there and for one of
        somebody else.
        """
        self._require_history()
        position = self._window.place(name, of)
        history, window = self._history, self._window
        message = await history.find(name, position, member.address)
        if window.replaced or message is None:
            raise no_message()
        # Another token may have come meanwhile, or its end.
        member.rights.check_read(name)
        if not self._is_in(member, name):
            raise no_message()
        person = member.person
        mine = message.record.author == person.author
        if text:
            may = mine and member.rights.may_write(name)
        else:
            # Who may not write any more still takes back what they wrote.
            may = mine or member.rights.may_moderate(name)
        if not may:
            raise no_message()
        revision = Revision(
            name, person.user, text, cid, person.author, message.offset, message.time, not mine
        )
        revised = window.revised(name, message)
        if revised is not None and revised.deleted:
            if text:
                raise no_message()
            member.connection.push(frame_of(Ack(cid, of)))
            return None
        self._acks.append(member, revision, None if mine else witness)
        return None if mine else message

    async def before(self, name: str, before: str | None, limit: int | None, address: str) -> Page:
        """The messages before a position, or the last ones; raises `RefusedError`."""
        self._require_history()
        return await self._history.before(name, before, limit, address)

    async def after(self, name: str, after: str | None, limit: int | None, address: str) -> Page:
        """The messages after a position, or the oldest ones; raises `RefusedError`."""
        self._require_history()
        return await self._history.after(name, after, limit, address)

    def positions(self, names: Iterable[str]) -> dict[str, str]:
        """How far these rooms are shown to their members. (What several have to say in one turn is
        pushed together, so nobody is between two of them.)
        """
        return {name: self._window.position(self._window.rooms[name]) for name in names}

    def typing(self, member: Member, name: str) -> None:
        """Tell the others in the room that `member` is typing."""
        self._announcer.typing(member, name)

    def _fits(self, messages: Sequence[StoredMessage]) -> bool:
        """Whether they may be in one answer."""
        return (
            len(messages) <= self._history_size
            and sum(len(message.payload) for message in messages) <= self._page_bytes
        )

    def _is_in(self, member: Member, name: str) -> bool:
        room = self._window.rooms.get(name)
        return room is not None and member in room.members

    def _require_place(self, address: str) -> None:
        if self.places.exhausted:
            who = "Clients here"
        elif self.places.has_enough(address):
            who = "Clients of your address"
        else:
            return
        raise RefusedError(
            ErrorCode.UNAVAILABLE,
            f"{who} are in as many rooms as they may be: leave one, or try again later.",
        )

    def _require_history(self) -> None:
        if not self._relay.caught_up:
            raise RefusedError(
                ErrorCode.UNAVAILABLE,
                "This replica has not read the messages yet: try again in a moment.",
            )

    # What the relay tells.

    def reset(self, epoch: str, positions: Sequence[int]) -> None:
        replaced = self._window
        self._open(epoch, positions)
        self.places = Shares(self.places.most)
        self._acks.refuse_all("The log was replaced: try again.")
        replaced.replace()
        self.presence.clear()
        # Their rooms are gone. When they join again, `recovered` tells what is left.
        for member in {member for room in replaced.rooms.values() for member in room.members}:
            member.close(CloseCode.RESTART, "the log was replaced; retry_after=1")

    def deliver(self, batches: Sequence[Batch]) -> None:
        now = time.monotonic()
        records = messages = revisions = deliveries = 0
        for batch in batches:
            partition = self._window.partitions[batch.partition]
            self._window.know(partition, batch.times)
            for entry in batch.entries:
                if isinstance(entry.record, Revision):
                    room, new = self._window.revise(partition, entry), False
                    revisions += 1
                else:
                    room, new = self._window.take(partition, entry)
                    if new and self._slow is not None:
                        record = entry.record
                        self._slow.sent(record.room, record.author, record.cid, entry.ts / 1000)
                messages += new
                if room.members:
                    self._posted.setdefault(room, [])
                    deliveries += len(room.members) * new
                if (pending := self._acks.delivered(entry.record, now)) is not None:
                    answer = frame_of(self._answer(pending.record))
                    answers = self._posted.setdefault(room, [])
                    answers.extend((sender, answer) for sender in pending.senders)
            records += len(batch.entries)
            if partition.position != batch.position:
                self._window.advance(partition, batch.position)
        self._metrics.messages.value += messages
        self._metrics.repeats.value += records - messages - revisions
        self._metrics.revisions.value += revisions
        self._metrics.deliveries.value += deliveries
        self._outlets.cork()
        try:
            self._show()
        finally:
            self._outlets.uncork()
        for batch in batches:
            self._window.release(self._window.partitions[batch.partition])

    def _answer(self, record: Record) -> Ack | Error:
        """What who sent this is told, now that the log has it, or another text in its place."""
        if isinstance(record, Revision):
            return Ack(record.cid, self._window.id_of(record))
        try:
            ack = self._window.ack(record)
        except RefusedError as refused:
            self._metrics.refusals.labels(refused.code).inc()
            return Error(refused.code, refused.message, record.cid, record.room)
        assert ack is not None, "the window knows what it was just told"
        return ack

    def signalled(self, payloads: Sequence[bytes]) -> None:
        self._announcer.signalled(payloads)

    def _open(self, epoch: str, positions: Sequence[int]) -> None:
        self._window = Window(
            epoch,
            positions,
            size=self._window_size,
            history=self._history_size,
            memory=self._window_bytes,
        )
        self._history = History(
            self._relay,
            self._window,
            size=self._window_size,
            history=self._history_size,
            page=self._page,
            page_bytes=self._page_bytes,
            scan=self._scan,
        )

    def _show(self) -> None:
        """Show what was taken to the members of all rooms, and tell senders that it is kept."""
        alone = len(self._posted) == 1
        for room, acks in self._posted.items():
            # A sender gets its message and its ack in one write.
            for sender, _ in acks:
                sender.connection.hold()
            room.show(alone=alone)
            for sender, ack in acks:
                sender.connection.push(ack)
        self._posted.clear()
