#!/usr/bin/python
"""Ansible module kafka_certificate: see DOCUMENTATION."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: kafka_certificate
short_description: Put a certificate in place, and have the running broker load it
description:
  - >-
    Writes a private key and its certificate into one file, as Kafka and ZooKeeper read them. First
    it tries the pair in a TLS handshake in memory, as server and as client. A pair that others
    would refuse is not written.
  - >-
    With C(reload), a running broker then loads the file, without a restart and without closing
    connections. The module ends when every listener serves the new certificate. It fails if the
    broker refuses it; the old file is then back in place, or none if there was none.
  - >-
    A broker does not load a certificate that has another subject, or lacks a name of the one that
    it serves. Nor does it load one when that has expired: its listener between brokers has the old
    and the new one prove themselves to each other first. Before it is started, it has no listener.
    In all these cases the file is written, and C(reloaded) is false.
  - >-
    With C(ca_content), it also writes what the services trust, before the certificate. A broker
    loads both files at once, so listeners that serve the new certificate also trust what is new.
  - >-
    A file that the broker has loaded gets the time of the file that it replaces, or 1970 if there
    was none: nothing that the process lacks is newer than it. Otherwise it has the present time,
    and the service has to be restarted.
  - It needs nothing but Python. Run it on the broker's host, as root.
options:
  content:
    description: >-
      Private key and certificate in PEM, then the certificates of the chain. Required, but for
      check mode, where it may not exist yet.
    type: str
    default: ""
  path:
    description: Where to keep it. Only C(owner) may read the file.
    type: path
    required: true
  owner:
    description: User that runs the service.
    type: str
    required: true
  ca_file:
    description: >-
      File with the CA certificates in PEM that the services trust. Without C(ca_content), it must
      be there already.
    type: path
    required: true
  ca_content:
    description: >-
      What C(ca_file) is to have. Everybody may read it. Give a new certificate with it: only the
      certificate shows that the broker has loaded both.
    type: str
  common_name:
    description: Common name that the certificate must have as its subject.
    type: str
    required: true
  names:
    description: Names and addresses that the certificate must have.
    type: list
    elements: str
    default: []
  reload:
    description: How to have the running broker load it. Without this, the module only writes it.
    type: dict
    suboptions:
      broker_id:
        description: Id of the broker.
        type: int
        required: true
      listeners:
        description: >-
          Listeners with TLS that use this file, as C(HOST:PORT) by Kafka's names. The addresses are
          reached from the broker's host.
        type: dict
        required: true
      admin_listener:
        description: >-
          The one of C(listeners) at which a client with this certificate is a super user.
        type: str
        required: true
  timeout:
    description: Seconds until every listener has to serve the certificate.
    type: int
    default: 30
attributes:
  check_mode:
    description: Tries the pair, if there is one, and tells whether the file would change.
    support: full
  diff_mode:
    description: The file has a private key.
    support: none
author:
  - baremetal-chat (!UNKNOWN)
"""

EXAMPLES = r"""
- name: Renew the broker's certificate
  baremetal_chat.platform.kafka_certificate:
    content: "{{ key ~ certificate ~ authority }}"
    path: /etc/kafka/host.pem
    owner: kafka
    ca_file: /etc/kafka/ca.pem
    ca_content: "{{ authority }}"
    common_name: kafka
    names: [192.0.2.11]
    reload:
      broker_id: 1
      listeners: {CLIENT_TLS: "192.0.2.11:9092", CLUSTER_TLS: "192.0.2.11:9093"}
      admin_listener: CLIENT_TLS
  no_log: true
"""

RETURN = r"""
serial:
  description: Serial number of the certificate, in hexadecimal.
  returned: success, if there is content
  type: str
  sample: 5F3A0C
not_after:
  description: When the certificate ends, in seconds since 1970.
  returned: success, if there is content
  type: int
  sample: 1900000000
reloaded:
  description: Whether the running broker serves it. If not, the service loads it as it starts.
  returned: success
  type: bool
  sample: true
restart_because:
  description: Why a running broker cannot load it without a restart. Empty if it can.
  returned: success
  type: str
  sample: ""
"""

import contextlib
import glob
import ipaddress
import os
import pwd
import shutil
import socket
import ssl
import struct
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from ansible.module_utils.basic import AnsibleModule

# Of Kafka's protocol: IncrementalAlterConfigs, version 0; the kind of resource; the operation.
ALTER_CONFIGS = 44
BROKER = 4
DELETE = 1
# An answer is far smaller. A server that sends more is not Kafka.
ANSWER_BYTES = 65_536
# Seconds for a connection, or an answer, on the same host. It took 6 s on a host with a load of 25.
ANSWER_SECONDS = 30
# Rounds after which two sides that talk in memory have finished; TLS needs three.
ROUNDS = 10


