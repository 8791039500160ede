"""The contract of `microk8s`, including its misleading exit codes."""

import json
import re

import pytest
import yaml
from kubernetes import client, config
from standin_hosts import (
    CONFIGURATION,
    TOKEN,
    Sandbox,
    configure,
    image,
    install,
    kubectl,
    microk8s,
    rolled_out,
    until,
    upload,
)
from testinfra.host import Host

WORKER = "This MicroK8s deployment is acting as a node in a cluster."
STOPPED = "microk8s is not running, try microk8s start\n"
DNS = """
import socket, struct
question = b"".join(bytes([len(p)]) + p for p in b"{name}".split(b".")) + bytes([0, 0, 1, 0, 1])
asked = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
asked.settimeout(5)
asked.sendto(struct.pack(">6H", 7, 256, 1, 0, 0, 0) + question, ("10.152.183.10", 53))
print(socket.inet_ntoa(asked.recv(512)[-4:]))
"""


def listed(node: Host) -> dict[str, str]:
    """The status of each add-on, from the most stable format."""
    lines = node.check_output("/snap/bin/microk8s status --format short").splitlines()
    return dict(line.removeprefix("core/").split(": ") for line in lines if "core/" in line)


@pytest.fixture(scope="module")
def registry(node: Host) -> str:
    """The cluster's own registry, by its name on the nodes."""
    assert microk8s(node, "enable registry --size 25Gi").rc == 0
    rolled_out(node, "container-registry", "registry")
    until(lambda: node.run("curl -sf localhost:32000/v2/").rc == 0, "the registry does not answer")
    return "localhost:32000"


@pytest.fixture(scope="module")
def pod(node: Host, registry: str) -> Host:
    """A pod whose image was pushed to the registry and then removed from the node."""
    name = f"{registry}/pushed:1"
    ctr = "/snap/bin/microk8s ctr images"
    node.check_output(f"{ctr} tag --force registry.k8s.io/pause:3.10 {name}")
    node.check_output(f"{ctr} push --plain-http {name}")
    node.check_output(f"{ctr} rm {name}")
    kubectl(node, f"create deployment pushed --image {name}")
    rolled_out(node, "default", "pushed")
    return node


# --- after `snap install` -----------------------------------------------------------------------


def test_files_are_at_the_real_snaps_paths(node: Host) -> None:
    """mk snap/hooks/install and default-args: the files that roles read and edit."""
    data = "/var/snap/microk8s/current"
    flags = node.file(f"{data}/args/kube-apiserver").content_string
    assert "--secure-port=16443\n" in flags
    assert "--service-cluster-ip-range=10.152.183.0/24\n" in flags
    trust = node.file(f"{data}/args/certs.d/localhost:32000/hosts.toml").content_string
    assert '[host."http://localhost:32000"]' in trust
    assert node.file(f"{data}/credentials/client.config").mode == 0o660
    assert node.file(f"{data}/credentials/client.config").group == "microk8s"
    assert node.file(f"{data}/var/lock/ha-cluster").exists
    for unit in ("containerd", "k8s-dqlite", "kubelite", "cluster-agent"):
        service = node.service(f"snap.microk8s.daemon-{unit}")
        assert service.is_running
        assert service.is_enabled


def test_images_beside_the_launch_configuration_are_imported(node: Host) -> None:
    """mk snap/hooks/install: *.tar in common/sideload, imported when containerd starts."""
    names = node.check_output("/snap/bin/microk8s ctr images ls --quiet").splitlines()
    assert "localhost/sideloaded:1" in names


def test_extra_sans_are_in_the_certificate(node: Host) -> None:
    """ag pkg/k8sinit: extraSANs, in addition to the names of every API server."""
    names = node.check_output(
        "openssl x509 -noout -ext subjectAltName -in /var/snap/microk8s/current/certs/server.crt"
    )
    assert {"DNS:node.example", "DNS:kubernetes.default.svc", "DNS:host1"} <= set(
        re.findall(r"[A-Za-z ]+:[^,\s]+", names.replace(" DNS", "DNS"))
    )


