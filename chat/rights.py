"""Who may read, write and moderate in which rooms, as `CHAT_ROOMS` says.

A rule is for rooms by their names alone, whether or not somebody has ever been in them. So whoever
may not read a room gets the same answer for one that is used and for one that is not, after the
same work.

A pattern is a name, or the beginning of names and a star. Two patterns have no name in common, or
one has all names of the other: the longest one that fits is never in doubt. Case does not count, so
that nobody opens a `Staff` for all beside a `staff` for some.
"""

from __future__ import annotations

import abc
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Annotated
from weakref import WeakValueDictionary

import msgspec
from msgspec import UNSET, UnsetType

from chat import protocol
from chat.bounds import PRIVATE_ROOM, ROOM, ROOM_LENGTH

MOST_RULES = 1000
# Maximum of `slow`: a day.
MOST_SECONDS = 86400
# Rooms whose rule is remembered.
REMEMBERED = 10_000
# For all rooms that no other pattern has.
REST = "*"
_PATTERN = re.compile(rf"{ROOM}|[A-Za-z0-9._-]{{0,{ROOM_LENGTH - 1}}}\*")
_PRIVATE = re.compile(PRIVATE_ROOM, re.IGNORECASE)
_EXAMPLE = '[{"rooms": "staff-*", "read": ["staff"]}, {"rooms": "*"}]'


