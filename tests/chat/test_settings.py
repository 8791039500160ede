from __future__ import annotations

import socket

import pytest

from chat.settings import SettingsError, load


def test_without_an_environment_it_is_one_process_with_its_host_s_name() -> None:
    settings = load({})
    assert not settings.kafka_enabled
    assert (settings.port, settings.internal_port) == (8080, 9090)
    assert settings.replica == socket.gethostname()


def test_an_empty_variable_is_an_unset_one() -> None:
    assert load({"CHAT_PORT": "", "CHAT_REPLICA": " "}) == load({})


@pytest.mark.parametrize("text", ["true", "True", "yes", "on", "1"])
def test_yes_is_written_in_several_ways(text: str) -> None:
    assert load({"KAFKA_ENABLED": text, "KAFKA_BOOTSTRAP_SERVERS": "a:1"}).kafka_enabled


def test_lists_are_separated_by_commas() -> None:
    settings = load(
        {
            "KAFKA_BOOTSTRAP_SERVERS": "10.0.0.1:9092, kafka-2:9092,[fd00::1]:9092",
            "CHAT_ALLOWED_ORIGINS": "https://a.example,http://b.example:8080",
        }
    )
    assert settings.kafka_bootstrap_servers == ("10.0.0.1:9092", "kafka-2:9092", "[fd00::1]:9092")
    assert settings.allowed_origins == ("https://a.example", "http://b.example:8080")


@pytest.mark.parametrize(
    ("variable", "value", "remedy"),
    [
        ("KAFKA_ENABLED", "maybe", "say true or false"),
        ("KAFKA_BOOTSTRAP_SERVERS", "kafka", "give HOST:PORT"),
        ("KAFKA_TOPIC", "no spaces", "letters, digits"),
        ("KAFKA_SIGNAL_TOPIC", "chat", "another topic than"),
        ("KAFKA_REVOCATION_TOPIC", "chat-signals", "another topic than"),
        ("KAFKA_IN_FLIGHT", "0", "from 1 to"),
        ("KAFKA_DELIVERY_SECONDS", "soon", "give seconds from 1 to 300"),
        ("CHAT_PORT", "65536", "from 0 to 65535"),
        ("CHAT_PORT", "eighty", "a whole number"),
        ("CHAT_INTERNAL_PORT", "8080", "another port"),
        ("CHAT_ADDRESS", "not an address", "give an IP address"),
        ("CHAT_REPLICA", "a b", "give a host name"),
        ("CHAT_ALLOWED_ORIGINS", "chat.example", "give origins"),
        ("CHAT_ALLOWED_ORIGINS", "https://chat.example/path", "without a path"),
        ("CHAT_AUTH_SIGN_IN_URL", "//evil.example/", "give a path such as"),
        ("CHAT_AUTH_SIGN_IN_URL", "/\\evil.example/", "give a path such as"),
        ("CHAT_AUTH_SIGN_IN_URL", "http://id.example.org/", "an address such as https"),
        ("CHAT_AUTH_SIGN_IN_URL", "javascript:alert(1)", "give a path such as"),
        ("CHAT_AUTH_SIGN_IN_URL", "/oauth2/start", "with CHAT_AUTH=required"),
        ("CHAT_AUTH_SIGN_OUT_URL", "https://id.example.org", "https://id.example.org/logout"),
        ("CHAT_LOG_LEVEL", "loud", "say debug"),
        ("CHAT_FRAME_BYTES", "4096", "give at least 17408"),
        ("CHAT_HELLO_SECONDS", "nan", "give seconds"),
        ("CHAT_PING_SECONDS", "-1", "give seconds"),
        ("CHAT_WINDOW", "1e3", "a whole number"),
    ],
)
def test_a_value_that_cannot_work_is_named_with_a_remedy(
    variable: str, value: str, remedy: str
) -> None:
    with pytest.raises(SettingsError) as refused:
        load({variable: value})
    assert str(refused.value).startswith(f"{variable}={value!r}: ")
    assert remedy in str(refused.value)
    assert "\n" not in str(refused.value)


def test_the_longest_text_may_wait_for_kafka() -> None:
    given = {"CHAT_TEXT_BYTES": "100000", "CHAT_FRAME_BYTES": "300000"}
    load(given | {"KAFKA_IN_FLIGHT_BYTES": "210000"})
    with pytest.raises(SettingsError, match=r"^KAFKA_IN_FLIGHT_BYTES='200000': give at least"):
        load(given | {"KAFKA_IN_FLIGHT_BYTES": "200000"})


def test_kafka_needs_to_know_where_it_is() -> None:
    with pytest.raises(SettingsError, match=r"^KAFKA_BOOTSTRAP_SERVERS='': .* give HOST:PORT"):
        load({"KAFKA_ENABLED": "true"})
