"""A real Kafka broker with TLS, passwords and ACLs, and the certificates that it needs.

It denies what no ACL allows. Its plaintext listener, of a super user, is for tests to set it up; a
listener each shows what may go wrong between a client and a broker.
"""

from __future__ import annotations

import datetime
import ipaddress
import shutil
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from kafka import KafkaAdminClient
from kafka.admin import (
    ACL,
    ACLOperation,
    ACLPermissionType,
    ResourcePattern,
    ResourceType,
    UserScramCredentialUpsertion,
)
from kafka_broker import ALONE, KafkaBroker, free_port

SCRAM = "org.apache.kafka.common.security.scram.ScramLoginModule required;"
PASSWORD = "correct horse"


class Authority:
    """A CA in `folder`. Its certificates, and the keys, are files in PEM."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        self._name = name
        self._key = ec.generate_private_key(ec.SECP256R1())
        self.file = folder / f"{name}.ca.crt"
        itself = self._certificate(name, self._key.public_key(), days=2, authority=True)
        self.file.write_bytes(itself.public_bytes(serialization.Encoding.PEM))

    def issue(
        self, name: str, *, address: str = "127.0.0.1", also: str = "", days: float = 1
    ) -> tuple[Path, Path]:
        """A certificate for an address, and `also` for a name, that is valid for so many days, and
        its key.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        names: list[x509.GeneralName] = [x509.IPAddress(ipaddress.ip_address(address))]
        names += [x509.DNSName(also)] if also else []
        certificate = self._certificate(name, key.public_key(), days=days, names=names)
        files = self._folder / f"{name}.crt", self._folder / f"{name}.key"
        files[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        files[1].write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return files

    def keystore(self, name: str, *, address: str = "127.0.0.1", days: float = 1) -> Path:
        """One file with the key and the certificate, as Kafka wants it."""
        certificate, key = self.issue(name, address=address, days=days)
        store = self._folder / f"{name}.pem"
        store.write_bytes(key.read_bytes() + certificate.read_bytes())
        return store

    def _certificate(
        self,
        name: str,
        key: ec.EllipticCurvePublicKey,
        *,
        days: float,
        names: Sequence[x509.GeneralName] = (),
        authority: bool = False,
    ) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, self._name)]))
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=30))
            .not_valid_after(now + datetime.timedelta(days=days))
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        )
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return builder.sign(self._key, hashes.SHA256())


class SecuredBroker:
    """`servers` are its listeners' addresses:

    - `PLAINTEXT`, whose clients may do everything;
    - `SASL_SSL`, as the chat would use it, with SCRAM-SHA-512 only; `SASL_PLAINTEXT`, the same
      without TLS;
    - `SSL`, and `MUTUAL`, which demands a client's certificate;
    - `EXPIRED` and `ELSEWHERE`, with certificates that have expired and are for another address;
    - `APART`, with the certificate that the first ones have, in a file of its own.

    `store` is the key and certificate of the first ones.
    """

    def __init__(self, home: Path, folder: Path) -> None:
        self.authority = Authority(folder, "authority")
        protocols = {
            "SASL_SSL": "SASL_SSL",
            "SASL_PLAINTEXT": "SASL_PLAINTEXT",
            "SSL": "SSL",
            "MUTUAL": "SSL",
            "EXPIRED": "SSL",
            "ELSEWHERE": "SSL",
            "APART": "SSL",
        }
        self.store = self.authority.keystore("broker")
        self.servers = {name: f"127.0.0.1:{free_port()}" for name in protocols}
        stores = {
            "expired": self.authority.keystore("expired", days=-1),
            "elsewhere": self.authority.keystore("elsewhere", address="127.0.0.2"),
            "apart": Path(shutil.copy(self.store, folder / "apart.pem")),
        }
        mapped = {"PLAINTEXT": "PLAINTEXT"} | protocols
        settings = {
            "listener.security.protocol.map": ",".join(":".join(one) for one in mapped.items()),
            "sasl.enabled.mechanisms": "SCRAM-SHA-512",
            **{
                f"listener.name.{listener}.scram-sha-512.sasl.jaas.config": SCRAM
                for listener in ("sasl_ssl", "sasl_plaintext")
            },
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": str(self.store),
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": str(self.authority.file),
            "listener.name.mutual.ssl.client.auth": "required",
            **{
                f"listener.name.{listener}.ssl.keystore.{key}": value
                for listener, store in stores.items()
                for key, value in (("type", "PEM"), ("location", str(store)))
            },
            "authorizer.class.name": "kafka.security.authorizer.AclAuthorizer",
            "super.users": "User:ANONYMOUS;User:admin;User:CN=broker",
        }
        self.broker = KafkaBroker(
            home,
            folder,
            settings=ALONE | settings,
            listeners=[f"{name}://{server}" for name, server in self.servers.items()],
        )
        self.servers["PLAINTEXT"] = self.broker.bootstrap_servers

    def close(self) -> None:
        """Kill it."""
        self.broker.close()

    def admin(self) -> KafkaAdminClient:
        """A super user's client, to be closed."""
        return KafkaAdminClient(bootstrap_servers=self.servers["PLAINTEXT"])

    def make_user(self, name: str) -> None:
        with self.admin() as admin:
            user = UserScramCredentialUpsertion(name, "SCRAM-SHA-512", PASSWORD)
            assert admin.alter_user_scram_credentials([user]) == {name: None}

    def allow(self, name: str, topic: str, *operations: str) -> None:
        """Give a user rights on a topic, and return when the broker acts on them."""
        acls = [
            ACL(
                f"User:{name}",
                "*",
                ACLOperation[operation],
                ACLPermissionType.ALLOW,
                ResourcePattern(ResourceType.TOPIC, topic),
            )
            for operation in operations
        ]
        with self.admin() as admin:
            assert not admin.create_acls(acls)["failed"]

    def client(self, name: str) -> KafkaAdminClient:
        """The client of a user that `make_user` made, to be closed."""
        return KafkaAdminClient(
            bootstrap_servers=self.servers["SASL_SSL"],
            security_protocol="SASL_SSL",
            ssl_cafile=str(self.authority.file),
            sasl_mechanism="SCRAM-SHA-512",
            sasl_plain_username=name,
            sasl_plain_password=PASSWORD,
        )

    def client_by_certificate(self) -> KafkaAdminClient:
        """A super user's client that has the broker's own certificate, to be closed."""
        return KafkaAdminClient(
            bootstrap_servers=self.servers["MUTUAL"],
            security_protocol="SSL",
            ssl_cafile=str(self.authority.file),
            ssl_certfile=str(self.store),
        )
