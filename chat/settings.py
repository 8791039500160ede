"""Parses the environment into one typed, validated `Settings`.

Each setting is declared once: variable, default, bounds and meaning. An invalid value raises
`SettingsError` with one line that names the variable, the value and the remedy.
"""

from __future__ import annotations

import ipaddress
import math
import re
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from chat import rights
from chat.auth import issuers
from chat.bounds import ROOM, TEXT_BYTES, USER_BYTES
from chat.origins import parse_host, parse_origin


class SettingsError(ValueError):
    """A variable has an invalid value; the text names it and the allowed values."""


def _boolean(text: str) -> bool:
    if text.lower() in ("true", "yes", "on", "1"):
        return True
    if text.lower() in ("false", "no", "off", "0"):
        return False
    raise ValueError("say true or false")


def _integer(low: int, high: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not re.fullmatch(r"-?[0-9]{1,18}", text) or not low <= int(text) <= high:
            raise ValueError(f"give a whole number from {low} to {high}")
        return int(text)

    return parse


def _seconds(low: float, high: float) -> Callable[[str], float]:
    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not low <= value <= high:
            raise ValueError(f"give seconds from {low:g} to {high:g}")
        return value

    return parse


def _matching(pattern: str, remedy: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise ValueError(remedy)
        return text

    return parse


def _list_of(pattern: str, remedy: str) -> Callable[[str], tuple[str, ...]]:
    one = _matching(pattern, remedy)

    def parse(text: str) -> tuple[str, ...]:
        return tuple(one(part.strip()) for part in text.split(",") if part.strip())

    return parse


def _origin_list(text: str) -> tuple[str, ...]:
    parts = tuple(part.strip() for part in text.split(",") if part.strip())
    try:
        for part in parts:
            parse_origin(part)
    except ValueError as error:
        raise ValueError(
            f"give origins such as https://chat.example.org, without a path ({error})"
        ) from None
    return parts


def _host_list(text: str) -> tuple[str, ...]:
    parts = tuple(part.strip() for part in text.split(",") if part.strip())
    try:
        for part in parts:
            parse_host(part)
    except ValueError as error:
        raise ValueError(f"give hosts such as chat.example.org, without a port ({error})") from None
    return parts


def _network_list(text: str) -> tuple[str, ...]:
    parts = tuple(part.strip() for part in text.split(",") if part.strip())
    try:
        for part in parts:
            ipaddress.ip_network(part)
    except ValueError:
        raise ValueError("give networks such as 10.1.0.0/16, without host bits") from None
    return parts


# Visible ASCII but for what ends an attribute, or what browsers take for something else.
_link = _matching(
    r"(https://[A-Za-z0-9.-]+(:[0-9]{1,5})?)?/(?!/)[!$-&(-;=?-\[\]_a-z|~]*",
    "give a path such as /oauth2/start?rd=/, or an address such as https://id.example.org/logout",
)


def _file(text: str) -> str:
    try:
        with Path(text).open("rb"):
            return text
    except OSError as error:
        raise ValueError(f"give a file that can be read ({error.strerror})") from None


def _setting(variable: str, default: Any, parse: Callable[[str], Any], meaning: str) -> Any:
    return field(
        default=default, metadata={"variable": variable, "parse": parse, "meaning": meaning}
    )


_SERVER = r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):[0-9]{1,5}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """The settings of the service. Times are in seconds, sizes in bytes."""

    kafka_enabled: bool = _setting(
        "KAFKA_ENABLED",
        False,
        _boolean,
        "share rooms with other replicas through Kafka; if false, this process shares nothing",
    )
    kafka_bootstrap_servers: tuple[str, ...] = _setting(
        "KAFKA_BOOTSTRAP_SERVERS",
        (),
        _list_of(_SERVER, "give HOST:PORT,HOST:PORT"),
        "brokers to connect to first, `HOST:PORT,…`; required if Kafka is enabled",
    )
    kafka_topic: str = _setting(
        "KAFKA_TOPIC",
        "chat",
        _matching(r"[A-Za-z0-9._-]{1,249}", "give 1 to 249 letters, digits and ._-"),
        "topic of the messages; it must exist and keep its number of partitions",
    )
    kafka_signal_topic: str = _setting(
        "KAFKA_SIGNAL_TOPIC",
        "chat-signals",
        _matching(r"[A-Za-z0-9._-]{1,249}", "give 1 to 249 letters, digits and ._-"),
        "topic through which replicas share presence and typing; if it is missing, clients see"
        " neither of other replicas",
    )
    kafka_revocation_topic: str = _setting(
        "KAFKA_REVOCATION_TOPIC",
        "chat-revocations",
        _matching(r"[A-Za-z0-9._-]{1,249}", "give 1 to 249 letters, digits and ._-"),
        "topic of the tokens that were revoked, used with `CHAT_AUTH=required`; it must exist, and"
        " keep records for five minutes more than `CHAT_AUTH_TOKEN_SECONDS`",
    )
    kafka_sanction_topic: str = _setting(
        "KAFKA_SANCTION_TOPIC",
        "chat-sanctions",
        _matching(r"[A-Za-z0-9._-]{1,249}", "give 1 to 249 letters, digits and ._-"),
        "topic of the people whom moderators have muted or banned, used with `CHAT_SANCTIONS`; it"
        " must exist, and keep records for 366 days and five minutes",
    )
    kafka_member_topic: str = _setting(
        "KAFKA_MEMBER_TOPIC",
        "chat-members",
        _matching(r"[A-Za-z0-9._-]{1,249}", "give 1 to 249 letters, digits and ._-"),
        "topic of the private rooms and their members, used with `CHAT_PRIVATE_ROOMS`; it must"
        " exist, and be compacted without deleting records by age or size",
    )
    kafka_in_flight: int = _setting(
        "KAFKA_IN_FLIGHT",
        1000,
        _integer(1, 1_000_000),
        "maximum number of messages that wait for Kafka's acknowledgement; more are refused",
    )
    kafka_in_flight_bytes: int = _setting(
        "KAFKA_IN_FLIGHT_BYTES",
        16_777_216,
        _integer(65_536, 1_073_741_824),
        "maximum size of those messages together, in bytes; all that are not read back from the log"
        " yet may take as much memory again",
    )
    kafka_delivery: float = _setting(
        "KAFKA_DELIVERY_SECONDS",
        10.0,
        _seconds(1, 300),
        "time for Kafka to acknowledge a message; then its sender gets `unavailable`",
    )
    kafka_security_protocol: str = _setting(
        "KAFKA_SECURITY_PROTOCOL",
        "PLAINTEXT",
        _matching(r"PLAINTEXT|SSL|SASL_PLAINTEXT|SASL_SSL", "say as the brokers' listener does"),
        "protocol of the connection to brokers: `PLAINTEXT`, `SSL`, `SASL_PLAINTEXT` or `SASL_SSL`",
    )
    kafka_ca_file: str = _setting(
        "KAFKA_CA_FILE",
        "",
        _file,
        "CA certificates (PEM) that signed the brokers' certificates; empty: the system's CAs",
    )
    kafka_certificate_file: str = _setting(
        "KAFKA_CERTIFICATE_FILE", "", _file, "client certificate (PEM) for the brokers"
    )
    kafka_key_file: str = _setting(
        "KAFKA_KEY_FILE",
        "",
        _file,
        "private key of the client certificate (PEM, without a passphrase)",
    )
    kafka_sasl_mechanism: str = _setting(
        "KAFKA_SASL_MECHANISM",
        "SCRAM-SHA-512",
        _matching(
            r"PLAIN|SCRAM-SHA-256|SCRAM-SHA-512", "say PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512"
        ),
        "SASL mechanism: `PLAIN`, `SCRAM-SHA-256` or `SCRAM-SHA-512`",
    )
    kafka_sasl_username: str = _setting("KAFKA_SASL_USERNAME", "", str, "SASL user name")
    kafka_sasl_password_file: str = _setting(
        "KAFKA_SASL_PASSWORD_FILE",
        "",
        _file,
        "file that contains the SASL password and nothing else",
    )
    address: str = _setting(
        "CHAT_ADDRESS",
        "",
        _matching(r"[A-Za-z0-9.:_-]*", "give an IP address or host name, or nothing for all"),
        "address to listen on; empty: all addresses",
    )
    port: int = _setting(
        "CHAT_PORT", 8080, _integer(0, 65535), "port of the page and of `/ws`; 0: any free port"
    )
    internal_port: int = _setting(
        "CHAT_INTERNAL_PORT",
        9090,
        _integer(0, 65535),
        "port of `/livez`, `/readyz` and `/metrics`, not for the public; 0: any free port",
    )
    replica: str = _setting(
        "CHAT_REPLICA",
        "",
        _matching(r"[A-Za-z0-9._-]{1,253}", "give a host name"),
        "name of this process, shown to clients; empty: the host name",
    )
    hosts: tuple[str, ...] = _setting(
        "CHAT_HOSTS",
        (),
        _host_list,
        "host names of the chat, `HOST,…`, in addition to IP addresses and localhost; requests"
        " for other hosts are refused (421). Empty: any host, except that requests from this"
        " machine must use its name, an IP address or localhost",
    )
    allowed_origins: tuple[str, ...] = _setting(
        "CHAT_ALLOWED_ORIGINS",
        (),
        _origin_list,
        "origins of other sites whose pages may connect, `https://HOST,…`; the chat's own origin"
        " is always allowed",
    )
    auth: str = _setting(
        "CHAT_AUTH",
        "off",
        _matching(r"off|required", "say off or required"),
        "who may use the chat: everybody under any name (`off`), or who brings a token of one of"
        " `CHAT_AUTH_ISSUERS` (`required`)",
    )
    auth_issuers: tuple[issuers.Issuer, ...] = _setting(
        "CHAT_AUTH_ISSUERS",
        (),
        issuers.parse,
        'identity providers whose tokens count, a list in JSON: `[{"issuer": URL, "audience":'
        ' NAME, "audiences": [NAME, …], "jwks": FILE or URL, "name_claim": CLAIM, "groups_claim":'
        ' CLAIM, "groups_prefix": TEXT}, …]`. `audiences`: others that count as well. Without'
        " `jwks`, the provider's discovery document tells where its keys are. `name_claim`: the"
        " claim with the name to show, `preferred_username` if not given; it should be unique."
        " `groups_claim`: the claim with a person's groups, none if not given; `groups_prefix` is"
        " put before each. Addresses begin with https, except on this machine",
    )
    auth_algorithms: tuple[str, ...] = _setting(
        "CHAT_AUTH_ALGORITHMS",
        ("RS256", "PS256", "ES256", "Ed25519"),
        _list_of(
            r"(RS|PS|ES)(256|384|512)|Ed25519",
            "give RS256, PS256, ES256 (or 384, 512) or Ed25519, separated by commas",
        ),
        "algorithms of signatures that count, `NAME,…`: RS, PS or ES with 256, 384 or 512, and"
        " Ed25519",
    )
    auth_ca_file: str = _setting(
        "CHAT_AUTH_CA_FILE",
        "",
        _file,
        "CA certificates (PEM) that signed the providers' certificates; empty: well-known CAs",
    )
    auth_token_seconds: int = _setting(
        "CHAT_AUTH_TOKEN_SECONDS",
        86_400,
        _integer(60, 31_622_400),
        "longest time for which a token counts after it was issued (`iat`), even if it ends later;"
        " revocations of tokens are kept as long",
    )
    auth_sign_in_url: str = _setting(
        "CHAT_AUTH_SIGN_IN_URL",
        "",
        _link,
        "where the page sends people to sign in: a path of the chat's own origin, such as"
        " `/oauth2/start?rd=/`, or an https address; empty: the page says only that they are not"
        " signed in",
    )
    auth_sign_out_url: str = _setting(
        "CHAT_AUTH_SIGN_OUT_URL",
        "",
        _link,
        "the same to sign out; empty: there is no such link",
    )
    rooms: tuple[rights.Rule, ...] = _setting(
        "CHAT_ROOMS",
        (),
        rights.parse,
        'who may use which rooms, a list in JSON: `[{"rooms": PATTERN, "read": [GROUP, …],'
        ' "write": [GROUP, …], "moderate": [GROUP, …], "slow": SECONDS}, …]`. A pattern is a name,'
        " or a beginning and `*`; the longest one that fits counts, case does not. Without `read`,"
        " everybody may read; without `write`, all who read may write; without `moderate`, nobody"
        " may delete what others wrote, or mute and ban people. `[]` is nobody. `slow`: each"
        " person, moderators aside, may send one message in so many seconds. One rule is for `*`."
        " Needs `CHAT_AUTH=required`. Must be the same on all replicas",
    )
    revisions: bool = _setting(
        "CHAT_REVISIONS",
        False,
        _boolean,
        "whether people may delete and edit their messages, and moderators delete those of others."
        " Set it only when all replicas run a release that knows it: others go on showing what was"
        " deleted",
    )
    sanctions: bool = _setting(
        "CHAT_SANCTIONS",
        False,
        _boolean,
        "whether moderators may mute and ban people in their rooms (`moderate` in `CHAT_ROOMS`)."
        " Needs `CHAT_AUTH=required`. Set it only when all replicas run a release that knows it:"
        " others go on showing rooms to people who are banned",
    )
    moderators: frozenset[str] = _setting(
        "CHAT_MODERATORS",
        frozenset(),
        rights.parse_groups,
        "groups whose people may ban others from the whole chat, a list in JSON: `[GROUP, …]`. In"
        " rooms, they moderate as `CHAT_ROOMS` says. Needs `CHAT_SANCTIONS`. Set it only when all"
        " replicas run a release that knows it: others go on letting in people who are banned. Must"
        " be the same on all replicas",
    )
    private_rooms: bool = _setting(
        "CHAT_PRIVATE_ROOMS",
        False,
        _boolean,
        "whether people may make private rooms and invite others, and write to each other in direct"
        " rooms. Needs `CHAT_AUTH=required`. Set it only when all replicas run a release that knows"
        " it: others show these rooms to whoever knows their names",
    )
    audit_room: str = _setting(
        "CHAT_AUDIT_ROOM",
        "",
        _matching(rf"{ROOM}|", "give the name of a room: 1 to 64 of A-Z a-z 0-9 - _ ."),
        "room in which the chat tells what people report, and what moderators do to others. A rule"
        " of `CHAT_ROOMS` for this name says who reads it, with `write` and `moderate` `[]`. Empty:"
        " nobody can report anything",
    )
    transport: str = _setting(
        "CHAT_TRANSPORT",
        "fast",
        _matching(r"fast|tornado", "say fast or tornado"),
        "implementation of WebSocket I/O: the event loop's own transport, or Tornado's streams"
        " (slower)",
    )
    log_level: str = _setting(
        "CHAT_LOG_LEVEL",
        "info",
        _matching(r"debug|info|warning|error", "say debug, info, warning or error"),
        "lowest level that is logged",
    )
    log_format: str = _setting(
        "CHAT_LOG_FORMAT",
        "text",
        _matching(r"text|json", "say text or json"),
        "format of log lines: text, or one JSON object per line",
    )
    frame_bytes: int = _setting(
        "CHAT_FRAME_BYTES",
        32768,
        _integer(1024, 1_048_576),
        "largest WebSocket message from a client, fragments included; a larger one closes the"
        " connection (1009)",
    )
    text_bytes: int = _setting(
        "CHAT_TEXT_BYTES", 8192, _integer(1, TEXT_BYTES), "largest `text`, in bytes of UTF-8"
    )
    text_graphemes: int = _setting(
        "CHAT_TEXT_GRAPHEMES",
        2000,
        _integer(1, TEXT_BYTES),
        "longest `text`, in grapheme clusters",
    )
    rooms_per_client: int = _setting(
        "CHAT_ROOMS_PER_CLIENT", 50, _integer(1, 10_000), "maximum number of rooms per client"
    )
    rate: int = _setting(
        "CHAT_RATE", 20, _integer(1, 100_000), "sustained rate of frames per client, per second"
    )
    burst: int = _setting(
        "CHAT_BURST", 100, _integer(1, 100_000), "frames that one client may send in a burst"
    )
    outbox_bytes: int = _setting(
        "CHAT_OUTBOX_BYTES",
        1_048_576,
        _integer(65_536, 268_435_456),
        "maximum bytes that wait for a slow client; more closes its connection (1013)",
    )
    outboxes_bytes: int = _setting(
        "CHAT_OUTBOXES_BYTES",
        67_108_864,
        _integer(65_536, 17_179_869_184),
        "maximum bytes that wait for all clients together, HTTP answers included; beyond it,"
        " connections are closed (1013), first those of the address with the most waiting bytes",
    )
    history: int = _setting(
        "CHAT_HISTORY",
        500,
        _integer(1, 100_000),
        "messages kept per room for clients that come back",
    )
    recent: int = _setting(
        "CHAT_RECENT",
        50,
        _integer(0, 10_000),
        "messages sent to a client that joins without a position",
    )
    window: int = _setting(
        "CHAT_WINDOW",
        5000,
        _integer(1, 10_000_000),
        "records kept per partition: the reach of history and of the detection of repeats",
    )
    window_bytes: int = _setting(
        "CHAT_WINDOW_BYTES",
        67_108_864,
        _integer(1_048_576, 68_719_476_736),
        "memory for the window; beyond it, older messages are read from the log on request",
    )
    page: int = _setting(
        "CHAT_PAGE",
        100,
        _integer(1, 10_000),
        "maximum number of messages in one answer to `history`",
    )
    page_bytes: int = _setting(
        "CHAT_PAGE_BYTES",
        262_144,
        _integer(4096, 16_777_216),
        "maximum bytes of messages in one answer to `join` or `history`; a single message may be"
        " larger",
    )
    scan: int = _setting(
        "CHAT_SCAN",
        20_000,
        _integer(1, 10_000_000),
        "maximum number of records of a partition that one request reads from the log, beyond the"
        " window",
    )
    api_requests: int = _setting(
        "CHAT_API_REQUESTS",
        8,
        _integer(1, 1000),
        "maximum number of simultaneous HTTP requests for messages, half of them for one address;"
        " more are refused (503, 429)",
    )
    api_rate: int = _setting(
        "CHAT_API_RATE",
        20,
        _integer(1, 1_000_000),
        "sustained rate of HTTP requests for messages per address, per second; a burst may have"
        " five times as many",
    )
    places: int = _setting(
        "CHAT_PLACES",
        100_000,
        _integer(1, 10_000_000),
        "maximum number of clients in rooms, each counted once per room, half of them for one"
        " address; from 95 % on, the replica is not ready, and beyond the maximum it refuses joins"
        " (`unavailable`)",
    )
    places_elsewhere: int = _setting(
        "CHAT_PLACES_ELSEWHERE",
        100_000,
        _integer(0, 100_000_000),
        "maximum number of people in rooms on all other replicas together, each counted once per"
        " room; more are not shown",
    )
    members_shown: int = _setting(
        "CHAT_MEMBERS_SHOWN",
        100,
        _integer(0, 10_000),
        "rooms with more people than this show only their number, and no typing",
    )
    heartbeat: float = _setting(
        "CHAT_HEARTBEAT_SECONDS",
        5.0,
        _seconds(0.1, 60),
        "interval between full presence snapshots; a replica that misses three is considered"
        " dead. Must be the same on all replicas",
    )
    name_hold: float = _setting(
        "CHAT_NAME_HOLD_SECONDS",
        300.0,
        _seconds(0, 86_400),
        "time for which a name is held after its owner left the room, if they have a key; 0: not"
        " held. Must be the same on all replicas",
    )
    typing: float = _setting(
        "CHAT_TYPING_SECONDS",
        6.0,
        _seconds(0.1, 60),
        "time for which clients show that somebody types; it is broadcast at most twice per this"
        " time",
    )
    address_rate: int = _setting(
        "CHAT_ADDRESS_RATE",
        0,
        _integer(0, 1_000_000),
        "sustained rate of frames of all clients of one address, per second; 0: no limit",
    )
    address_burst: int = _setting(
        "CHAT_ADDRESS_BURST",
        5000,
        _integer(1, 1_000_000),
        "frames that all clients of one address may send in a burst",
    )
    trusted_proxies: tuple[str, ...] = _setting(
        "CHAT_TRUSTED_PROXIES",
        (),
        _network_list,
        "networks of proxies whose X-Forwarded-For header is trusted, `10.1.0.0/16,…`",
    )
    clients: int = _setting(
        "CHAT_CLIENTS",
        20_000,
        _integer(1, 1_000_000),
        "maximum number of connected clients; from 95 % on, the replica is not ready, and beyond"
        " the maximum it refuses connections (503)",
    )
    address_clients: int = _setting(
        "CHAT_ADDRESS_CLIENTS",
        10_000,
        _integer(1, 1_000_000),
        "maximum number of connected clients of one address; beyond it, connections are refused"
        " (429)",
    )
    pending: int = _setting(
        "CHAT_PENDING",
        1000,
        _integer(4, 1_000_000),
        "maximum number of connections that are not a WebSocket (yet); beyond it, the oldest is"
        " closed",
    )
    address_pending: int = _setting(
        "CHAT_ADDRESS_PENDING",
        500,
        _integer(2, 1_000_000),
        "the same for one address, unless it is a trusted proxy",
    )
    header_bytes: int = _setting(
        "CHAT_HEADER_BYTES", 16_384, _integer(1024, 1_048_576), "maximum size of a request header"
    )
    handshake: float = _setting(
        "CHAT_HANDSHAKE_SECONDS",
        15.0,
        _seconds(0.1, 300),
        "maximum time for a request to arrive, and for a connection without a request",
    )
    hello: float = _setting(
        "CHAT_HELLO_SECONDS",
        10.0,
        _seconds(0.1, 300),
        "maximum time until a new connection sends `hello` (then 1008)",
    )
    ping: float = _setting(
        "CHAT_PING_SECONDS",
        25.0,
        _seconds(1, 3600),
        "interval between pings",
    )
    pong: float = _setting(
        "CHAT_PONG_SECONDS",
        10.0,
        _seconds(0.1, 3600),
        "maximum time until a client answers a ping; then it is disconnected",
    )
    position: float = _setting(
        "CHAT_POSITION_SECONDS",
        600.0,
        _seconds(0.05, 86_400),
        "maximum time between `position` frames of a room while the log moves",
    )
    drain_delay: float = _setting(
        "CHAT_DRAIN_DELAY_SECONDS",
        0.0,
        _seconds(0, 300),
        "time to stay up but not ready after SIGTERM, until no new clients are routed here",
    )
    drain: float = _setting(
        "CHAT_DRAIN_SECONDS",
        5.0,
        _seconds(0, 300),
        "maximum time to disconnect clients (1012) on SIGTERM; answering requests that send, and"
        " flushing the log, may take as long each",
    )


def load(environment: Mapping[str, str]) -> Settings:
    """Read the settings from `environment`. Empty is the same as unset.

    Raises `SettingsError` for the first invalid value.
    """
    given: dict[str, Any] = {}
    for item in fields(Settings):
        text = environment.get(item.metadata["variable"], "").strip()
        if not text:
            continue
        try:
            given[item.name] = item.metadata["parse"](text)
        except ValueError as remedy:
            raise SettingsError(f"{item.metadata['variable']}={text!r}: {remedy}") from None
    given.setdefault("replica", socket.gethostname())
    settings = Settings(**given)
    _check_together(settings)
    return settings


def _check_together(settings: Settings) -> None:
    """Refuse values that are valid alone but not together."""
    if settings.kafka_enabled and not settings.kafka_bootstrap_servers:
        raise SettingsError(
            "KAFKA_BOOTSTRAP_SERVERS='': with KAFKA_ENABLED=true, give HOST:PORT,HOST:PORT"
        )
    if settings.kafka_signal_topic == settings.kafka_topic:
        raise SettingsError(
            f"KAFKA_SIGNAL_TOPIC={settings.kafka_signal_topic!r}: give another topic than"
            " KAFKA_TOPIC, for what it holds is soon deleted"
        )
    if settings.kafka_revocation_topic in (settings.kafka_topic, settings.kafka_signal_topic):
        raise SettingsError(
            f"KAFKA_REVOCATION_TOPIC={settings.kafka_revocation_topic!r}: give another topic than"
            " KAFKA_TOPIC and KAFKA_SIGNAL_TOPIC"
        )
    if settings.kafka_sanction_topic in (
        settings.kafka_topic,
        settings.kafka_signal_topic,
        settings.kafka_revocation_topic,
    ):
        raise SettingsError(
            f"KAFKA_SANCTION_TOPIC={settings.kafka_sanction_topic!r}: give another topic than"
            " KAFKA_TOPIC, KAFKA_SIGNAL_TOPIC and KAFKA_REVOCATION_TOPIC"
        )
    if settings.kafka_member_topic in (
        settings.kafka_topic,
        settings.kafka_signal_topic,
        settings.kafka_revocation_topic,
        settings.kafka_sanction_topic,
    ):
        raise SettingsError(
            f"KAFKA_MEMBER_TOPIC={settings.kafka_member_topic!r}: give another topic than"
            " KAFKA_TOPIC, KAFKA_SIGNAL_TOPIC, KAFKA_REVOCATION_TOPIC and KAFKA_SANCTION_TOPIC"
        )
    _check_security(settings)
    _check_auth(settings)
    if settings.pong > settings.ping:
        raise SettingsError(
            f"CHAT_PONG_SECONDS='{settings.pong:g}': give at most"
            f" CHAT_PING_SECONDS={settings.ping:g}"
        )
    if settings.outboxes_bytes < settings.outbox_bytes:
        raise SettingsError(
            f"CHAT_OUTBOXES_BYTES='{settings.outboxes_bytes}': give at least"
            f" CHAT_OUTBOX_BYTES={settings.outbox_bytes}"
        )
    if settings.places < 2 * settings.rooms_per_client:
        raise SettingsError(
            f"CHAT_PLACES='{settings.places}': give at least {2 * settings.rooms_per_client}, for"
            f" a client may be in CHAT_ROOMS_PER_CLIENT={settings.rooms_per_client} rooms"
        )
    if settings.port == settings.internal_port != 0:
        raise SettingsError(
            f"CHAT_INTERNAL_PORT='{settings.internal_port}': give another port than CHAT_PORT"
        )
    # A text that is allowed must fit its frame. JSON may spend two bytes on one (\n, \", \\).
    least = 2 * settings.text_bytes + 1024
    if settings.frame_bytes < least:
        raise SettingsError(
            f"CHAT_FRAME_BYTES='{settings.frame_bytes}': give at least {least}, for a text of"
            f" CHAT_TEXT_BYTES={settings.text_bytes} travels in a frame"
        )
    # And its record, or every such text would be refused as if Kafka were slow.
    least += 2 * USER_BYTES
    if settings.kafka_in_flight_bytes < least:
        raise SettingsError(
            f"KAFKA_IN_FLIGHT_BYTES='{settings.kafka_in_flight_bytes}': give at least {least}, for"
            f" a text of CHAT_TEXT_BYTES={settings.text_bytes}"
        )


def _check_security(settings: Settings) -> None:
    protocol = settings.kafka_security_protocol
    needed = {
        "KAFKA_SASL_USERNAME": settings.kafka_sasl_username,
        "KAFKA_SASL_PASSWORD_FILE": settings.kafka_sasl_password_file,
    }
    for variable, value in needed.items():
        if protocol.startswith("SASL_") and not value:
            raise SettingsError(
                f"{variable}='': KAFKA_SECURITY_PROTOCOL={protocol} needs a user and a password"
            )
        if value and not protocol.startswith("SASL_"):
            raise SettingsError(
                f"{variable}='{value}': it is used with KAFKA_SECURITY_PROTOCOL=SASL_SSL or"
                f" SASL_PLAINTEXT, and that is {protocol}"
            )
    files = {
        "KAFKA_CA_FILE": settings.kafka_ca_file,
        "KAFKA_CERTIFICATE_FILE": settings.kafka_certificate_file,
        "KAFKA_KEY_FILE": settings.kafka_key_file,
    }
    for variable, file in files.items():
        if file and not protocol.endswith("SSL"):
            raise SettingsError(
                f"{variable}='{file}': it is used with KAFKA_SECURITY_PROTOCOL=SSL or SASL_SSL,"
                f" and that is {protocol}"
            )
    if bool(settings.kafka_certificate_file) != bool(settings.kafka_key_file):
        raise SettingsError(
            f"KAFKA_CERTIFICATE_FILE='{settings.kafka_certificate_file}': give it together"
            " with KAFKA_KEY_FILE, or neither"
        )


def _check_auth(settings: Settings) -> None:
    if settings.auth == "required" and not settings.auth_issuers:
        raise SettingsError(
            "CHAT_AUTH_ISSUERS='': with CHAT_AUTH=required, give the providers whose tokens count"
        )
    links = {
        "CHAT_AUTH_SIGN_IN_URL": settings.auth_sign_in_url,
        "CHAT_AUTH_SIGN_OUT_URL": settings.auth_sign_out_url,
    }
    for variable, link in links.items():
        if settings.auth == "off" and link:
            raise SettingsError(f"{variable}={link!r}: it is used with CHAT_AUTH=required only")
    if settings.auth == "off" and settings.auth_issuers:
        named = ", ".join(one.issuer for one in settings.auth_issuers)
        raise SettingsError(
            f"CHAT_AUTH='off': CHAT_AUTH_ISSUERS names {named}; say CHAT_AUTH=required, or name no"
            " issuers"
        )
    if settings.rooms and settings.auth == "off":
        raise SettingsError(
            f"CHAT_AUTH='off': CHAT_ROOMS has {len(settings.rooms)} rules, and nobody is known; say"
            " CHAT_AUTH=required, or give no rules"
        )
    if settings.sanctions and settings.auth == "off":
        raise SettingsError(
            "CHAT_SANCTIONS='true': with CHAT_AUTH=off, nobody is known; say CHAT_AUTH=required, or"
            " CHAT_SANCTIONS=false"
        )
    if settings.moderators and not settings.sanctions:
        raise SettingsError(
            f"CHAT_MODERATORS names the group {min(settings.moderators)!r}: it is used with"
            " CHAT_SANCTIONS=true only"
        )
    if settings.private_rooms and settings.auth == "off":
        raise SettingsError(
            "CHAT_PRIVATE_ROOMS='true': with CHAT_AUTH=off, nobody is known; say"
            " CHAT_AUTH=required, or CHAT_PRIVATE_ROOMS=false"
        )
    if settings.audit_room:
        name = settings.audit_room.lower()
        rule = next((one for one in settings.rooms if one.rooms.lower() == name), None)
        if rule is None or not rule.read or rule.write != frozenset() or rule.moderate:
            raise SettingsError(
                f"CHAT_AUDIT_ROOM={settings.audit_room!r}: CHAT_ROOMS must let some groups read it,"
                " and nobody write: give the rule"
                f' {{"rooms": "{settings.audit_room}", "read": [GROUP, ...], "write": []}}'
            )
    groups = settings.moderators.union(*(rule.groups for rule in settings.rooms))
    if groups and not any(one.groups_claim for one in settings.auth_issuers):
        raise SettingsError(
            f"CHAT_AUTH_ISSUERS: CHAT_ROOMS or CHAT_MODERATORS names the group {min(groups)!r}, and"
            " nobody is in a group; give groups_claim, the claim that has a person's groups"
        )