def days_left(node: Host) -> dict[str, int]:
    """The days left of each certificate, by file name."""
    ends = node.check_output(
        "cd /var/snap/microk8s/current/certs && for each in *.crt; do echo $each"
        ' $(date +%s -d "$(openssl x509 -noout -enddate -in $each | cut -d= -f2)"); done'
    )
    now = int(node.check_output("date +%s"))
    return {name: (int(end) - now) // 86400 for name, end in map(str.split, ends.splitlines())}


def test_certificates_are_valid_for_one_or_ten_years(node: Host) -> None:
    """mk actions/common/utils.sh: gen_server_cert, gen_proxy_client_cert, sign_certificate."""
    assert days_left(node) == dict.fromkeys(
        (
            *("ca.crt", "front-proxy-ca.crt", "kubelet.crt", "client.crt", "proxy.crt"),
            *("controller.crt", "scheduler.crt", "apiserver-kubelet-client.crt"),
        ),
        3649,
    ) | dict.fromkeys(("server.crt", "front-proxy-client.crt"), 364)


def test_the_kubeconfig_works_from_another_machine(node: Host) -> None:
    """mk microk8s-config.wrapper: the address of the default route; with -l the loopback's."""
    given = yaml.safe_load(node.check_output("/snap/bin/microk8s config"))
    address = node.check_output("ip -4 -o addr show eth0").split()[3].split("/")[0]
    assert given["clusters"][0]["cluster"]["server"] == f"https://{address}:16443"
    local = yaml.safe_load(node.check_output("/snap/bin/microk8s config -l"))
    assert local["clusters"][0]["cluster"]["server"] == "https://127.0.0.1:16443"
    api = client.CoreV1Api(config.new_client_from_config_dict(given))
    assert [each.metadata.name for each in api.list_node().items] == ["host1"]


def test_the_version_is_one_line(node: Host) -> None:
    """mk scripts/wrappers/version.py."""
    said = node.check_output("/snap/bin/microk8s version")
    assert re.fullmatch(r"MicroK8s v1\.36\.\d+ revision \d+", said)


def test_services_have_dns_names(node: Host) -> None:
    """ad addons/dns: CoreDNS at 10.152.183.10, for the cluster's names."""
    script = DNS.format(name="kubernetes.default.svc.cluster.local")
    assert node.check_output("python3 -c %s", script) == "10.152.183.1"


# --- status -------------------------------------------------------------------------------------


def test_status_is_yaml_on_request(node: Host) -> None:
    """mk scripts/wrappers/status.py print_yaml: printed by hand, and still YAML."""
    said = yaml.safe_load(node.check_output("/snap/bin/microk8s status --format yaml"))
    assert said["microk8s"] == {"running": True}
    assert said["high-availability"]["enabled"] is False
    assert [each["role"] for each in said["high-availability"]["nodes"]] == ["voter"]
    by_name = {each["name"]: each for each in said["addons"]}
    assert by_name["dns"]["status"] == "enabled"
    assert by_name["dns"]["repository"] == "core"
    assert set(by_name["dns"]) == {"name", "repository", "description", "version", "status"}


def test_status_of_one_addon_is_one_word(node: Host) -> None:
    """mk status.py print_addon_status, by either name."""
    assert microk8s(node, "status -a dns").stdout == "enabled\n"
    assert microk8s(node, "status -a core/ingress").stdout == "disabled\n"


def test_an_unprivileged_user_is_refused(node: Host) -> None:
    """mk scripts/wrappers/common/utils.py exit_if_no_permission."""
    with node.sudo("nobody"):
        result = microk8s(node, "status")
    assert result.rc == 1
    assert result.stdout.startswith("Insufficient permissions to access MicroK8s.")


def test_an_unknown_subcommand_lists_the_known_ones(node: Host) -> None:
    """mk microk8s.wrapper."""
    result = microk8s(node, "dance")
    assert result.rc == 1
    assert result.stdout.startswith("'dance' is not a valid MicroK8s subcommand.\n")


# --- add-ons ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "code", "says"),
    [
        ("enable dns", 0, "Addon core/dns is already enabled"),
        ("disable registry", 0, "Addon core/registry is already disabled"),
        ("enable core/nothing", 0, "Addon core/nothing not found"),
        ("enable nothing", 1, "Addon nothing was not found in any repository"),
        ("enable", 2, "Missing argument"),
    ],
)
def test_enable_and_disable_of_add_ons_that_cannot_change(
    node: Host, command: str, code: int, says: str
) -> None:
    """mk common/utils.py xable: an unknown add-on of a known repository is no error."""
    result = microk8s(node, command)
    assert result.rc == code
    assert says in result.stdout + result.stderr