class Rule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`rooms`: a pattern. `read`, `write`: the groups whose people may; unset: everybody. Who may
    not read may not write either. `moderate`: the groups whose people may delete what others wrote,
    and mute or ban others. `slow`: a person who is in none of these may send one message in so many
    seconds; 0: any number.
    """

    rooms: str
    # Null is refused: in YAML, a list whose entries are all commented out is one.
    read: frozenset[str] | UnsetType = UNSET
    write: frozenset[str] | UnsetType = UNSET
    moderate: frozenset[str] = frozenset()
    slow: Annotated[int, msgspec.Meta(ge=0, le=MOST_SECONDS)] = 0

    @property
    def groups(self) -> frozenset[str]:
        """All that it names."""
        return (self.read or frozenset()) | (self.write or frozenset()) | self.moderate


_decoder = msgspec.json.Decoder(list[Rule])
_groups_decoder = msgspec.json.Decoder(frozenset[str])


def is_private(room: str) -> bool:
    """Whether rooms of such a name have members, who alone may use them. This is so everywhere, and
    whatever the case: what was said in one is not shown where nobody knows members.
    """
    return _PRIVATE.fullmatch(room) is not None


def parse_groups(text: str) -> frozenset[str]:
    """Read a setting that names groups. Raises `ValueError` with the remedy."""
    try:
        groups = _groups_decoder.decode(text)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise ValueError(f'give a list in JSON, such as ["staff"] ({error})') from None
    if "" in groups:
        raise ValueError("a group's name is empty: give one")
    return groups


def parse(text: str) -> tuple[Rule, ...]:
    """Read the setting. Raises `ValueError` with the remedy."""
    try:
        rules = _decoder.decode(text)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise ValueError(f"give a list in JSON, such as {_EXAMPLE} ({error})") from None
    if len(rules) > MOST_RULES:
        raise ValueError(f"give at most {MOST_RULES} rules")
    known: dict[str, str] = {}
    for rule in rules:
        if not _PATTERN.fullmatch(rule.rooms):
            raise ValueError(
                f"{rule.rooms!r}: give the name of a room (1 to {ROOM_LENGTH} of A-Z a-z 0-9 - _ .)"
                " or the beginning of names and a star, such as staff-*"
            )
        if is_private(rule.rooms):
            raise ValueError(f"{rule.rooms!r}: private rooms have members, and no rules")
        other = known.setdefault(rule.rooms.lower(), rule.rooms)
        if other is not rule.rooms:
            raise ValueError(
                f"{other!r} and {rule.rooms!r}: give one rule for these rooms; case does not count"
            )
        if "" in rule.groups:
            raise ValueError(f"{rule.rooms!r}: a group's name is empty: give one")
    if rules and REST not in known:
        raise ValueError(
            'say who may use all other rooms: {"rooms": "*"} everybody, {"rooms": "*", "read": []}'
            " nobody"
        )
    return tuple(rules)


class Rules:
    """All rules. Without any, everybody may do everything."""

    def __init__(
        self, rules: Sequence[Rule] = (), moderators: frozenset[str] = frozenset()
    ) -> None:
        """`moderators`: the groups whose people may ban others from the whole chat."""
        self.moderators = moderators
        patterns = {rule.rooms.lower(): rule for rule in (Rule(REST), *rules)}
        self._named = {name: rule for name, rule in patterns.items() if not name.endswith("*")}
        self._begun = {name[:-1]: rule for name, rule in patterns.items() if name.endswith("*")}
        self._lengths = sorted({len(beginning) for beginning in self._begun}, reverse=True)
        self._groups = moderators.union(*(rule.groups for rule in rules))
        # The longest of all; 0: there is no slow mode.
        self.slowest = max((rule.slow for rule in rules), default=0)
        self._known: WeakValueDictionary[frozenset[str], GroupRights] = WeakValueDictionary()
        # For rooms that somebody is in: each message asks. Whoever asks for another room could tell
        # by the time whether others had asked.
        self.of_joined = lru_cache(REMEMBERED)(self.of)

    def rights(self, groups: frozenset[str]) -> Rights:
        """What people of these groups may do."""
        groups &= self._groups
        rights = self._known.get(groups)
        if rights is None:
            rights = self._known[groups] = GroupRights(self, groups)
        return rights

    def of(self, room: str) -> Rule:
        """The only rule for this room."""
        name = room.lower()
        rule = self._named.get(name)
        if rule is not None:
            return rule
        for length in self._lengths:
            rule = self._begun.get(name[:length])
            if rule is not None:
                return rule
        raise AssertionError("a rule is for the rest")

    def slow(self, room: str) -> int:
        """In how many seconds a person may send one message there; 0: there is no limit."""
        return self.of_joined(room).slow


class Rights(abc.ABC):
    """What somebody may do."""

    __slots__ = ()

    @abc.abstractmethod
    def may_read(self, room: str) -> bool: ...

    @abc.abstractmethod
    def may_write(self, room: str) -> bool:
        """Of a room that they may read, and are in."""

    @abc.abstractmethod
    def may_moderate(self, room: str) -> bool:
        """Of a room that they may read, and are in."""

    @abc.abstractmethod
    def may_ban(self) -> bool:
        """From the whole chat."""

    def banned_until(self) -> int:
        """When they may come back into the chat, in seconds since the epoch; 0: they are not
        banned from all of it.
        """
        return 0

    def check_write(self, room: str) -> None:
        """The same as `may_write`. Raises `RefusedError`."""
        if not self.may_write(room):
            raise protocol.read_only(room)

    def sanctioned_until(self, _room: str) -> int:
        """When what a moderator has taken there comes back, in milliseconds since the epoch; 0:
        nothing was taken.
        """
        return 0

    def check_read(self, name: str) -> str:
        """The name of a room that they may read. Raises `RefusedError`: nothing tells whether there
        is such a room for others.
        """
        if not self.may_read(protocol.check_room(name)):
            raise protocol.no_room()
        return name


class GroupRights(Rights):
    """Of all people of the same groups, as far as rules name them: they share it. Private rooms
    are none of theirs.
    """

    __slots__ = ("__weakref__", "_groups", "_rules")

    def __init__(self, rules: Rules, groups: frozenset[str]) -> None:
        self._rules = rules
        self._groups = groups

    def may_read(self, room: str) -> bool:
        if is_private(room):
            return False
        groups = self._rules.of(room).read
        return groups is UNSET or not self._groups.isdisjoint(groups)

    def may_write(self, room: str) -> bool:
        groups = self._rules.of_joined(room).write
        return groups is UNSET or not self._groups.isdisjoint(groups)

    def may_moderate(self, room: str) -> bool:
        return not self._groups.isdisjoint(self._rules.of_joined(room).moderate)

    def may_ban(self) -> bool:
        return not self._groups.isdisjoint(self._rules.moderators)


# Of everybody, where no rules are.
ALL = Rules().rights(frozenset())
