"""systemd reads from a unit exactly the values of the inventory: see systemd.syntax(7)."""

import pytest


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("-Da=b -Dc=d", "-Da=b -Dc=d"),
        ("-XX:ErrorFile=/x/hs_%p.log", "-XX:ErrorFile=/x/hs_%%p.log"),
        (r"-Dpattern=\d+", r"-Dpattern=\\d+"),
        ('-Dname="x"', r"-Dname=\"x\""),
        ("-Da=b\n-Dc=d", r"-Da=b\n-Dc=d"),
    ],
)
def test_values_are_escaped_for_systemd(load_filter, text, written):
    assert load_filter("systemd_escaped")(text) == written
