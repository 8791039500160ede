"""Bounds of the names of rooms and users, texts and cids.

The protocol refuses values out of bounds, and readers skip such records as foreign. Both use these
bounds: otherwise a message that only one of them accepts would be lost silently.
"""

from __future__ import annotations

ROOM_LENGTH = 64
# The whole name of a room, as a regular expression.
ROOM = rf"[A-Za-z0-9._-]{{1,{ROOM_LENGTH}}}"
USER_GRAPHEMES = 32
# No name that people can tell apart needs more; it bounds what stacked accents can do.
USER_BYTES = 256
CID_LENGTH = 64
# Who wrote a record, as a regular expression: 128 bits.
AUTHOR = r"[0-9a-f]{32}"
# The most that CHAT_TEXT_BYTES may be.
TEXT_BYTES = 262_144
