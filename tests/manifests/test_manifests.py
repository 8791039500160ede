"""What the roles apply to a cluster, read before it is applied.

For promises that the sandbox cannot show: its network enforces no policies, and what a container
may not do is seen by trying alone.
"""

import asyncio
import base64
import json
import ssl
import threading
import time
import tomllib
import uuid
from pathlib import Path

import jsonschema
import kubernetes_validate
import pytest
import yaml
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus
from websockets.sync.server import serve

from tests.kafka_broker import free_port
from tests.rendered import render
from tests.traefik import PATIENCE_SECONDS
from tests.traefik import traefik as traefik_program

# Made by `sandbox/build traefik`.
DEFINITIONS = Path(__file__).parents[2] / ".artifacts" / "traefik" / "crds.yml"

# What the roles find out on the way.
KNOWN_LATER = {
    # By default it has the port.
    "chat_url": "https://192.0.2.1:443/",
    "chat_kafka_bootstrap_servers": "192.0.2.11:9092,broker.example.org:9093",
    "__chat_image": "localhost:32000/chat",
    "__chat_digest": "sha256:0123",
    "__chat_tag": "0123",
}


SECRETS = {
    "chat_kafka_ca": "the CA",
    "chat_kafka_certificate": "the certificate",
    "chat_kafka_key": "the key",
    "chat_kafka_sasl_password": "the password",
}
SASL = {"KAFKA_SECURITY_PROTOCOL": "SASL_SSL", "KAFKA_SASL_USERNAME": "chat"}
DIGEST = "sha256:" + 64 * "0"
NAMED = {"chat_url": "https://chat.example.org/"}

ROOMS = [
    {"rooms": "staff-*", "read": ["/staff"], "write": []},
    {"rooms": "audit", "read": ["/desk"], "write": []},
    {"rooms": "*", "moderate": ["/desk"]},
]
PROVIDER = {"issuer": "https://id.example.org/realm", "audience": "chat"}
SIGN_IN_SECRETS = {
    "oauth2_proxy_client_secret": "the secret of the client",
    "oauth2_proxy_cookie_secret": "the secret of cookies",
}

HOOK = {
    "name": "a",
    "room": "lobby",
    "url": "https://hooks.example.org/secret/path",
    "secret": "the secret of the receiver",
}

# What a site may set, by a name for it; the first word is the role's.
SITES = {
    "chat": {},
    "chat again": {},
    "chat without TLS": {"chat_tls": False, "chat_url": "https://chat.example.org/"},
    "chat with a certificate": {
        "chat_tls_certificate": "certificate",
        "chat_tls_key": "the key",
    },
    "chat with sign-in": {
        "chat_config": {
            "CHAT_AUTH": "required",
            "CHAT_AUTH_ISSUERS": [
                {"issuer": "https://id.example.org/realm", "audience": "chat"},
                {"issuer": "bots", "audience": "chat", "jwks": "/etc/chat/bots.json"},
                {"issuer": "b", "audience": "chat", "jwks": "https://keys.example.org:8443/keys"},
            ],
        },
        "chat_rooms": ROOMS,
        "chat_audit_room": "audit",
        "chat_sanctions": True,
        "chat_moderators": ["/heads"],
    },
    "chat with browsers that sign in": {
        "chat_sign_in": True,
        "chat_config": {"CHAT_AUTH": "required", "CHAT_AUTH_ISSUERS": [PROVIDER]},
    },
    "oauth2_proxy": {"chat_config": {"CHAT_AUTH_ISSUERS": [PROVIDER]}, **SIGN_IN_SECRETS},
    "oauth2_proxy that signs out there": {
        "chat_config": {"CHAT_AUTH_ISSUERS": [PROVIDER]},
        "oauth2_proxy_end_session_url": "https://id.example.org:8443/logout",
        "oauth2_proxy_ca": "the CA of the provider",
        "oauth2_proxy_config": {"prompt": "consent", "cookie_samesite": "strict"},
        **SIGN_IN_SECRETS,
    },
    "chat watched by a Prometheus": {"chat_monitoring_namespace": "monitoring"},
    "chat with webhooks": {
        "chat_webhooks": [
            HOOK,
            HOOK | {"name": "b", "room": "b"},
            HOOK | {"name": "c", "url": "https://[2001:db8::1]:8443"},
            HOOK | {"name": "d", "url": "http://hooks.example.org?x=a:1", "plain_http": True},
            HOOK | {"name": "e", "url": "HTTPS://Hooks.example.org/e"},
        ],
        "chat_webhooks_ca": "the CA of the receivers",
        "chat_monitoring_namespace": "monitoring",
        **NAMED,
    },
    "chat without Kafka": {"chat_config": {"KAFKA_ENABLED": False}, "chat_replicas": 1},
    "chat with a long drain": {
        "chat_config": {"CHAT_DRAIN_DELAY_SECONDS": 7, "CHAT_DRAIN_SECONDS": 30}
    },
    "chat with private rooms": {"chat_config": {"CHAT_PRIVATE_ROOMS": "true"}},
    "chat with another rate": {"chat_config": {"CHAT_RATE": 50}},
    "chat with secrets": {
        "chat_config": SASL,
        "__chat_files_secret_name": "chat-files-x7k2p",
        "chat_files": {"provider-ca.crt": "the CA of the provider"},
        **SECRETS,
    },
    "chat of a secured cluster": {
        # As role kafka tells it. Any file is the authority's.
        "__chat_kafka_client": {"ca_file": __file__},
        "chat_kafka_sasl_password": "the password",
    },
    "chat with a name": {"chat_url": "https://chat.example.org:8443/"},
    "chat with several names": {"chat_hosts": ["chat.example.org", "chat"]},
    "chat on another network": {
        "microk8s_launch_config": {"extraCNIEnv": {"IPv4_CLUSTER_CIDR": "10.42.0.0/16"}}
    },
    "chat that grows": {
        "chat_replicas_max": 6,
        "__chat_current": {"resources": [{"spec": {"replicas": 4}}]},
    },
    "chat that has grown too far": {
        "chat_replicas_max": 3,
        "__chat_current": {"resources": [{"spec": {"replicas": 4}}]},
    },
    "chat of a ready image": {"chat_image": f"registry.example.org/chat@{DIGEST}"},
    "chat that tries ACME": {
        "chat_acme": True,
        "chat_acme_names": ["chat.example.org", "chat", "chat.example.org"],
        **NAMED,
    },
    "chat with ACME": {
        "chat_acme": True,
        "chat_acme_production": True,
        "chat_acme_ca": "-----BEGIN CERTIFICATE-----\nMIIB\n",
        **NAMED,
    },
    "traefik": {},
    "traefik for several namespaces": {"traefik_namespaces": ["chat", "forum"]},
    "traefik for three at once": {"traefik_sockets": 3, "traefik_address_sockets": 2},
    "traefik that says more": {
        "traefik_config": {"log": {"level": "DEBUG"}, "metrics": None},
    },
}


