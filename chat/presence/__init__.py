"""Presence: which people are in which room, on all replicas, and who is typing.

Each replica sends signals about its own people to the others. Once per heartbeat it sends a full
list (a *snapshot*); between snapshots it sends changes. There is no consensus, no acknowledgement
and no storage. The next snapshot repairs a lost signal. A replica that sends nothing for three
heartbeats is considered dead, and its people are removed. So the view of every replica is correct
within three heartbeats of the last lost signal.

Within a room, a name belongs to one person. Two replicas may accept the same name at the same time,
because they do not ask each other. When they receive each other's signals, both see who had the
name first; the other person loses it.
"""

from chat.presence.presence import Presence

__all__ = ["Presence"]