class Certificate(NamedTuple):
    """What peers see of a certificate; `der` is the whole of it."""

    der: bytes
    serial: str
    subject: tuple[Any, ...]
    names: frozenset[str]
    not_after: int

    @classmethod
    def of_peer(cls, side: ssl.SSLObject | ssl.SSLSocket) -> Certificate:
        """The certificate that the other side has shown, and that was verified."""
        shown = side.getpeercert()
        return cls(
            side.getpeercert(binary_form=True),
            shown["serialNumber"],
            shown["subject"],
            frozenset(normal(name) for _, name in shown.get("subjectAltName", ())),
            int(ssl.cert_time_to_seconds(shown["notAfter"])),
        )


class RefusedError(Exception):
    """The text says what is wrong with the new certificate, or why the broker does not load it."""


def normal(name: str) -> str:
    """A name or address in one form: OpenSSL writes addresses of IPv6 in full."""
    try:
        return ipaddress.ip_address(name).compressed
    except ValueError:
        return name.lower()


def spelt(subject: tuple[Any, ...]) -> str:
    """A subject as people write it: CN=kafka."""
    parts = [part for parts in subject for part in parts]
    return ",".join(f"{'CN' if key == 'commonName' else key}={value}" for key, value in parts)


# --- the new certificate ----------------------------------------------------------------------


def context(purpose: ssl.Purpose, pair: str, ca: str) -> ssl.SSLContext:
    """A side that shows `pair`, a file, and trusts only `ca`, CA certificates in PEM. Addresses are
    not compared.
    """
    made = ssl.create_default_context(purpose, cadata=ca)
    made.check_hostname = False
    made.verify_mode = ssl.CERT_REQUIRED
    # An empty passphrase, so that nobody is asked for one on the terminal.
    made.load_cert_chain(pair, password="")
    return made


def authorities(ca_file: str, ca_content: str | None) -> str:
    """What the services are to trust."""
    try:
        ca = Path(ca_file).read_text() if ca_content is None else ca_content
    except OSError as error:
        raise RefusedError(f"'{ca_file}' cannot be read: {error.strerror}") from None
    # Python would trust the system's CAs instead.
    if "-----BEGIN CERTIFICATE-----" not in ca:
        raise RefusedError(f"there is no CA certificate for '{ca_file}'")
    return ca


def tried(pair: str, ca: str, ca_file: str) -> Certificate:
    """The certificate in `pair`, after a handshake in which both sides have shown it."""
    try:
        client = context(ssl.Purpose.SERVER_AUTH, pair, ca)
        server = context(ssl.Purpose.CLIENT_AUTH, pair, ca)
        to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
        sides = [
            client.wrap_bio(to_client, to_server),
            server.wrap_bio(to_server, to_client, server_side=True),
        ]
        pending = list(sides)
        for _ in range(ROUNDS):
            for side in list(pending):
                with contextlib.suppress(ssl.SSLWantReadError):
                    side.do_handshake()
                    pending.remove(side)
        return Certificate.of_peer(sides[0])
    except ssl.SSLCertVerificationError as error:
        raise RefusedError(f"with '{ca_file}' as its CA: {error.verify_message}") from None
    except ssl.SSLError as error:
        # KEY_VALUES_MISMATCH, or the text is no PEM.
        raise RefusedError(f"its key and certificate do not work: {error.reason}") from None
    except ValueError as error:
        raise RefusedError(f"its key and certificate do not work: {error}") from None


def check(new: Certificate, common_name: str, names: list[str]) -> None:
    """Raise RefusedError if the certificate is not the one that is wanted."""
    subject = ((("commonName", common_name),),)
    if new.subject != subject:
        raise RefusedError(f"its subject is {spelt(new.subject)}, and has to be {spelt(subject)}")
    lacking = sorted({normal(name) for name in names} - new.names)
    if lacking:
        raise RefusedError(f"it is not for {', '.join(lacking)}")


# --- the broker -------------------------------------------------------------------------------


@contextlib.contextmanager
def connected(server: str, client: ssl.SSLContext) -> Iterator[ssl.SSLSocket]:
    """A connection to HOST:PORT; raises OSError."""
    host, _, port = server.rpartition(":")
    with (
        socket.create_connection((host.strip("[]"), int(port)), ANSWER_SECONDS) as plain,
        client.wrap_socket(plain) as secured,
    ):
        yield secured