@pytest.fixture(scope="session")
def rendered(tmp_path_factory):
    """The objects of each site, all rendered in one run."""
    folder = tmp_path_factory.mktemp("objects")
    return render(folder, {name: KNOWN_LATER | site for name, site in SITES.items()})


@pytest.fixture
def chat(rendered):
    return rendered["chat"]


@pytest.fixture
def traefik(rendered):
    return rendered["traefik"]


@pytest.fixture
def oauth2_proxy(rendered):
    return rendered["oauth2_proxy"]


@pytest.fixture(params=["chat", "traefik", "oauth2_proxy"])
def objects(request):
    return request.getfixturevalue(request.param)


def test_kubernetes_knows_every_field(objects):
    known = [item for item in objects.all if not item["apiVersion"].startswith("traefik.io/")]
    assert known
    for item in known:
        kubernetes_validate.validate(item, "1.36", strict=True)


def closed(schema):
    """The same schema, and nothing that it does not name."""
    if isinstance(schema, dict):
        named = {key: closed(value) for key, value in schema.items()}
        return named | {"additionalProperties": False} if "properties" in schema else named
    return [closed(each) for each in schema] if isinstance(schema, list) else schema


@pytest.mark.parametrize(
    ("site", "count"),
    [
        ("chat", 6),
        ("chat with a certificate", 6),
        ("chat without TLS", 2),
        ("chat with ACME", 7),
        ("chat with browsers that sign in", 6),
        ("oauth2_proxy", 2),
        ("traefik", 3),
    ],
)
def test_traefik_knows_every_field(rendered, site, count):
    schemas = {
        kind["spec"]["names"]["kind"]: closed(kind["spec"]["versions"][0]["schema"])
        for kind in yaml.safe_load_all(DEFINITIONS.read_text())
    }
    known = [item for item in rendered[site].all if item["apiVersion"] == "traefik.io/v1alpha1"]
    assert len(known) == count
    for item in known:
        schema = schemas[item["kind"]]["openAPIV3Schema"]
        jsonschema.validate(item["spec"], schema["properties"]["spec"])


def test_containers_have_no_privileges(objects):
    assert objects.pod["securityContext"]["runAsNonRoot"] is True
    assert objects.pod["securityContext"]["runAsUser"] >= 10000
    assert objects.pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in objects.pod["containers"]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }


def test_memory_is_bounded_and_the_processor_is_not(objects):
    for container in objects.pod["containers"]:
        assert container["resources"]["limits"].keys() == {"memory"}
        assert container["resources"]["requests"].keys() == {"cpu", "memory"}


def test_private_rooms_have_memory_wherever_they_are_switched_on(rendered):
    without, with_them = (
        int(rendered[site].pod["containers"][0]["resources"]["limits"]["memory"].removesuffix("Mi"))
        for site in ("chat", "chat with private rooms")
    )
    assert with_them - without >= 240


