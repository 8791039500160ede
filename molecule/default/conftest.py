"""What the tests of this scenario share: trust in the chat's own authority."""

import pytest
from hosts import CA_FILE


@pytest.fixture(autouse=True)
def trust(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients in Python trust it, as those of people who have its certificate."""
    monkeypatch.setenv("SSL_CERT_FILE", str(CA_FILE))
