"""Shared by the tests of this scenario: trust in the chat's own authority."""

import pytest
from hosts import CA_FILE


@pytest.fixture(autouse=True)
def trust(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python clients trust the authority, like those of people who installed its certificate."""
    monkeypatch.setenv("SSL_CERT_FILE", str(CA_FILE))
