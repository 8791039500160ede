"""Tokens that somebody made up, changed, found or was not meant to have."""

from __future__ import annotations

import asyncio
import base64
import hmac
import json
import logging
from collections.abc import Callable
from typing import Any

import pytest
from conftest import Replica
from joserfc import jws
from joserfc.jwk import RSAKey
from provider import Provider, ec_key, jwks
from test_auth import MESSAGES, refusal
from test_server import get

Forge = Callable[[Provider], str]
RSA = RSAKey.generate_key(2048, {"kid": "first"})


def part(content: Any) -> str:
    data = content if isinstance(content, bytes) else json.dumps(content).encode()
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def unsigned(provider: Provider, alg: str = "none") -> str:
    return f"{part({'alg': alg, 'kid': 'first'})}.{part(provider.claims())}."


def with_public_key_as_secret(provider: Provider) -> str:
    """As a library takes it that believes the header's algorithm."""
    words = f"{part({'alg': 'HS256', 'kid': 'first'})}.{part(provider.claims())}"
    return f"{words}.{part(hmac.digest(RSA.as_pem(private=False), words.encode(), 'sha256'))}"


def changed(provider: Provider) -> str:
    head, _, signature = provider.token().split(".")
    return f"{head}.{part(provider.claims('eve'))}.{signature}"


def swapped(provider: Provider, **header: Any) -> str:
    """With another header, and the signature of the true one."""
    _, claims, signature = provider.token().split(".")
    return f"{part({'alg': 'ES256', 'kid': 'first'} | header)}.{claims}.{signature}"


def with_a_number_beyond_all(provider: Provider) -> str:
    """Signed by the provider, as somebody may choose a claim there."""
    claims = json.dumps(provider.claims()).removesuffix("}") + ',"quota":1e999}'
    head = {"alg": "ES256", "kid": "first"}
    return jws.serialize_compact(head, claims.encode(), provider.key)


BAD: dict[str, tuple[Forge, str]] = {
    "alg none": (unsigned, "algorithm 'none' is not allowed"),
    "alg None": (lambda p: unsigned(p, "None"), "algorithm 'None' is not allowed"),
    "the public key as a secret": (with_public_key_as_secret, "algorithm 'HS256' is not allowed"),
    "a foreign key under a known kid": (
        lambda p: p.token(key=ec_key("first")),
        "its signature does not count",
    ),
    "a foreign key under no kid": (
        lambda p: p.token(key=ec_key("first"), header={"kid": None}),
        "its signature does not count",
    ),
    "an unknown kid": (lambda p: p.token(key=ec_key("eve\n")), r"it names key 'eve\n', and"),
    "another algorithm than the key's": (
        lambda p: swapped(p, alg="RS256"),
        "its signature does not count",
    ),
    "a key within the token": (
        lambda p: p.token(key=(own := ec_key("first")), header={"jwk": own.as_dict(private=False)}),
        "its signature does not count",
    ),
    "an extension that must be understood": (
        lambda p: swapped(p, crit=["exp"], exp=1),
        "its signature does not count",
    ),
    "changed claims": (changed, "its signature does not count"),
    "no signature": (lambda p: p.token().rpartition(".")[0] + ".", "its signature"),
    "another issuer": (
        lambda p: p.token(iss="https://eve.example"),
        "issuer 'https://eve.example' is none of CHAT_AUTH_ISSUERS",
    ),
    "nearly the issuer": (lambda p: p.token(iss=p.issuer + "/"), "is none of CHAT_AUTH_ISSUERS"),
    "no issuer": (lambda p: p.token(iss=None), "it is no JWT"),
    "another audience": (lambda p: p.token(aud="mail"), "audience 'mail' is not 'chat'"),
    "other audiences": (lambda p: p.token(aud=["a", "chats"]), "audience 'a, chats' is not"),
    "no audience": (lambda p: p.token(aud=None), "it is no JWT"),
    "no subject": (lambda p: p.token(sub=None), "it is no JWT"),
    "an empty subject": (lambda p: p.token(sub=""), "its subject is empty"),
    "a subject that is a number": (lambda p: p.token(sub=7), "it is no JWT"),
    "ended an hour ago": (lambda p: p.token(exp=p.claims()["iat"] - 3600), "it ended 36"),
    "begins in an hour": (lambda p: p.token(nbf=p.claims()["iat"] + 3600), "it begins in 3"),
    "issued in an hour": (lambda p: p.token(iat=p.claims()["iat"] + 3600), "it was issued in 3"),
    "no end": (lambda p: p.token(exp=None), "it is no JWT"),
    "an end that is a text": (lambda p: p.token(exp="never"), "it is no JWT"),
    "for signing out": (
        lambda p: p.token(header={"typ": "logout+jwt"}),
        "type 'logout+jwt' is none that signs somebody in",
    ),
    "no name": (
        lambda p: p.token(preferred_username=None),
        "it has no claim 'preferred_username'",
    ),
    "a name that is none": (
        lambda p: p.token(preferred_username=["ada"]),
        "it has no claim 'preferred_username'",
    ),
    "an invisible name": (
        lambda p: p.token(preferred_username="\u200b \u202e"),
        "has nothing to show",
    ),
    "one part": (lambda _: "secret", "it is no JWT"),
    "many parts": (lambda _: "." * 5000, "it is no JWT"),
    "not JSON": (lambda _: f"{part(b'{')}.{part(b'{')}.AA", "it is no JWT"),
    "not Base64": (lambda _: "a.b.c", "it is no JWT"),
    "nested": (lambda _: f"{part(b'[' * 6000)}.AA.AA", "it is no JWT"),
    "a deep claim": (
        lambda _: ".".join([part({"alg": "ES256"}), part(b'{"x":' + b"[" * 6000), "AA"]),
        "it is no JWT",
    ),
    "a number beyond all": (with_a_number_beyond_all, "it has a claim that cannot be read"),
    "a large header": (
        lambda p: swapped(p, x="x" * 4000),
        "its signature does not count",
    ),
}