def test_no_service_of_the_cluster_gets_into_the_environment(objects):
    assert objects.pod["enableServiceLinks"] is False


def test_the_chat_cannot_ask_the_api_server(chat):
    assert chat.pod["automountServiceAccountToken"] is False
    assert chat["ServiceAccount"]["automountServiceAccountToken"] is False


def test_only_traefik_connects_to_the_chat(chat):
    assert chat["NetworkPolicy"]["spec"]["policyTypes"] == ["Ingress", "Egress"]
    assert chat["NetworkPolicy"]["spec"]["ingress"] == [
        {
            "from": [
                {
                    "namespaceSelector": {
                        "matchLabels": {"kubernetes.io/metadata.name": "traefik"}
                    },
                    "podSelector": {"matchLabels": {"app.kubernetes.io/name": "traefik"}},
                }
            ],
            "ports": [{"port": "web", "protocol": "TCP"}],
        }
    ]


def test_a_prometheus_that_is_named_reads_the_metrics_and_nothing_else(rendered):
    watched = rendered["chat watched by a Prometheus"]
    _, monitoring = watched["NetworkPolicy"]["spec"]["ingress"]
    assert monitoring == {
        "from": [
            {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}
        ],
        "ports": [{"port": "internal", "protocol": "TCP"}],
    }


def test_the_chat_connects_to_names_and_brokers_alone(chat):
    dns, by_address, by_name = chat["NetworkPolicy"]["spec"]["egress"]
    assert dns["ports"] == [{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}]
    assert by_address == {
        "to": [{"ipBlock": {"cidr": "192.0.2.11/32"}}],
        "ports": [{"port": 9092, "protocol": "TCP"}],
    }
    # A policy knows no names: the port is all it can say.
    assert by_name == {"ports": [{"port": 9093, "protocol": "TCP"}]}


def test_with_sign_in_the_chat_connects_to_providers_too(rendered):
    """A policy knows no names: the ports are all it can say. Keys in a file need none."""
    chat = rendered["chat with sign-in"]
    providers = chat["NetworkPolicy"]["spec"]["egress"][3:]
    assert providers == [
        {"ports": [{"port": 443, "protocol": "TCP"}]},
        {"ports": [{"port": 8443, "protocol": "TCP"}]},
    ]
    issuers = json.loads(chat["ConfigMap"]["data"]["CHAT_AUTH_ISSUERS"])
    assert [one["issuer"] for one in issuers] == ["https://id.example.org/realm", "bots", "b"]


def test_rules_for_rooms_and_moderators_reach_the_chat_in_its_own_form(rendered, chat):
    given = rendered["chat with sign-in"]["ConfigMap"]["data"]
    assert json.loads(given["CHAT_ROOMS"]) == ROOMS
    assert json.loads(given["CHAT_MODERATORS"]) == ["/heads"]
    assert given["CHAT_AUDIT_ROOM"] == "audit"
    others = chat["ConfigMap"]["data"]
    assert not {"CHAT_ROOMS", "CHAT_MODERATORS", "CHAT_AUDIT_ROOM"} & others.keys()


def test_without_kafka_the_chat_connects_to_nobody_else(rendered):
    chat = rendered["chat without Kafka"]
    assert len(chat["NetworkPolicy"]["spec"]["egress"]) == 1
    assert chat["ConfigMap"]["data"]["KAFKA_ENABLED"] == "False"


def test_a_replica_may_take_the_time_it_was_given_to_leave(rendered):
    chat = rendered["chat with a long drain"]
    assert chat.pod["terminationGracePeriodSeconds"] >= 7 + 2 * 30


def test_readiness_ends_before_the_replica_stops_taking_clients(chat):
    (container,) = chat.pod["containers"]
    probe = container["readinessProbe"]
    delay = float(chat["ConfigMap"]["data"]["CHAT_DRAIN_DELAY_SECONDS"])
    assert probe["periodSeconds"] * probe["failureThreshold"] < delay


def environment(objects):
    """The name of the ConfigMap that the pods read."""
    (container,) = objects.pod["containers"]
    (source,) = container["envFrom"]
    assert source["configMapRef"]["name"] == objects["ConfigMap"]["metadata"]["name"]
    return source["configMapRef"]["name"]


def test_another_environment_has_another_name_and_so_other_pods(rendered, chat):
    assert environment(rendered["chat with another rate"]) != environment(chat)
    assert environment(rendered["chat again"]) == environment(chat)


def test_the_environment_of_an_earlier_rollout_never_changes(chat):
    assert chat["ConfigMap"]["immutable"] is True


def test_a_lost_host_takes_its_replicas_with_it_for_half_a_minute_at_most(chat):
    waits = {item["key"]: item["tolerationSeconds"] for item in chat.pod["tolerations"]}
    assert waits == {"node.kubernetes.io/not-ready": 30, "node.kubernetes.io/unreachable": 30}


