"""The configuration of the webhooks: one TOML file, docs/webhooks.md.

The URLs are the operator's own, so any host may be named, also an internal one.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal
from urllib.parse import SplitResult, urlsplit

import msgspec

from chat import protocol
from chat.client.device import is_here
from chat.webhook.events import Kind
from chat.webhook.signature import Secrets, SecretsError, read_secrets

MOST_WEBHOOKS = 100
MOST_BYTES = 256 << 10
MOST_HOURS = 24 * 366
_NAME = re.compile(r"[A-Za-z0-9_-]{1,40}")
_SECRET = re.compile(r"secret:([a-z0-9-]{1,63}/[a-z0-9.-]{1,253})")
_METRICS = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]*):([0-9]{1,5})")


class ConfigError(Exception):
    """The file cannot be used. The text says why, and the remedy."""


class Webhook(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`name` is in log lines, metrics and the name of the file that keeps the position."""

    name: str
    room: str
    url: str
    secret_file: str
    events: frozenset[Kind] = frozenset(Kind)
    plain_http: bool = False

    @property
    def host(self) -> str:
        """All of the address that may be logged: its path is a secret of many receivers."""
        return urlsplit(self.url).netloc


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Files are relative to the folder of the configuration. `state`: a folder, or
    `secret:NAMESPACE/NAME`.
    """

    chat: str
    state: str
    webhooks: tuple[Webhook, ...]
    user: str = "webhooks"
    token_file: str = ""
    plain_http: bool = False
    give_up_hours: float = 72.0
    metrics: str = ""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["text", "json"] = "text"

    @property
    def metrics_address(self) -> tuple[str, int] | None:
        """Where metrics are served, if they are; no host: on all addresses."""
        found = _METRICS.fullmatch(self.metrics)
        return (found[1].strip("[]") or "0.0.0.0", int(found[2])) if found else None


class Loaded(msgspec.Struct, frozen=True):
    """A configuration that was checked. `state_secret`: NAMESPACE/NAME of the Secret with the
    state; empty: it is in the folder `state`. `secrets`: by the names of webhooks.
    """

    config: Config
    state: Path
    state_secret: str
    token_file: Path | None
    secrets: dict[str, Secrets]


def load(path: Path) -> Loaded:
    """Raises `ConfigError`."""
    try:
        with path.open("rb") as file:
            config = msgspec.toml.decode(file.read(MOST_BYTES), type=Config)
        return _check(config, path.parent)
    except OSError as error:
        raise ConfigError(f"{error.filename or path}: {error.strerror}") from None
    except (msgspec.MsgspecError, ValueError) as error:
        raise ConfigError(f"{path}: {error}") from None


def _check(config: Config, folder: Path) -> Loaded:
    chat = _split(config.chat)
    if chat.scheme not in ("https", "http") or not chat.hostname or chat.path.strip("/"):
        raise ValueError(f"chat = {config.chat!r}: give the chat's address, https://HOST/")
    exposed = chat.scheme == "http" and not is_here(chat.hostname)
    if config.token_file and exposed and not config.plain_http:
        raise ValueError(
            f"chat = {config.chat!r}: give an https address; if nobody can read the token on its"
            " way there, plain_http = true"
        )
    if not 0 < config.give_up_hours <= MOST_HOURS:
        raise ValueError(f"give_up_hours = {config.give_up_hours:g}: give hours up to {MOST_HOURS}")
    state_secret = _SECRET.fullmatch(config.state)
    if config.state.startswith("secret:") and not state_secret:
        raise ValueError(f"state = {config.state!r}: give a folder, or secret:NAMESPACE/NAME")
    address = config.metrics_address
    if config.metrics and (address is None or address[1] > 65535):
        raise ValueError(f"metrics = {config.metrics!r}: give HOST:PORT, or :PORT")
    if not 0 < len(config.webhooks) <= MOST_WEBHOOKS:
        raise ValueError(
            f"{len(config.webhooks)} webhooks: give [[webhooks]] 1 to {MOST_WEBHOOKS} times"
        )
    secrets = {}
    targets: dict[tuple[str, str], str] = {}
    for webhook in config.webhooks:
        if webhook.name in secrets:
            raise ValueError(f"webhook {webhook.name!r}: give this name to one webhook")
        _check_webhook(webhook)
        other = targets.setdefault((webhook.room, webhook.url), webhook.name)
        if other != webhook.name:
            raise ValueError(f"webhooks {other!r} and {webhook.name!r} are the same: leave one out")
        try:
            secrets[webhook.name] = read_secrets(folder / webhook.secret_file)
        except SecretsError as error:
            raise ValueError(f"webhook {webhook.name!r}: secret_file: {error}") from None
    token_file = folder / config.token_file if config.token_file else None
    if token_file is not None:
        # Read again for each connection, and not used here.
        token_file.read_bytes()
    return Loaded(
        config,
        folder / config.state,
        state_secret[1] if state_secret else "",
        token_file,
        secrets,
    )


def _check_webhook(webhook: Webhook) -> None:
    about = f"webhook {webhook.name!r}"
    if not _NAME.fullmatch(webhook.name):
        raise ValueError(f"{about}: give a name of 1 to 40 of A-Z a-z 0-9 _ -")
    try:
        protocol.check_room(webhook.room)
    except protocol.RefusedError:
        raise ValueError(
            f"{about}: room = {webhook.room!r}: give 1 to 64 of A-Z a-z 0-9 - _ ."
        ) from None
    if not webhook.events:
        raise ValueError(f"{about}: events = []: give some of {', '.join(Kind)}")
    # The URL itself is not shown, as it may hold a secret.
    parts = _split(webhook.url)
    if parts.scheme not in ("https", "http") or not parts.hostname or parts.port == 0:
        raise ValueError(f"{about}: url: give an address such as https://HOST/PATH")
    if parts.username is not None:
        raise ValueError(
            f"{about}: url: leave out user and password: the signature tells who sends"
        )
    if not re.fullmatch(r"[!-~]+", webhook.url) or parts.fragment:
        raise ValueError(f"{about}: url: encode other characters than visible ASCII, without #")
    if parts.scheme == "http" and not webhook.plain_http:
        raise ValueError(
            f"{about}: url: give an https address; if nobody can read what goes to this host,"
            " plain_http = true"
        )


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return urlsplit("")
    return parts