@pytest.mark.parametrize("what", BAD)
async def test_a_bad_token_opens_nothing_and_is_one_line_in_the_log(
    replica: Replica,
    provider: Provider,
    caplog: pytest.LogCaptureFixture,
    what: str,
) -> None:
    caplog.set_level(logging.DEBUG, "chat")
    if "secret" in what:
        provider.answers["/keys"] = jwks(RSA)
    forge, reason = BAD[what]
    token = forge(provider)
    server = await replica(provider.environment())
    answer = await get(server.port, MESSAGES, Authorization=f"Bearer {token}")
    assert answer.code == 401
    assert answer.headers["WWW-Authenticate"] == 'Bearer error="invalid_token"'
    assert "Location" not in answer.headers
    assert reason.replace("\\n", "\n") in json.loads(answer.body)["error"].replace("\\n", "\n")
    lines = [one.getMessage() for one in caplog.records if one.name == "chat.auth"]
    assert len(lines) == 1
    assert lines[0].startswith("refused a token: ")
    assert reason in lines[0]
    assert "\n" not in lines[0]
    for piece in token.split("."):
        assert len(piece) < 8 or piece not in caplog.text, "a token is in no log"
    status, headers = await refusal(server.port, Authorization=f"Bearer {token}")
    assert (status, headers.get("Location")) == (401, None)


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Forwarded-User": "ada", "X-Forwarded-Groups": "admin"},
        {"X-Auth-Request-User": "ada", "X-Auth-Request-Access-Token": "TOKEN"},
        {"Cookie": "access_token=TOKEN; __Host-chat_session=TOKEN"},
        {"Authorization": "Basic YWRhOmFkYQ=="},
        {"Authorization": "TOKEN"},
        {"Proxy-Authorization": "Bearer TOKEN"},
    ],
)
async def test_no_other_header_says_who_somebody_is(
    replica: Replica, provider: Provider, headers: dict[str, str]
) -> None:
    server = await replica(provider.environment(), CHAT_TRUSTED_PROXIES="127.0.0.0/8")
    token = provider.token()
    given = {name: value.replace("TOKEN", token) for name, value in headers.items()}
    assert (await get(server.port, MESSAGES, **given)).code == 401
    assert (await get(server.port, f"{MESSAGES}?access_token={token}")).code == 401
    assert (await refusal(server.port, **given))[0] == 401


async def test_two_tokens_are_none(replica: Replica, provider: Provider) -> None:
    server = await replica(provider.environment())
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    line = f"Authorization: Bearer {provider.token()}\r\n"
    head = f"GET {MESSAGES} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
    writer.write(f"{head}{line}{line}\r\n".encode())
    answer = await reader.read()
    assert answer.startswith(b"HTTP/1.1 401 ")
    assert b"several Authorization headers" in answer
    writer.close()


async def test_headers_of_somebody_in_300_groups_are_refused_with_the_limit(
    replica: Replica, provider: Provider
) -> None:
    server = await replica(provider.environment())
    token = provider.token(
        groups=[f"/company/department/team-{number:05}" for number in range(600)]
    )
    assert len(token) > 16_384
    answer = await get(server.port, MESSAGES, Authorization=f"Bearer {token}")
    assert answer.code == 431
    assert b"CHAT_HEADER_BYTES=16384" in answer.body
    status, _ = await refusal(server.port, Authorization=f"Bearer {token}")
    assert status == 431
    token = provider.token(
        groups=[f"/company/department/team-{number:05}" for number in range(200)]
    )
    assert (await get(server.port, MESSAGES, Authorization=f"Bearer {token}")).code == 200