def test_no_host_has_two_replicas_more_than_another_that_is_up(chat):
    (spread,) = chat.pod["topologySpreadConstraints"]
    assert spread["topologyKey"] == "kubernetes.io/hostname"
    assert (spread["maxSkew"], spread["whenUnsatisfiable"]) == (1, "DoNotSchedule")
    # Otherwise no rollout would end while a host is down.
    assert spread["nodeTaintsPolicy"] == "Honor"


def test_a_ready_image_is_deployed_as_it_is(rendered, chat):
    (built,) = chat.pod["containers"]
    (ready,) = rendered["chat of a ready image"].pod["containers"]
    assert built["image"] == "localhost:32000/chat@sha256:0123"
    assert ready["image"] == f"registry.example.org/chat@{DIGEST}"


@pytest.mark.parametrize("site", ["chat that tries ACME", "chat with ACME"])
def test_kubernetes_knows_every_field_of_acme(rendered, site):
    objects = named_acme(rendered[site])
    assert len([item for item in objects if item["apiVersion"] != "traefik.io/v1alpha1"]) >= 9
    for item in objects:
        if item["apiVersion"] != "traefik.io/v1alpha1":
            kubernetes_validate.validate(item, "1.36", strict=True)


def named_acme(objects):
    """All objects that exist for ACME alone."""
    name = "app.kubernetes.io/name"
    return [item for item in objects.all if item["metadata"]["labels"][name] == "acme"]


def acme_command(objects):
    (job,) = [item for item in objects.all if item["kind"] == "CronJob"]
    (container,) = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    return container["command"]


def test_acme_is_off_and_then_tried_with_staging_before_anything_is_served(rendered, chat):
    assert named_acme(chat) == []
    tried = rendered["chat that tries ACME"]
    staging = "https://acme-staging-v02.api.letsencrypt.org/directory"
    assert f"--directory={staging}" in acme_command(tried)
    assert "--secret=chat-acme/trial" in acme_command(tried)
    # Each once, as in the order that the role compares with the last one.
    assert acme_command(tried)[-2:] == ["chat.example.org", "chat"]
    served = acme_command(rendered["chat with ACME"])
    assert "--directory=https://acme-v02.api.letsencrypt.org/directory" in served
    assert "--secret=chat/chat-tls" in served


def test_a_challenge_goes_on_to_another_job_if_one_does_not_listen(rendered):
    objects = rendered["chat with ACME"]
    (route,) = [item for item in named_acme(objects) if item["kind"] == "IngressRoute"]
    (rule,) = route["spec"]["routes"]
    assert middlewares(objects, rule) == [RETRY]


def test_the_job_may_write_its_own_secrets_and_nothing_else(rendered):
    def rights(site):
        roles = [item for item in rendered[site].all if item["kind"] == "Role"]
        return {item["metadata"]["namespace"]: item["rules"] for item in roles}

    def secrets(*names):
        rule = {"apiGroups": [""], "resources": ["secrets"], "resourceNames": [*names]}
        return [rule | {"verbs": ["get", "patch"]}]

    account = {"chat-acme": secrets("account", "trial")}
    assert rights("chat that tries ACME") == account | {"chat": []}
    assert rights("chat with ACME") == account | {"chat": secrets("chat-tls")}


def test_other_static_settings_are_other_pods(rendered, traefik):
    def annotations(objects):
        return objects["DaemonSet"]["spec"]["template"]["metadata"]["annotations"]

    assert annotations(rendered["traefik that says more"]) != annotations(traefik)


def middlewares(objects, route):
    """What a route's requests pass, in this order."""
    known = {
        item["metadata"]["name"]: item["spec"]
        for item in objects.all
        if item["kind"] == "Middleware"
    }
    return [known[each["name"]] for each in route["middlewares"]]


RETRY = {"retry": {"attempts": 10}}


def test_kubernetes_chooses_the_number_of_replicas_between_two_that_are_given(rendered, chat):
    grows = rendered["chat that grows"]
    scaler = grows["HorizontalPodAutoscaler"]["spec"]
    assert scaler["scaleTargetRef"]["name"] == grows["Deployment"]["metadata"]["name"]
    assert (scaler["minReplicas"], scaler["maxReplicas"]) == (2, 6)
    # A run of the role does not undo what Kubernetes has chosen.
    assert grows["Deployment"]["spec"]["replicas"] == 4
    assert rendered["chat that has grown too far"]["Deployment"]["spec"]["replicas"] == 3
    kubernetes_validate.validate(grows["HorizontalPodAutoscaler"], "1.36", strict=True)
    assert "HorizontalPodAutoscaler" not in {item["kind"] for item in chat.all}


