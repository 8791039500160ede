"""Java reads from a properties file exactly the values of the inventory.

How values are to be written: https://docs.oracle.com/javase/8/docs/api/java/util/Properties.html
"""

import pytest


@pytest.fixture(scope="session")
def java_properties(load_filter):
    return load_filter("java_properties")


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("PLAIN", "PLAIN"),
        (86400000, "86400000"),
        (True, "true"),
        ("true", "true"),
        (None, ""),
        (["SCRAM-SHA-512", "PLAIN"], "SCRAM-SHA-512,PLAIN"),
        ([True, 1], "true,1"),
        ('X required password="correct horse";', 'X required password="correct horse";'),
        (r"RULE:[1:$1](.*@A)s/\..*//", r"RULE:[1:$1](.*@A)s/\\..*//"),
        (r'password="\"x"', r'password="\\"x"'),
        ("-----BEGIN\nMII\n-----END", r"-----BEGIN\nMII\n-----END"),
        ("  blanks", r"\  blanks"),
        ("Grüße \N{GRINNING FACE}", r"Gr\u00fc\u00dfe \ud83d\ude00"),
    ],
)
def test_values_are_escaped_for_java(java_properties, value, written):
    assert java_properties({"name": value}) == f"name={written}\n"


def test_settings_are_sorted_by_name(java_properties):
    assert java_properties({"b": 2, "C": 3, "a": 1}) == "a=1\nb=2\nC=3\n"
