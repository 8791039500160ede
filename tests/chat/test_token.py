"""Tokens for programs, from the command line: issued, listed, revoked."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from conftest import Replica

from chat.client import DisconnectedError, Room, connect
from chat.token import main

ROOMS = [{"rooms": "ops", "write": ["/ops"]}, {"rooms": "*"}]


@pytest.fixture
def key(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    key = tmp_path / "bots.key"
    assert main(["key", str(key)]) == 0
    (tmp_path / "bots.json").write_text(capsys.readouterr().out)
    return key


def environment(key: Path) -> dict[str, str]:
    public = str(key.with_suffix(".json"))
    issuer = {"issuer": "bots", "audience": "chat", "jwks": public, "groups_claim": "groups"}
    return {
        "CHAT_AUTH": "required",
        "CHAT_AUTH_ISSUERS": json.dumps([issuer]),
        "CHAT_ROOMS": json.dumps(ROOMS),
    }


def issued(capsys: pytest.CaptureFixture[str], key: Path, *arguments: str) -> str:
    assert main(["issue", str(key), *arguments]) == 0
    return capsys.readouterr().out.strip()


def listed(capsys: pytest.CaptureFixture[str], key: Path) -> dict[str, str]:
    """The rest of each line, by id."""
    assert main(["list", str(key)]) == 0
    return dict(line.split("  ", 1) for line in capsys.readouterr().out.splitlines())


async def left(room: Room) -> None:
    async for _ in room:
        pass


async def test_a_program_has_its_name_and_groups_until_its_token_is_revoked(
    replica: Replica, key: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server = await replica(environment(key))
    url = f"http://127.0.0.1:{server.port}/"
    first = issued(capsys, key, "backup", "--group", "/ops")
    second = issued(capsys, key, "backup")
    (identity, told), (_, plain) = listed(capsys, key).items()
    assert told.startswith("backup  /ops  until ")
    assert plain.startswith("backup  -  until ")
    assert first not in key.with_name("bots.key.issued").read_text()
    async with connect(url, token=first) as one, connect(url, token=second) as other:
        assert one.user == other.user == "backup"
        assert one.author == other.author
        await one.send("ops", "done")
        reading = other.room("ops")
        await reading.joined()
        assert reading.read_only

        assert await asyncio.to_thread(main, ["revoke", str(key), identity, url]) == 0
        with pytest.raises(DisconnectedError, match="4403"):
            await asyncio.wait_for(left(one.room("ops")), 5)
        await other.send("lobby", "still here")
    with pytest.raises(DisconnectedError, match="401"):
        async with connect(url, token=first):
            pass
    assert listed(capsys, key)[identity].split("  ")[-1].startswith("revoked ")


def test_the_key_is_its_owner_s_alone_and_is_not_replaced(
    key: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert key.stat().st_mode & 0o777 == 0o600
    before = key.read_text()
    assert '"d"' in before
    assert main(["key", str(key)]) == 1
    assert "tokens of that key would count no more" in capsys.readouterr().err
    assert key.read_text() == before
    assert main(["public", str(key)]) == 0
    public = capsys.readouterr().out
    assert json.loads(public) == json.loads(key.with_suffix(".json").read_text())
    assert '"d"' not in public


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["issue", "no.key", "backup"], "no.key: No such file or directory: make it with `key`"),
        (["issue", "bots.json", "backup"], "bots.json is no key of `python -m chat.token key`"),
        (["revoke", "bots.key", "abc", "http://127.0.0.1:1/"], "abc was not issued with bots.key"),
        (["issue", "bots.key", "a b"], "'a b': give 1 to 32 of A-Z a-z 0-9 . _ -"),
        (["issue", "bots.key", "backup", "--hours", "nan"], "'nan': give a number of hours up to"),
        (["issue", "bots.key", "backup", "--hours", "9999"], "'9999': give a number of hours up"),
    ],
    ids=lambda given: given[0] if isinstance(given, list) else "",
)
def test_what_cannot_be_is_refused_with_the_remedy(
    key: Path,
    arguments: list[str],
    said: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(key.parent)
    try:
        code = main(arguments)
    except SystemExit as end:
        code = int(end.code or 0)
    assert code in (1, 2)
    assert said in capsys.readouterr().err
    assert not key.with_name("bots.key.issued").exists()


def test_a_chat_that_does_not_take_the_token_revokes_nothing(
    key: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    issued(capsys, key, "backup")
    (identity,) = listed(capsys, key)
    assert main(["revoke", str(key), identity, "http://127.0.0.1:1/"]) == 1
    assert "http://127.0.0.1:1/: " in capsys.readouterr().err
    assert listed(capsys, key)[identity].endswith("counts")