class Broker:
    """A running broker, as the host sees it."""

    def __init__(self, reload: dict[str, Any], pair: str, ca: str) -> None:
        self._id: int = reload["broker_id"]
        self._listeners: dict[str, str] = reload["listeners"]
        self._admin: str = reload["admin_listener"]
        self._client = context(ssl.Purpose.SERVER_AUTH, pair, ca)

    def served(self, name: str) -> Certificate:
        """What a listener serves; raises OSError."""
        with connected(self._listeners[name], self._client) as connection:
            return Certificate.of_peer(connection)

    def obstacle(self, new: Certificate) -> str:
        """Why the running broker cannot load the certificate; empty if it can."""
        for name, server in self._listeners.items():
            try:
                served = self.served(name)
            except OSError as error:
                why = getattr(error, "verify_message", "") or getattr(error, "reason", "")
                return f"{name} ({server}) serves no certificate that is valid: {why or error}"
            if served.subject != new.subject:
                return f"{name} ({server}) serves the subject {spelt(served.subject)}"
            lost = sorted(served.names - new.names)
            if lost:
                return f"{name} ({server}) serves a certificate that is also for {', '.join(lost)}"
        return ""

    def others(self, new: Certificate) -> dict[str, str]:
        """What listeners serve that do not serve the certificate."""
        found = {}
        for name in self._listeners:
            try:
                served = self.served(name)
            except OSError as error:
                found[name] = f"no certificate ({error})"
                continue
            if served.der != new.der:
                found[name] = f"serial {served.serial}"
        return found

    def shown(self, others: dict[str, str]) -> str:
        return ", ".join(
            f"{name} ({self._listeners[name]}) serves {what}" for name, what in others.items()
        )

    def reload(self) -> None:
        """Have the broker load files that changed. Raises RefusedError, or OSError.

        Nothing watches the files. Any request that alters the configuration of this very broker
        makes it look at them, one that deletes settings that are not there, too. So the request
        leaves nothing behind; a setting that somebody made, and that would keep a listener from the
        file, it removes.
        """
        keys = [f"listener.name.{name.lower()}.ssl.keystore.location" for name in self._listeners]
        frame = b"".join(
            [
                # Number of the request; who asks.
                struct.pack(">hhi", ALTER_CONFIGS, 0, 1) + text("ansible"),
                struct.pack(">ib", 1, BROKER) + text(str(self._id)),
                struct.pack(">i", len(keys)),
                *(text(key) + struct.pack(">bh", DELETE, -1) for key in keys),
                # Not only a trial.
                b"\0",
            ]
        )
        with connected(self._listeners[self._admin], self._client) as connection:
            connection.sendall(struct.pack(">i", len(frame)) + frame)
            with connection.makefile("rb") as stream:
                (length,) = struct.unpack(">i", exactly(stream, 4))
                if not 0 < length <= ANSWER_BYTES:
                    raise OSError("does not answer as Kafka does")
                answer = exactly(stream, length)
        try:
            # Number of the request, throttling, how many results; of the first, error and message.
            _, _, _, code, size = struct.unpack_from(">iiihh", answer)
        except struct.error:
            raise OSError("does not answer as Kafka does") from None
        if code:
            message = answer[16 : 16 + max(size, 0)].decode(errors="replace")
            raise RefusedError(f"answers with Kafka's error {code}: {message or 'no reason given'}")


def text(string: str) -> bytes:
    """A string as Kafka's protocol has it."""
    raw = string.encode()
    return struct.pack(">h", len(raw)) + raw


def exactly(stream: Any, length: int) -> bytes:
    """So many bytes; raises OSError if the server sends fewer."""
    read: bytes = stream.read(length)
    if len(read) < length:
        raise OSError("closed the connection without an answer")
    return read


# --- the file ---------------------------------------------------------------------------------


class Store:
    """A file, as it was and as it is to be."""

    def __init__(self, path: str, content: str, *, owner: str | None = None) -> None:
        self._path = Path(path)
        # Without an owner, everybody may read it.
        self._owner = owner
        self._content = content.encode()
        # Of the files that become it. They hold the key, too.
        self._prefix = f".{self._path.name}.new-"
        self.before: bytes | None = None
        # Of a file that is missing: older than any process.
        self._times = (0, 0)
        with contextlib.suppress(FileNotFoundError):
            self.before = self._path.read_bytes()
            status = self._path.stat()
            self._times = (status.st_atime_ns, status.st_mtime_ns)

    @property
    def differs(self) -> bool:
        """Whether the file was another before."""
        return self.before != self._content

    def sweep(self) -> None:
        """Remove what earlier runs left that were killed while they wrote."""
        for left in self._path.parent.glob(f"{glob.escape(self._prefix)}*"):
            left.unlink()

    def write(self) -> None:
        """Make it what it is to be."""
        self._replace(self._content)

    def _replace(self, content: bytes) -> None:
        """At any time, all of the file is there, and nobody reads it who may not."""
        descriptor, name = tempfile.mkstemp(dir=self._path.parent, prefix=self._prefix)
        temporary = Path(name)
        try:
            with open(descriptor, "wb") as file:  # noqa: PTH123
                file.write(content)
                os.fsync(file.fileno())
            if self._owner is None:
                temporary.chmod(0o644)
            else:
                shutil.chown(temporary, self._owner)
            temporary.replace(self._path)
        except BaseException:
            temporary.unlink()
            raise

    def keep_times(self) -> None:
        """As if the file had not changed."""
        os.utime(self._path, ns=self._times)

    def restore(self) -> None:
        """As it was before, also if it was not there."""
        if self.before is None:
            self._path.unlink()
        else:
            self._replace(self.before)
            self.keep_times()


