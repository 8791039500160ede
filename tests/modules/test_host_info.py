"""host_info reports what would prevent a service from starting, and nothing else."""

import errno
import os
import socket
import types

import pytest


@pytest.fixture
def listener():
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_entries_and_free_space_of_a_directory_are_reported(run_module, tmp_path):
    for name in ("foreign", ".hidden", "lost+found"):
        (tmp_path / name).mkdir()
    later = str(tmp_path / "not" / "yet")
    seen = run_module("host_info", unit="kafka", directories=[str(tmp_path), later])["directories"]
    assert seen[str(tmp_path)]["entries"] == ["foreign"]
    assert seen[later]["entries"] == []
    assert seen[later]["free_mb"] == seen[str(tmp_path)]["free_mb"] > 0


def test_a_failing_disk_is_distinguished_from_a_missing_directory(
    run_module, monkeypatch, tmp_path
):
    there, gone, failing = (str(tmp_path / name) for name in ("there", "gone", "failing"))
    for name in ("there", "failing"):
        (tmp_path / name).mkdir()

    def fails(path, *rest):
        if str(path).startswith(failing):
            raise OSError(errno.EIO, "Input/output error")
        return real(path, *rest)

    real = os.statvfs
    monkeypatch.setattr("os.statvfs", fails)
    directories = run_module("host_info", unit="kafka", directories=[there, gone, failing])
    seen = directories["directories"]
    assert [seen[path]["exists"] for path in (there, gone, failing)] == [True, False, True]
    assert [seen[path]["unreadable"] for path in (there, gone)] == ["", ""]
    assert seen[failing]["unreadable"] == "Input/output error"
    assert seen[failing]["free_mb"] == 0


def test_a_mount_point_is_distinguished_from_directories_below_it(run_module):
    seen = run_module("host_info", unit="kafka", directories=["/proc", "/proc/self"])["directories"]
    assert seen["/proc"]["mount_point"]
    assert not seen["/proc/self"]["mount_point"]


@pytest.mark.parametrize(
    ("path", "kept"),
    [
        ("/var/lib/kafka", False),
        ("/homes/kafka", False),
        ("/home/kafka", True),
        ("/tmp", True),
        ("/srv/../root/kafka", True),
        # Symlinks are resolved. /var/run is one.
        ("/var/run/user/kafka", True),
        ("kafka/data", True),
        ("~/kafka", True),
        ("", True),
    ],
)
def test_directories_that_a_confined_unit_cannot_see_are_reported(run_module, path, kept):
    seen = run_module("host_info", unit="kafka", directories=[path])["directories"]
    assert seen[path]["kept_from_units"] is kept


def test_existing_files_are_read_and_missing_ones_are_left_out(run_module, tmp_path):
    (tmp_path / "myid").write_text("1\n")
    there, gone = str(tmp_path / "myid"), str(tmp_path / "gone")
    assert run_module("host_info", unit="kafka", files=[there, gone])["files"] == {there: "1\n"}


def test_the_process_on_a_port_is_named(run_module, listener):
    answer = run_module("host_info", unit="kafka.service", ports=[listener, 1])
    assert list(answer["taken"]) == [str(listener)]
    assert f"pid {os.getpid()}" in answer["taken"][str(listener)]


@pytest.mark.parametrize(("kernel_says", "in_step"), [(0, True), (5, False)])
def test_a_synchronised_clock_is_distinguished_from_an_unsynchronised_one(
    run_module, monkeypatch, kernel_says, in_step
):
    libc = types.SimpleNamespace(adjtimex=lambda _: kernel_says)
    monkeypatch.setattr("ctypes.CDLL", lambda _: libc)
    assert run_module("host_info", unit="kafka")["clock_synchronised"] is in_step


def test_a_peer_that_accepts_or_refuses_a_connection_is_reachable(run_module, listener):
    answer = run_module(
        "host_info", unit="kafka", peers=[f"127.0.0.1:{listener}", "127.0.0.1:1"], timeout=1
    )
    assert answer["obstacles"] == {}


def test_a_peer_whose_name_does_not_resolve_is_an_obstacle(run_module):
    peer = "broker.invalid:9092"
    assert list(run_module("host_info", unit="kafka", peers=[peer])["obstacles"]) == [peer]