def test_enabling_several_add_ons_at_once_is_deprecated(node: Host) -> None:
    """mk common/utils.py xable."""
    result = microk8s(node, "enable dns core/ha-cluster")
    assert result.rc == 0
    assert result.stdout.startswith("WARNING: Do not enable or disable multiple addons")


def test_everybody_has_all_rights_until_rbac_is_enabled(node: Host) -> None:
    """mk default-args/kube-apiserver (AlwaysAllow) and ad addons/rbac/enable."""
    assert kubectl(node, "auth can-i delete nodes --as stranger") == "yes"
    assert microk8s(node, "enable rbac").rc == 0
    until(
        lambda: microk8s(node, "kubectl auth can-i delete nodes --as stranger").stdout == "no\n",
        "a stranger may still delete nodes",
    )
    until(lambda: listed(node)["rbac"] == "enabled", "rbac is not listed as enabled")


def test_a_registry_that_is_too_small_is_refused_with_exit_code_0(node: Host) -> None:
    """ad addons/registry/enable: prints the rule, exit code 0, nothing applied."""
    result = microk8s(node, "enable registry --size 19Gi")
    assert result.rc == 0
    assert "should be higher or equal to 20Gi" in result.stdout
    assert microk8s(node, "kubectl get namespace container-registry").rc == 1


@pytest.mark.usefixtures("registry")
def test_the_registry_has_the_requested_size_and_enables_hostpath_storage(node: Host) -> None:
    """ad addons/registry and addons/hostpath-storage: the first enables the second."""
    claim = json.loads(kubectl(node, "get pvc registry-claim -n container-registry --output json"))
    assert claim["status"]["phase"] == "Bound"
    assert claim["spec"]["resources"]["requests"]["storage"] == "25Gi"
    assert claim["spec"]["storageClassName"] == "microk8s-hostpath"
    folder = "/var/snap/microk8s/common/default-storage/container-registry-registry-claim-*"
    assert node.run(f"ls -d {folder}").rc == 0
    assert {"hostpath-storage", "registry"} <= {
        name for name, status in listed(node).items() if status == "enabled"
    }


def test_a_pod_runs_an_image_from_the_registry(pod: Host) -> None:
    """ad addons/registry, mk certs.d/localhost:32000: pushed, removed, pulled by NodePort."""
    phases = kubectl(pod, "get pods -l app=pushed --output jsonpath={.items[*].status.phase}")
    assert phases == "Running"


def test_a_foreign_object_can_make_an_add_on_look_enabled(node: Host) -> None:
    """mk common/utils.py get_status: searches a substring in the names of running objects."""
    assert listed(node)["ingress"] == "disabled"
    manifest = (
        '{"apiVersion": "networking.k8s.io/v1", "kind": "IngressClass", '
        '"metadata": {"name": "traefik"}, "spec": {"controller": "example.com/other"}}'
    )
    upload(node, manifest.encode(), "/tmp/class.json")
    kubectl(node, "apply -f /tmp/class.json")
    try:
        assert listed(node)["ingress"] == "enabled"
    finally:
        kubectl(node, "delete -f /tmp/class.json")