def test_without_tls_the_chats_route_is_on_port_80_and_sticky(rendered):
    chat = rendered["chat without TLS"]
    route, again = chat["IngressRoute"]["spec"]["routes"]
    (service,) = route["services"]
    assert chat["IngressRoute"]["spec"]["entryPoints"] == ["web"]
    # A client that is led to a dead replica is led on to another one.
    assert middlewares(chat, route) == middlewares(chat, again) == [RETRY]
    assert service["name"] == chat["Service"]["metadata"]["name"]
    assert service["sticky"]["cookie"] == {
        "name": "chat_affinity",
        "httpOnly": True,
        "secure": False,
        "sameSite": "lax",
        "path": "/",
    }
    # One whose cookie leads to it connects again without the cookie.
    assert again["match"] == "Path(`/ws`) && Query(`again`, `1`)"
    assert again["services"] == [{"name": service["name"], "port": "web"}]


@pytest.mark.parametrize("site", ["chat", "chat with a certificate"])
def test_plain_http_leads_to_https_for_good(rendered, site):
    objects = rendered[site]
    plain, secure = [item for item in objects.all if item["kind"] == "IngressRoute"]
    (redirected,) = plain["spec"]["routes"]
    assert plain["spec"]["entryPoints"] == ["web"]
    assert middlewares(objects, redirected) == [
        {"redirectScheme": {"scheme": "https", "port": "443", "permanent": True}}
    ]
    route, again = secure["spec"]["routes"]
    assert secure["spec"]["entryPoints"] == ["websecure"]
    assert secure["spec"]["tls"] == {"secretName": "chat-tls"}
    assert middlewares(objects, route) == [
        {"headers": {"customResponseHeaders": {"Strict-Transport-Security": "max-age=31536000"}}},
        RETRY,
    ]
    assert route["services"][0]["sticky"]["cookie"]["secure"] is True
    assert middlewares(objects, again) == middlewares(objects, route)
    assert "sticky" not in again["services"][0]
    assert "the key" not in str(objects.all)


def test_clients_that_name_no_host_get_the_chats_certificate(chat):
    store = chat["TLSStore"]
    # Traefik knows no other.
    assert store["metadata"]["name"] == "default"
    assert store["spec"] == {"defaultCertificate": {"secretName": "chat-tls"}}


def test_only_the_roles_own_authority_has_a_namespace(rendered):
    def namespaces(objects):
        return [item["metadata"]["name"] for item in objects.all if item["kind"] == "Namespace"]

    assert namespaces(rendered["chat"]) == ["chat", "chat-ca"]
    assert namespaces(rendered["chat with a certificate"]) == ["chat"]
    assert namespaces(rendered["chat without TLS"]) == ["chat"]


def test_programs_with_a_token_need_no_oauth2_proxy_and_browsers_do(rendered, oauth2_proxy):
    chat = rendered["chat with browsers that sign in"]
    (secure,) = [item for item in chat.all if item["metadata"]["name"] == "chat-tls"]
    routes = {route["match"]: route for route in secure["spec"]["routes"]}
    page, provider, again_program, program, again, browser = routes.values()
    assert page["match"] == "PathPrefix(`/`)"
    # It is shorter than all others, by which Traefik would order them.
    assert "priority" not in page
    order = [route["priority"] for route in (provider, again_program, program, again, browser)]
    assert order == sorted(order, reverse=True)
    assert min(order) > len(oauth2_proxy["IngressRoute"]["spec"]["routes"][0]["match"])
    assert provider["match"] == "Path(`/api/backchannel-logout`)"
    assert "sign-in" not in str(provider["middlewares"])
    for route in (again_program, program):
        assert route["match"].endswith(" && HeaderRegexp(`Authorization`, `^Bearer .`)")
        assert "sign-in" not in str(route["middlewares"])
    for route in (again, browser):
        assert route["middlewares"][0] == {"name": "sign-in"}
    assert oauth2_proxy["Middleware"]["metadata"]["name"] == "sign-in"
    assert oauth2_proxy["Middleware"]["metadata"]["namespace"] == "chat"
    links = chat["ConfigMap"]["data"]
    assert links["CHAT_AUTH_SIGN_IN_URL"] == "/oauth2/start?rd=/"
    assert links["CHAT_AUTH_SIGN_OUT_URL"] == "/oauth2/sign_out?rd=/"


def proxy_settings(objects):
    return tomllib.loads(objects["ConfigMap"]["data"]["oauth2-proxy.cfg"])


