"""An authority of a site's own, and the certificates that it signs: what role `kafka_tls` is given
in `kafka_tls_site_directory`.
"""

import ipaddress
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


def pem_of(key: ec.EllipticCurvePrivateKey, form: str = "PKCS8") -> str:
    made = key.private_bytes(
        serialization.Encoding.PEM,
        getattr(serialization.PrivateFormat, form),
        serialization.NoEncryption(),
    )
    return made.decode()


class Authority:
    """`pem` is its certificate, signed by itself or by another authority."""

    def __init__(self, name: str, by: Self | None = None, days: int = 3650) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        constraints = x509.BasicConstraints(ca=True, path_length=None)
        self.pem = (by or self)._signed(self.key, self.name, days, constraints)

    def issue(
        self, name: str, names: Iterable[str] = (), days: int = 300, unit: str = ""
    ) -> tuple[ec.EllipticCurvePrivateKey, str]:
        """A key, and its certificate for names and addresses."""
        key = ec.generate_private_key(ec.SECP256R1())
        parts = [x509.NameAttribute(NameOID.COMMON_NAME, name)]
        parts += [x509.NameAttribute(NameOID.ORGANIZATION_NAME, unit)] if unit else []
        constraints = x509.BasicConstraints(ca=False, path_length=None)
        return key, self._signed(key, x509.Name(parts), days, constraints, names)

    def give(self, folder: Path, hosts: Mapping[str, Iterable[str]], days: int = 300) -> None:
        """Write a key with its certificate for each host, by its names, and for the playbooks."""
        folder.mkdir(exist_ok=True)
        for file, name, names in [
            *((host, "kafka", names) for host, names in hosts.items()),
            ("playbooks", "kafka-playbooks", ()),
        ]:
            key, certificate = self.issue(name, names, days)
            path = folder / f"{file}.pem"
            path.write_text(pem_of(key) + certificate)
            path.chmod(0o600)

    def _signed(
        self,
        key: ec.EllipticCurvePrivateKey,
        subject: x509.Name,
        days: int,
        constraints: x509.BasicConstraints,
        names: Iterable[str] = (),
    ) -> str:
        now = datetime.now(UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=400))
            .not_valid_after(now + timedelta(days=days, hours=1))
            .add_extension(constraints, critical=True)
        )
        if alternatives := [_alternative(each) for each in names]:
            san = x509.SubjectAlternativeName(alternatives)
            builder = builder.add_extension(san, critical=False)
        made = builder.sign(self.key, hashes.SHA256())
        return made.public_bytes(serialization.Encoding.PEM).decode()


def _alternative(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
