"""Secrets are masked, and everything else is shown."""

import pytest

KEY = "MIIEvQIBADANBgkqhkiG9w0BAQEF"


@pytest.fixture(scope="session")
def masked(load_filter):
    return load_filter("masked")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("ssl.keystore.password=correct horse", "ssl.keystore.password=********"),
        ("ssl.truststore.password = hunter2", "ssl.truststore.password = ********"),
        ("a.password=,hunter2", "a.password=********"),
        ("-Djavax.net.ssl.keyStorePassword=hunter2 -Dx=y", None),
        ('x.sasl.jaas.config=Y required password="hunter2";', "x.sasl.jaas.config=********"),
        ('  user_alice="hunter2"', "  user_alice=********"),
        ('"token": "hunter2"}', '"token": ********'),
        ("sasl.jaas.config=X required \\\n  name \\\n  hunter2;\nnext=1", None),
        (f"ssl.keystore.key=-----BEGIN PRIVATE KEY-----\\n{KEY}", "ssl.keystore.key=********"),
        (f"-----BEGIN PRIVATE KEY-----\n{KEY}\n-----END PRIVATE KEY-----\nnext=1", None),
        (f"-----BEGIN RSA PRIVATE KEY-----\n{KEY}\n", None),
        ("superDigest=super:hunter2", "superDigest=********"),
    ],
)
def test_a_secret_is_masked(masked, text, shown):
    result = masked(text)
    assert "hunter2" not in result
    assert KEY not in result
    assert "********" in result
    assert shown in (None, result)
    assert text.endswith("next=1") == result.endswith("next=1")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "broker.id=1\nlisteners=CLIENT://0.0.0.0:9092\n",
        "password=\nbroker.id=1",
        "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n",
        "listener.name.cluster.ssl.keystore.location=/etc/kafka/broker.pem",
    ],
)
def test_text_without_secrets_is_not_changed(masked, text):
    assert masked(text) == text
