"""A client of the chat, as a library or a program. docs/bots.md starts with a bot of ten lines."""

from chat.client.connection import Chat, connect
from chat.client.device import SignIn
from chat.client.room import Away, Back, Deleted, DisconnectedError, Edited, Gap, Page, Room
from chat.protocol import ErrorCode, IsTyping, Message, Presence, RefusedError

__all__ = [
    "Away",
    "Back",
    "Chat",
    "Deleted",
    "DisconnectedError",
    "Edited",
    "ErrorCode",
    "Gap",
    "IsTyping",
    "Message",
    "Page",
    "Presence",
    "RefusedError",
    "Room",
    "SignIn",
    "connect",
]
