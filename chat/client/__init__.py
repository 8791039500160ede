"""A client of the chat, as a library or a program. docs/bots.md starts with a bot of ten lines."""

from chat.client.connection import Chat, connect
from chat.client.device import SignIn
from chat.client.room import Away, Back, Deleted, DisconnectedError, Edited, Gap, Page, Room
from chat.protocol import (
    Ack,
    DirectRoom,
    ErrorCode,
    Invitation,
    IsTyping,
    MemberList,
    Message,
    Presence,
    RefusedError,
    RoomList,
    SanctionList,
)

__all__ = [
    "Ack",
    "Away",
    "Back",
    "Chat",
    "Deleted",
    "DirectRoom",
    "DisconnectedError",
    "Edited",
    "ErrorCode",
    "Gap",
    "Invitation",
    "IsTyping",
    "MemberList",
    "Message",
    "Page",
    "Presence",
    "RefusedError",
    "Room",
    "RoomList",
    "SanctionList",
    "SignIn",
    "connect",
]
