"""Who is in which room, on whatever replica, and who of them is typing.

Each replica tells the others of its own people by signals: all of them once a heartbeat (a
*snapshot*), and between two of those what has changed. Nothing is agreed upon, nothing is
confirmed and nothing is kept: a signal that was lost is made good by the next snapshot, and a
replica that was not heard for three heartbeats is taken for dead, its people with it. So every
picture is right within three heartbeats of the last loss, whatever happened.

In a room, a name is one person's. Two replicas may give it away at the same time, for neither asks
the other; once they hear of each other, both know who had it first, and the later one loses it.
"""

from chat.presence.presence import Presence

__all__ = ["Presence"]
