"""Bounds of the names of rooms and users, texts and cids.

The protocol refuses values out of bounds, and readers skip such records as foreign. Both use these
bounds: otherwise a message that only one of them accepts would be lost silently.
"""

from __future__ import annotations

ROOM_LENGTH = 64
# The whole name of a room, as a regular expression.
ROOM = rf"[A-Za-z0-9._-]{{1,{ROOM_LENGTH}}}"
# The name of a private room. The chat chooses it; nobody can guess 128 bits.
PRIVATE_ROOM = r"private-[0-9a-f]{32}"
USER_GRAPHEMES = 32
# No distinguishable name needs more. The limit also bounds stacked accents.
USER_BYTES = 256
CID_LENGTH = 64
# The author of a record, as a regular expression: 128 bits.
AUTHOR = r"[0-9a-f]{32}"
# Maximum duration of a sanction: 366 days.
SANCTION_SECONDS = 31_622_400
# Maximum number of members of a private room, and duration of an invitation: 30 days.
PRIVATE_MEMBERS = 200
INVITATION_SECONDS = 2_592_000
# Maximum value of CHAT_TEXT_BYTES.
TEXT_BYTES = 262_144