def load(module: AnsibleModule, broker: Broker, stores: list[Store], new: Certificate) -> None:
    """Return when every listener serves the last of the files, or fail the module."""
    seconds: int = module.params["timeout"]
    why = f"does not serve it everywhere after {seconds} s"
    deadline = time.monotonic() + seconds
    refused = False
    try:
        broker.reload()
    except RefusedError as error:
        refused, why = True, str(error)
    except OSError as error:
        # It may have loaded the file all the same, or do so later.
        why = f"did not answer ({error})"
    while (others := broker.others(new)) and not refused and time.monotonic() < deadline:
        time.sleep(0.2)
    if not others and not refused:
        for store in stores:
            store.keep_times()
        return
    path = module.params["path"]
    # All listeners are as they were.
    if refused and len(others) in (0, len(module.params["reload"]["listeners"])):
        for store in stores:
            store.restore()
        back = (
            f"'{path}' did not exist before, and is removed again"
            if stores[-1].before is None
            else f"The old file is back in '{path}'"
        )
        end = f"{back}. If a restart is acceptable, stop the broker, and run the playbook again"
    else:
        end = f"The new one is in '{path}': run the playbook again, which restarts the broker"
    shown = broker.shown(others) or "Every listener serves it from memory"
    module.fail_json(
        msg=f"The broker does not load the new certificate, serial {new.serial}: it {why}."
        f" {shown}. See the broker's log. {end}"
    )


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "content": {"type": "str", "default": "", "no_log": True},
            "path": {"type": "path", "required": True},
            "owner": {"type": "str", "required": True},
            "ca_file": {"type": "path", "required": True},
            "ca_content": {"type": "str"},
            "common_name": {"type": "str", "required": True},
            "names": {"type": "list", "elements": "str", "default": []},
            "reload": {
                "type": "dict",
                "options": {
                    "broker_id": {"type": "int", "required": True},
                    "listeners": {"type": "dict", "required": True},
                    "admin_listener": {"type": "str", "required": True},
                },
            },
            "timeout": {"type": "int", "default": 30},
        },
        supports_check_mode=True,
    )
    params = module.params
    content = params["content"]
    if module.check_mode and not content:
        module.exit_json(changed=True, reloaded=False, restart_because="")
    if not content:
        module.fail_json(msg="content is empty: give a private key and its certificate")
    try:
        pwd.getpwnam(params["owner"])
    except KeyError:
        module.fail_json(msg=f"owner='{params['owner']}' is no user of this host: give one")
    if (reload := params["reload"]) and reload["admin_listener"] not in reload["listeners"]:
        module.fail_json(
            msg=f"admin_listener='{reload['admin_listener']}' is none of the listeners"
            f" {', '.join(reload['listeners'])}: give one of them"
        )
    # What is trusted comes first, also for whoever reads the files between the two.
    stores = [Store(params["path"], content, owner=params["owner"])]
    if params["ca_content"] is not None:
        stores.insert(0, Store(params["ca_file"], params["ca_content"]))
    if not module.check_mode:
        for store in stores:
            store.sweep()
    obstacle = ""
    with tempfile.NamedTemporaryFile(dir=module.tmpdir) as pair:
        pair.write(content.encode())
        pair.flush()
        try:
            ca = authorities(params["ca_file"], params["ca_content"])
            new = tried(pair.name, ca, params["ca_file"])
            check(new, params["common_name"], params["names"])
        except RefusedError as error:
            module.fail_json(
                msg=f"The new certificate is refused: {error}. '{params['path']}' stays as it is"
            )
        if reload:
            broker = Broker(reload, pair.name, ca)
            obstacle = broker.obstacle(new)
    loads = bool(reload) and not obstacle
    writes = any(store.differs for store in stores)
    # A changed file may have other certificates of the chain, which listeners do not tell.
    lags = loads and (writes or bool(broker.others(new)))
    if not module.check_mode:
        if writes:
            for store in stores:
                if store.differs:
                    store.write()
        if lags:
            load(module, broker, stores, new)
    module.exit_json(
        changed=writes or lags,
        serial=new.serial,
        not_after=new.not_after,
        reloaded=loads and not module.check_mode,
        restart_because=obstacle,
    )


if __name__ == "__main__":
    main()