def test_oauth2_proxy_trusts_traefik_alone_and_adds_no_header_but_the_token(oauth2_proxy):
    settings = proxy_settings(oauth2_proxy)
    assert settings["trusted_proxy_ips"] == ["10.1.0.0/16"]
    assert settings["redirect_url"] == "https://192.0.2.1/oauth2/callback"
    assert (settings["oidc_issuer_url"], settings["client_id"]) == (PROVIDER["issuer"], "chat")
    assert settings["insecure_oidc_skip_nonce"] is False
    assert (settings["pass_user_headers"], settings["pass_basic_auth"]) == (False, False)
    auth = oauth2_proxy["Middleware"]["spec"]["forwardAuth"]
    assert auth["authResponseHeaders"] == ["Authorization"]
    cookies = auth["addAuthCookiesToResponse"]
    assert cookies == [settings["cookie_name"] + part for part in ("", "_0", "_1", "_2")]
    policy = oauth2_proxy["NetworkPolicy"]["spec"]
    (allowed,) = policy["ingress"]
    assert allowed["from"][0]["podSelector"] == {
        "matchLabels": {"app.kubernetes.io/name": "traefik"}
    }
    assert policy["egress"][1:] == [{"ports": [{"port": 443, "protocol": "TCP"}]}]


def test_signing_out_ends_the_session_at_the_provider_and_a_sites_settings_win(
    rendered, oauth2_proxy
):
    assert "backend_logout_url" not in proxy_settings(oauth2_proxy)
    objects = rendered["oauth2_proxy that signs out there"]
    settings = proxy_settings(objects)
    logout = "https://id.example.org:8443/logout?id_token_hint={id_token}"
    assert settings["backend_logout_url"] == logout
    assert (settings["prompt"], settings["cookie_samesite"]) == ("consent", "strict")
    assert settings["provider_ca_files"] == ["/run/secrets/oauth2-proxy/ca.crt"]
    ports = [rule["ports"][0]["port"] for rule in objects["NetworkPolicy"]["spec"]["egress"][1:]]
    assert ports == [443, 8443]
    named = objects["ConfigMap"]["metadata"]["name"]
    assert named != oauth2_proxy["ConfigMap"]["metadata"]["name"], "other settings, other pods"
    (config, _) = objects.pod["volumes"]
    assert config["configMap"]["name"] == named


def test_secrets_of_sign_in_are_in_no_object(rendered):
    for site in ("oauth2_proxy", "oauth2_proxy that signs out there"):
        for secret in (*SIGN_IN_SECRETS.values(), "the CA of the provider"):
            assert secret not in str(rendered[site].all)
            assert base64.b64encode(secret.encode()).decode() not in str(rendered[site].all)


def test_what_replicas_read_comes_as_files_and_is_in_no_object(rendered):
    objects = rendered["chat with secrets"]
    kubernetes_validate.validate(objects["Deployment"], "1.36", strict=True)
    (container,) = objects.pod["containers"]
    (mount,) = container["volumeMounts"]
    (volume,) = objects.pod["volumes"]
    assert volume == {"name": mount["name"], "secret": {"secretName": "chat-files-x7k2p"}}
    files = {
        name: value
        for name, value in objects["ConfigMap"]["data"].items()
        if name.startswith("KAFKA_") and name.endswith("_FILE")
    }
    assert len(files) == len(SECRETS)
    assert all(path.startswith(mount["mountPath"]) for path in files.values())
    for content in (*SECRETS.values(), "the CA of the provider"):
        assert content not in str(objects.all)


def test_of_brokers_that_are_secured_the_chat_needs_only_the_password_to_be_told(rendered):
    told = rendered["chat of a secured cluster"]["ConfigMap"]["data"]
    assert {name: told[name] for name in SASL} == SASL
    assert {name for name in told if name.endswith("_FILE")} == {
        "KAFKA_CA_FILE",
        "KAFKA_SASL_PASSWORD_FILE",
    }


@pytest.fixture
def webhooks(rendered):
    """The objects that exist for webhooks alone, by their kinds."""
    name = "app.kubernetes.io/name"
    found = rendered["chat with webhooks"].all
    return {one["kind"]: one for one in found if one["metadata"]["labels"][name] == "webhooks"}


def test_kubernetes_knows_every_field_of_webhooks(webhooks):
    assert sorted(webhooks) == [
        *("Deployment", "NetworkPolicy", "Role", "RoleBinding", "ServiceAccount")
    ]
    for item in webhooks.values():
        kubernetes_validate.validate(item, "1.36", strict=True)


def test_one_pod_sends_webhooks_and_goes_on_on_another_host(webhooks, chat):
    spec = webhooks["Deployment"]["spec"]
    # `Recreate` would wait for a pod on a dead host, which does not end.
    strategy = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}}
    assert (spec["replicas"], spec["strategy"]) == (1, strategy)
    pod = spec["template"]["spec"]
    # Half a minute with the 20 s after which Kubernetes knows of a dead host.
    assert {one["tolerationSeconds"] for one in pod["tolerations"]} == {15}
    (container,) = pod["containers"]
    (replica,) = chat.pod["containers"]
    assert container["image"] == replica["image"]
    assert container["securityContext"] == replica["securityContext"]
    # Of Kubernetes, only members of this group may read the secrets.
    group = {"fsGroup": 10001}
    assert pod["securityContext"] == chat.pod["securityContext"] | group
    (volume,) = pod["volumes"]
    assert volume["secret"]["defaultMode"] == 0o440
    assert container["resources"]["limits"] == {"memory": "136Mi"}
    assert container["env"] == [{"name": "SSL_CERT_FILE", "value": "/run/secrets/webhooks/ca.crt"}]