# --- images -------------------------------------------------------------------------------------


def test_an_image_is_imported_on_every_node(node: Host) -> None:
    """mk scripts/wrappers/images.py and distributed_op.py."""
    upload(node, image("localhost/imported:1"), "/tmp/imported.tar")
    result = microk8s(node, "images import /tmp/imported.tar")
    assert result.rc == 0
    assert re.search(r"Pushing OCI images to [0-9.]+:25000\n", result.stdout)
    assert "localhost/imported:1" in node.check_output("/snap/bin/microk8s ctr images ls -q")


def test_a_failed_import_has_exit_code_0(node: Host) -> None:
    """mk distributed_op.py do_image_import: the failure is printed, the exit code is 0."""
    upload(node, b"no archive", "/tmp/broken.tar")
    result = microk8s(node, "images import /tmp/broken.tar")
    assert result.rc == 0
    assert "Failed to import images on " in result.stdout
    assert microk8s(node, "images import /tmp/missing.tar").rc == 1


# --- more nodes ---------------------------------------------------------------------------------


def test_add_node_prints_tokens_in_several_formats(node: Host) -> None:
    """mk scripts/wrappers/add_token.py."""
    said = json.loads(node.check_output("/snap/bin/microk8s add-node --format json"))
    token, check = said["token"].split("/")
    assert (len(token), len(check)) == (32, 12)
    assert said["urls"][0].endswith(f":25000/{token}/{check}")
    short = node.check_output(f"/snap/bin/microk8s add-node --token {TOKEN} --format short")
    assert short.startswith("microk8s join ")
    assert TOKEN in short
    assert microk8s(node, "add-node --token tooshort").rc == 1


def test_a_single_node_cannot_leave(node: Host) -> None:
    """mk scripts/wrappers/leave.py."""
    result = microk8s(node, "leave")
    assert (result.rc, result.stdout) == (2, "Not in clustering mode.\n")


def test_a_worker_joins_runs_pods_and_leaves(pod: Host, bare: Host) -> None:
    """ag pkg/k8sinit join and mk join.py, status.py, leave.py, remove_node.py."""
    address = pod.check_output("ip -4 -o addr show eth0").split()[3].split("/")[0]
    check = pod.check_output("/snap/bin/microk8s add-node --format token-check").split("/")[1]
    configure(bare, {k: v for k, v in CONFIGURATION.items() if k != "addons"})
    assert "installed" in install(bare).stdout
    assert microk8s(bare, "status --wait-ready --timeout 60").rc == 0

    join = f"join {address}:25000"
    assert microk8s(bare, f"join {address}:1/{TOKEN} --worker").rc == 5
    assert microk8s(bare, f"{join}/wrong/{check} --worker").rc == 6
    assert microk8s(bare, f"{join}/{TOKEN}/000000000000 --worker").rc == 4
    assert microk8s(bare, f"{join}/{TOKEN}/short --worker").rc == 4
    joined = microk8s(bare, f"{join}/{TOKEN}/{check} --worker")
    assert (joined.rc, "Successfully joined the cluster." in joined.stdout) == (0, True)

    state = "get node host2 --output 'jsonpath={.status.conditions[?(@.type==\"Ready\")].status}'"
    until(lambda: microk8s(pod, f"kubectl {state}").stdout == "True", "host2 is not Ready")
    for command in ("status", "kubectl get nodes", "config"):
        answer = microk8s(bare, command)
        assert answer.rc == 0
        assert answer.stdout.startswith(WORKER)
    kubectl(pod, "scale deployment pushed --replicas 3")
    rolled_out(pod, "default", "pushed")
    hosts = kubectl(pod, "get pods -l app=pushed --output jsonpath={.items[*].spec.nodeName}")
    assert set(hosts.split()) == {"host1", "host2"}
    kubectl(pod, "scale deployment pushed --replicas 1")

    assert microk8s(bare, "leave").rc == 0
    assert microk8s(pod, "remove-node host2").rc == 0
    assert microk8s(pod, "remove-node host2").rc == 1
    assert kubectl(bare, "get nodes --output jsonpath={.items[*].metadata.name}") == "host2"


