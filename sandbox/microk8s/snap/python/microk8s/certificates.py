"""The cluster's certificates and kubeconfigs, created with openssl, as in the real snap.

One authority signs everything: the API server, every daemon that talks to it, and the nodes that
join. Control planes share it, and the key of service accounts. Keys are elliptic instead of RSA,
because they are made at once.
"""

import base64
import datetime
import hashlib
import shutil
import ssl
import subprocess
import tempfile
from pathlib import Path

from microk8s import paths
from microk8s.paths import CERTS, CREDENTIALS

YEAR = 365
# What the cluster's authority signs for daemons and nodes lives as long as the authority itself.
LONG = 10 * YEAR
BACKUP = paths.DATA / "certs-backup"
# Kubeconfig and its user's certificate, common name and organisation.
CLIENTS = {
    "client.config": ("client", "admin", "system:masters"),
    "controller.config": ("controller", "system:kube-controller-manager", None),
    "scheduler.config": ("scheduler", "system:kube-scheduler", None),
    "proxy.config": ("proxy", "system:kube-proxy", None),
}
KUBECONFIG = """\
apiVersion: v1
clusters:
- cluster:
    certificate-authority-data: {authority}
    server: https://{server}
  name: microk8s-cluster
contexts:
- context:
    cluster: microk8s-cluster
    user: {user}
  name: microk8s
current-context: microk8s
kind: Config
preferences: {{}}
users:
- name: {user}
  user:
    client-certificate-data: {certificate}
    client-key-data: {key}
"""


def openssl(*arguments: str | Path, given: str | None = None) -> str:
    command = ["openssl", *map(str, arguments)]
    result = subprocess.run(
        command, env=paths.environment(), input=given, capture_output=True, text=True
    )
    if result.returncode != 0:
        raise RuntimeError(f"openssl {arguments[0]}: {result.stderr.strip()}")
    return result.stdout


def make_key(path: Path) -> None:
    # In the traditional form: the API server does not read PKCS #8 for service account keys.
    path.write_text(openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout"))


def make_authority(name: str, common_name: str) -> None:
    make_key(CERTS / f"{name}.key")
    openssl(
        "req",
        "-x509",
        "-new",
        "-sha256",
        "-days",
        LONG,
        "-subj",
        f"/CN={common_name}",
        "-key",
        CERTS / f"{name}.key",
        "-out",
        CERTS / f"{name}.crt",
    )


def make_request(name: str, common_name: str, organisation: str | None) -> str:
    """Create a certificate request, and its key if there is none yet."""
    key = CERTS / f"{name}.key"
    if not key.exists():
        make_key(key)
    subject = f"/CN={common_name}" + (f"/O={organisation}" if organisation else "")
    return openssl("req", "-new", "-sha256", "-key", key, "-subj", subject)


def sign(
    request: str, addresses: list[str] | None = None, authority: str = "ca", days: int = LONG
) -> str:
    """A certificate for both ends of a connection."""
    extensions = "extendedKeyUsage=clientAuth,serverAuth\n"
    if addresses:
        kinds = (f"{'IP' if is_address(each) else 'DNS'}:{each}" for each in addresses)
        extensions += f"subjectAltName={','.join(kinds)}\n"
    with tempfile.NamedTemporaryFile("w", suffix=".cnf") as file:
        file.write(extensions)
        file.flush()
        return openssl(
            "x509",
            "-req",
            "-sha256",
            "-days",
            days,
            "-CAcreateserial",
            "-extfile",
            file.name,
            "-CA",
            CERTS / f"{authority}.crt",
            "-CAkey",
            CERTS / f"{authority}.key",
            given=request,
        )


def is_address(text: str) -> bool:
    return text.replace(".", "").isdigit() or ":" in text


def make(
    name: str,
    common_name: str,
    organisation: str | None = None,
    addresses: list[str] | None = None,
    authority: str = "ca",
    days: int = LONG,
) -> None:
    request = make_request(name, common_name, organisation)
    (CERTS / f"{name}.crt").write_text(sign(request, addresses, authority, days))


def server_names() -> list[str]:
    """The API server's names: fixed ones, this node's address and name, and extraSANs."""
    fixed = [
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster",
        "kubernetes.default.svc.cluster.local",
        "127.0.0.1",
        "10.152.183.1",
        "localhost",
    ]
    extra = CERTS / "extra-sans"
    return [
        *fixed,
        paths.default_address(),
        paths.node_name(),
        *(extra.read_text().split() if extra.exists() else []),
    ]


def make_server() -> None:
    make("server", "127.0.0.1", addresses=server_names(), days=YEAR)


def make_front_proxy_client() -> None:
    make("front-proxy-client", "front-proxy-client", authority="front-proxy-ca", days=YEAR)


def make_all() -> None:
    CERTS.mkdir(exist_ok=True)
    CREDENTIALS.mkdir(exist_ok=True)
    make_authority("ca", "10.152.183.1")
    make_authority("front-proxy-ca", "front-proxy-ca")
    make_front_proxy_client()
    make_key(CERTS / "serviceaccount.key")
    make_signed()


def make_signed() -> None:
    """Create all certificates of this node that the cluster's authority signs."""
    make_server()
    make("apiserver-kubelet-client", "kube-apiserver-kubelet-client", "system:masters")
    for kubeconfig, (name, common_name, organisation) in CLIENTS.items():
        make(name, common_name, organisation)
        write_kubeconfig(kubeconfig, name)
    node = paths.node_name()
    make("kubelet", f"system:node:{node}", "system:nodes", [node, paths.default_address()])
    write_kubeconfig("kubelet.config", "kubelet")
    protect()


def write_kubeconfig(
    kubeconfig: str,
    name: str,
    server: str = f"127.0.0.1:{paths.API_PORT}",
    authority: str = "ca.crt",
) -> None:
    def encoded(file: str) -> str:
        return base64.b64encode((CERTS / file).read_bytes()).decode()

    (CREDENTIALS / kubeconfig).write_text(
        KUBECONFIG.format(
            authority=encoded(authority),
            server=server,
            user="admin" if name == "client" else name,
            certificate=encoded(f"{name}.crt"),
            key=encoded(f"{name}.key"),
        )
    )


def protect() -> None:
    """Keys are for root and the group microk8s."""
    for folder in (CERTS, CREDENTIALS):
        for path in (folder, *folder.iterdir()):
            path.chmod(0o770 if path.is_dir() else 0o660)


def back_up() -> None:
    """Overwrites the previous backup."""
    for folder in (CERTS, CREDENTIALS):
        shutil.copytree(folder, BACKUP / folder.name, dirs_exist_ok=True)


def restore() -> None:
    for folder in (CERTS, CREDENTIALS):
        shutil.copytree(BACKUP / folder.name, folder, dirs_exist_ok=True)
    protect()


def fingerprint(length: int = 12) -> str:
    """The end of an add-node URL. A joining node compares it with the server's certificate."""
    certificate = ssl.PEM_cert_to_DER_cert((CERTS / "server.crt").read_text())
    return hashlib.sha256(certificate).hexdigest()[:length]


def days_left(name: str) -> int:
    end = (
        openssl("x509", "-noout", "-enddate", "-in", CERTS / f"{name}.crt")
        .strip()
        .partition("=")[2]
    )
    expiry = datetime.datetime.fromtimestamp(ssl.cert_time_to_seconds(end), datetime.UTC)
    return (expiry - datetime.datetime.now(datetime.UTC)).days