def test_webhooks_may_change_their_state_and_nothing_else(webhooks):
    (rule,) = webhooks["Role"]["rules"]
    assert rule == {
        "apiGroups": [""],
        "resources": ["secrets"],
        "resourceNames": ["webhooks-state"],
        "verbs": ["get", "patch"],
    }
    (subject,) = webhooks["RoleBinding"]["subjects"]
    pod = webhooks["Deployment"]["spec"]["template"]["spec"]
    assert subject["name"] == pod["serviceAccountName"]


def test_webhooks_connect_to_the_chat_the_api_and_the_ports_of_receivers(rendered, webhooks):
    policy = webhooks["NetworkPolicy"]["spec"]
    assert policy["podSelector"]["matchLabels"]["app.kubernetes.io/name"] == "webhooks"
    dns, chat, others = policy["egress"]
    assert dns["ports"] == [{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}]
    assert chat["to"][0]["podSelector"]["matchLabels"]["app.kubernetes.io/name"] == "chat"
    assert chat["ports"] == [{"port": 8888, "protocol": "TCP"}]
    assert others == {
        "ports": [{"port": port, "protocol": "TCP"} for port in (16443, 8443, 443, 80)]
    }
    (monitoring,) = policy["ingress"]
    assert monitoring["ports"] == [{"port": "webhooks", "protocol": "TCP"}]
    # The chat's side.
    (own,) = [
        item
        for item in rendered["chat with webhooks"].named("NetworkPolicy")
        if item["metadata"]["name"] == "chat"
    ]
    (admitted,) = [
        rule for rule in own["spec"]["ingress"] if "namespaceSelector" not in rule["from"][0]
    ]
    assert admitted["from"] == [{"podSelector": policy["podSelector"]}]
    assert admitted["ports"] == [{"port": "web", "protocol": "TCP"}]
    environment = rendered["chat with webhooks"]["ConfigMap"]["data"]
    assert environment["CHAT_HOSTS"] == "chat.example.org,chat.chat.svc"


def test_addresses_and_secrets_of_receivers_are_in_no_object(rendered):
    for secret in (HOOK["secret"], HOOK["url"], "the CA of the receivers"):
        assert secret not in str(rendered["chat with webhooks"].all)


def test_without_webhooks_there_is_none_of_their_objects(chat):
    assert "webhooks" not in str(chat.all)


def test_without_secrets_nothing_is_mounted(chat):
    assert "volumes" not in chat.pod
    assert "_FILE" not in str(chat["ConfigMap"])


def test_the_chat_knows_the_name_it_is_reached_by(rendered, chat):
    assert chat["ConfigMap"]["data"]["CHAT_HOSTS"] == ""
    named = rendered["chat with a name"]
    assert named["ConfigMap"]["data"]["CHAT_HOSTS"] == "chat.example.org"
    several = rendered["chat with several names"]
    assert several["ConfigMap"]["data"]["CHAT_HOSTS"] == "chat.example.org,chat"


def test_the_chat_trusts_the_network_of_pods(rendered, chat):
    assert chat["ConfigMap"]["data"]["CHAT_TRUSTED_PROXIES"] == "10.1.0.0/16"
    moved = rendered["chat on another network"]
    assert moved["ConfigMap"]["data"]["CHAT_TRUSTED_PROXIES"] == "10.42.0.0/16"


def settings(objects):
    return yaml.safe_load(objects["ConfigMap"]["data"]["traefik.yml"])


def test_traefik_shows_its_insides_to_nobody(traefik):
    assert "api" not in settings(traefik)
    (container,) = traefik.pod["containers"]
    published = {p["name"]: p["hostPort"] for p in container["ports"] if "hostPort" in p}
    assert published == {"web": 80, "websecure": 443}
    assert {port["targetPort"] for port in traefik["Service"]["spec"]["ports"]} == set(published)


def test_traefik_may_read_in_the_namespaces_it_serves_and_nothing_else(rendered, traefik):
    for objects, served in (
        # Not chat-ca, with the key of the chat's authority.
        (traefik, {"traefik", "chat"}),
        (rendered["traefik for several namespaces"], {"traefik", "chat", "forum"}),
    ):
        kinds = {item["kind"] for item in objects.all}
        assert not {"ClusterRole", "ClusterRoleBinding"} & kinds
        roles = [item for item in objects.all if item["kind"] == "Role"]
        bindings = [item for item in objects.all if item["kind"] == "RoleBinding"]
        for items in (roles, bindings):
            assert [item["metadata"]["namespace"] for item in items] == sorted(served, key=order)
        assert {verb for role in roles for rule in role["rules"] for verb in rule["verbs"]} == {
            "get",
            "list",
            "watch",
        }
        assert all(
            subject["namespace"] == "traefik" for item in bindings for subject in item["subjects"]
        )
        provider = settings(objects)["providers"]["kubernetesCRD"]
        # It would wait forever for what it may not list.
        assert set(provider["namespaces"]) == served
        assert provider["disableClusterScopeResources"] is True