# --- stopping and restarting --------------------------------------------------------------------


def test_commands_on_a_stopped_cluster_have_exit_code_0(pod: Host) -> None:
    """mk common/utils.py exit_if_stopped, ensure_started; microk8s-stop.wrapper ends the pods."""
    assert microk8s(pod, "stop").rc == 0
    try:
        assert not pod.run("pgrep containerd-shim").stdout
        for command in ("status --wait-ready --timeout 5", "kubectl get nodes"):
            answer = microk8s(pod, command)
            assert (answer.rc, answer.stdout) == (0, STOPPED)
        assert microk8s(pod, "enable dns").rc == 1
    finally:
        assert microk8s(pod, "start").rc == 0
    assert microk8s(pod, "status --wait-ready --timeout 60").rc == 0


def test_the_last_refresh_of_a_certificate_can_be_undone(pod: Host) -> None:
    """mk scripts/wrappers/refresh_certs.py: each refresh makes a backup and keeps the keys; other
    certificates cannot be refreshed. microk8s-stop.wrapper: an undo restarts everything."""
    expiry = pod.check_output("/snap/bin/microk8s refresh-certs --check").splitlines()
    assert expiry == [
        "The CA certificate will expire in 3649 days.",
        "The server certificate will expire in 364 days.",
        "The front proxy client certificate will expire in 364 days.",
    ]
    assert microk8s(pod, "refresh-certs").rc == 3
    assert microk8s(pod, "refresh-certs --cert kubelet.crt").rc == 2

    def files() -> dict[str, str]:
        lines = pod.check_output("cd /var/snap/microk8s/current/certs && sha256sum *.crt *.key")
        return {name: digest for digest, name in map(str.split, lines.splitlines())}

    before = files()
    said = pod.check_output("/snap/bin/microk8s refresh-certs --cert server.crt")
    assert "Restarting service kubelite.\nRestarting service cluster-agent." in said
    between = files()
    pod.check_output("/snap/bin/microk8s refresh-certs --cert front-proxy-client.crt")
    after = files()
    assert {name for name in before if before[name] != between[name]} == {"server.crt"}
    assert {name for name in before if between[name] != after[name]} == {"front-proxy-client.crt"}
    # Only the last refresh is undone.
    assert microk8s(pod, "refresh-certs --undo").rc == 0
    assert files() == between
    assert microk8s(pod, "status --wait-ready --timeout 60").rc == 0


def test_status_stops_waiting_after_the_timeout(node: Host) -> None:
    """mk common/utils.py wait_for_ready: exit code 1 and a hint after --timeout."""
    node.check_output("snap stop microk8s.daemon-kubelite")
    try:
        result = microk8s(node, "status --wait-ready --timeout 2")
        assert result.rc == 1
        assert "microk8s is not running. Use microk8s inspect" in result.stdout
    finally:
        node.check_output("snap start microk8s.daemon-kubelite")
    assert microk8s(node, "status --wait-ready --timeout 60").rc == 0


def test_pods_and_registry_start_again_after_a_restart_of_the_host(
    sandbox: Sandbox, pod: Host, registry: str
) -> None:
    """Units are enabled, as in the real snap."""
    uid = "get pods -l app=pushed --output jsonpath={.items[*].metadata.uid}"
    before = kubectl(pod, uid)
    sandbox.restart("host1")
    seconds = until(
        lambda: pod.run(f"curl -sf http://{registry}/v2/").rc == 0, "the registry does not respond"
    )
    print(f"registry back {seconds:.1f} s after the restart of its host")
    rolled_out(pod, "default", "pushed")
    assert kubectl(pod, uid) == before