def order(namespace):
    """Traefik's own first, then as the site lists them."""
    return ["traefik", "chat", "forum"].index(namespace)


def test_traefik_refuses_old_tls_and_weak_suites(traefik):
    option = traefik["TLSOption"]
    # Traefik applies the one of this name to routes that name no other.
    assert option["metadata"]["name"] == "default"
    assert option["spec"]["minVersion"] == "VersionTLS12"
    for suite in option["spec"]["cipherSuites"]:
        assert suite.startswith("TLS_ECDHE_")
        assert "GCM" in suite or "CHACHA20" in suite


def test_a_host_that_is_down_delays_nobody_for_long(traefik):
    assert settings(traefik)["serversTransport"]["forwardingTimeouts"]["dialTimeout"] == "300ms"


@pytest.fixture
def echo():
    """The port of a server that says everything back over WebSocket."""

    def say_back(connection):
        for text in connection:
            connection.send(text)

    with serve(say_back, "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.socket.getsockname()[1]
        server.shutdown()
    thread.join()


def sockets(objects):
    """The middlewares at Traefik's public entry points, by name."""
    found = {
        f"{item['metadata']['namespace']}-{item['metadata']['name']}@kubernetescrd": item["spec"]
        for item in objects.all
        if item["kind"] == "Middleware"
    }
    for entry in ("web", "websecure"):
        wanted = settings(objects)["entryPoints"][entry]["http"]["middlewares"]
        assert wanted == list(found)
    return found


async def test_one_socket_too_many_is_refused_until_one_is_closed(rendered, echo, tmp_path):
    """Of an address, and of all together, whatever address its client says that it has."""
    port = free_port()
    few = rendered["traefik for three at once"]
    middlewares = {name.partition("@")[0]: spec for name, spec in sockets(few).items()}
    entry = settings(few)["entryPoints"]["websecure"] | {"address": f"127.0.0.1:{port}"}
    entry["http"]["middlewares"] = [f"{name}@file" for name in middlewares]
    routing = {
        "middlewares": middlewares,
        "routers": {"echo": {"rule": "PathPrefix(`/`)", "service": "echo", "tls": {}}},
        "services": {"echo": {"loadBalancer": {"servers": [{"url": f"http://127.0.0.1:{echo}"}]}}},
    }
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE

    def client(source):
        return connect(
            f"wss://127.0.0.1:{port}/",
            ssl=context,
            local_addr=(source, 0),
            open_timeout=PATIENCE_SECONDS,
            additional_headers={"X-Forwarded-For": str(uuid.uuid4())},
        )

    async def is_refused(source):
        try:
            async with client(source) as connection, asyncio.timeout(PATIENCE_SECONDS):
                await connection.send("hello")
                assert await connection.recv() == "hello"
        except InvalidStatus as refusal:
            return refusal.response.status_code == 429
        return False

    async def is_soon_welcome(source):
        deadline = time.monotonic() + PATIENCE_SECONDS
        while await is_refused(source):
            assert time.monotonic() < deadline
            await asyncio.sleep(0.05)
        return True

    one, other, third = (f"127.0.0.{number}" for number in (2, 3, 4))
    settings_of_entry = {"entryPoints": {"websecure": entry}}
    with traefik_program(tmp_path, port, settings_of_entry, {"http": routing}):
        async with client(one):
            async with client(one):
                assert await is_refused(one)
                assert await is_soon_welcome(other)
                async with client(other):
                    assert await is_refused(third)
            assert await is_soon_welcome(one)


def test_traefik_has_memory_for_all_sockets_that_it_takes(traefik):
    (container,) = traefik.pod["containers"]
    limit = int(container["resources"]["limits"]["memory"].removesuffix("Mi"))
    # 112 KiB each; bench/edge.py measures it.
    most = sockets(traefik)["traefik-sockets@kubernetescrd"]["inFlightReq"]["amount"]
    assert limit >= 512 + most * 112 / 1024
    (collected,) = [it["value"] for it in container["env"] if it["name"] == "GOMEMLIMIT"]
    assert limit / 2 < int(collected.removesuffix("MiB")) < limit


def test_a_sites_settings_win_and_null_takes_one_away(rendered, traefik):
    assert settings(traefik)["ping"] == {"entryPoint": "traefik"}
    after = settings(rendered["traefik that says more"])
    assert after["log"] == {"format": "json", "level": "DEBUG"}
    assert after["metrics"] is None
    assert after["ping"] == {"entryPoint": "traefik"}
