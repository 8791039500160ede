"""Wrong variables that the roles refuse: the cases that need no installed hosts.

Each case is a host in a group of its own, on this machine. All cases share one run. Cases that need
installed hosts are in molecule/kafka/tests/test_refusals.py.
"""

import contextlib
import json
import re
import socket
import struct
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_runs import ansible_playbook

# The first test runs all cases, which takes minutes on a busy machine.
pytestmark = pytest.mark.timeout(900)


def cluster(*members: list[str]) -> dict[str, Any]:
    """A cluster, as a control plane reports it."""
    return {"host": "any", "uid": "1", "created": "2026", "nodes": 2, "members": list(members)}


NOTHING = "nothing was refused"

# Two disks: one has data, the other is missing.
BOTH = ["{{ disk }}/kafka", "{{ disk }}/away"]

Cases = dict[str, tuple[dict[str, Any], list[str]]]

KAFKA: Cases = {
    "a broker id with a leading zero": (
        {"kafka_broker_id": "02"},
        ["kafka_broker_id is '02': write 2"],
    ),
    "data directories as one string": (
        {"kafka_data_directories": "/srv/a/kafka,/srv/b/kafka"},
        ["kafka_data_directories is the text", "write a list, [/srv/a/kafka, /srv/b/kafka]"],
    ),
    "the old variable for a single data directory": (
        {"kafka_data_directory": "/srv/a/kafka"},
        ["kafka_data_directory (did you mean kafka_data_directories?)"],
    ),
    "a missing disk of a broker with several": (
        {"before": BOTH, "kafka_data_directories": BOTH},
        ["/away in kafka_data_directories is not there", "docs/operations/disks.md"],
    ),
    "a disk removed from the variable although it has data": (
        {"before": BOTH, "kafka_data_directories": ["{{ disk }}/new"]},
        ["the broker's data is in /var/lib/preflight-", "docs/operations/disks.md"],
    ),
    "data of another cluster than ZooKeeper's": (
        {
            "kafka_zookeeper_connect": "{{ ensemble }}/kafka/",
            "kafka_data_directories": ["{{ disk }}/kafka"],
        },
        [
            "the data in /var/lib/preflight-",
            "belongs to the Kafka cluster cluster-of-the-data, and ZooKeeper at",
            "/kafka/ knows cluster-of-zookeeper.",
            "docs/operations/backup.md",
        ],
    ),
    "data of a cluster that ZooKeeper does not know": (
        {
            "kafka_zookeeper_connect": "{{ ensemble }}/empty",
            "kafka_data_directories": ["{{ disk }}/kafka"],
        },
        ["belongs to the Kafka cluster cluster-of-the-data, and", "/empty knows no cluster."],
    ),
    "a comma in a path": (
        {"kafka_data_directories": ["/srv/a,b/kafka"]},
        ["'/srv/a,b/kafka' (kafka_data_directories,", "Give an absolute path of the characters"],
    ),
    "a blank in a path": (
        {"kafka_log_directory": "/srv/log disk/kafka"},
        ["'/srv/log disk/kafka'", "kafka_log_directory", "of the characters"],
    ),
    "no data directory": (
        {"kafka_data_directories": []},
        ["kafka_data_directories is []", "at least one"],
    ),
    "a data directory twice": (
        {"kafka_data_directories": ["/srv/a/kafka", "/srv/a/kafka"]},
        ["each once"],
    ),
    "a data directory inside another": (
        {"kafka_data_directories": ["/srv/a/kafka-2", "/srv/a/kafka/in", "/srv/a/kafka"]},
        ["none inside of another"],
    ),
    "somebody else's directory among several": (
        {"kafka_data_directories": ["/srv/a/kafka", "/etc"]},
        ["/etc in kafka_data_directories holds", "no data of a broker"],
    ),
    "a small disk among several": (
        {"kafka_data_directories": ["/srv/a/kafka", "/srv/b/kafka"], "kafka_min_disk_mb": 10**9},
        ["MB free for /srv/a/kafka", "kafka_min_disk_mb"],
    ),
    "a list instead of a number": (
        {"kafka_config": {"log.retention.hours": [1, 2], "log.cleanup.policy": ["compact"]}},
        ["kafka_config, log.retention.hours is [1, 2]: Kafka takes one int, not a list."],
    ),
    "a topic's setting with a wrong type": (
        {"kafka_topics": [{"name": "lobby", "config": {"retention.ms": "1d"}}]},
        ["topic 'lobby' in kafka_topics, retention.ms is '1d': write a whole number"],
    ),
    "a topic that is declared twice": (
        {"kafka_topics": [{"name": "lobby", "partitions": n} for n in (12, 24)]},
        ["kafka_topics declares lobby, lobby. Declare each topic once"],
    ),
    "topic names that Kafka does not accept": (
        {"kafka_topics": [{"name": name} for name in ("chat room", "..", "a" * 250, "fine")]},
        [f"'chat room', '..', '{'a' * 250}' in kafka_topics cannot be the name of a topic"],
    ),
    "plaintext for a cluster that is installed with TLS": (
        {"found": "tls"},
        ["the brokers are installed with tls. playbooks/secure.yml moves them while they run; or"],
    ),
    "a run during a move to TLS": (
        {"found": "moved", "kafka_security": "tls"},
        ["on their way, at the stage moved. playbooks/secure.yml goes on with them"],
    ),
    "a move to TLS of listeners with the site's own certificates": (
        {
            "found": "plaintext",
            "told": {"listener.security.protocol.map": "INTERNAL:PLAINTEXT,CLUSTER:SASL_SSL"},
            "kafka_security": "tls",
            "kafka_security_moves": True,
        },
        ["INTERNAL:PLAINTEXT, CLUSTER:SASL_SSL. playbooks/secure.yml moves only listeners with"],
    ),
    "interim ports that other listeners use": (
        {"found": "plaintext", "kafka_security_moves": True, "kafka_security_interim_ports": 1},
        ["also 1 higher (kafka_security_interim_ports)"],
    ),
    "an interrupted step that would close ports with clients": (
        {
            "found": "plaintext",
            "kafka_security_moves": True,
            "kafka_listeners": {"CLIENT": {"port": "{{ connected_port }}"}},
            "kafka_security_interim_ports": "{{ open_port - connected_port }}",
        },
        ["the next step closes CLIENT_TLS and CLUSTER_TLS, and clients", "there from 127.0.0.1."],
    ),
    # This is accepted. The id, which is checked next, is refused.
    "clients on a port that stays open": (
        {
            "found": "plaintext",
            "kafka_security_moves": True,
            "kafka_listeners": {"CLIENT": {"port": "{{ connected_port }}"}},
            "kafka_broker_id": 1001,
        },
        ["has kafka_broker_id 1001, which is not in 0 to 1000"],
    ),
    "clients that may be disconnected": (
        {
            "found": "plaintext",
            "kafka_security_moves": True,
            "kafka_allow_disconnect": True,
            "kafka_listeners": {"CLIENT": {"port": "{{ connected_port }}"}},
            "kafka_broker_id": 1001,
            "kafka_security_interim_ports": "{{ open_port - connected_port }}",
        },
        ["has kafka_broker_id 1001, which is not in 0 to 1000"],
    ),
    "a listener name that ends in _TLS": (
        {"kafka_listeners": {"CLUSTER_TLS": {"port": 9094}}},
        ["no name that ends in _TLS"],
    ),
    # This is accepted. The id, which is checked next, is refused.
    "TLS settings for an external ensemble": (
        {"told": {"zookeeper.ssl.client.enable": "true"}, "kafka_broker_id": 1001},
        ["has kafka_broker_id 1001, which is not in 0 to 1000"],
    ),
    "a listener without TLS beside listeners with TLS": (
        {"kafka_security": "tls", "kafka_listeners": {"CLUSTER": {"protocol": "PLAINTEXT"}}},
        ["INTERNAL speak SSL, CLIENT speak SSL, CLUSTER speak PLAINTEXT.", "leave them out"],
    ),
    "passwords on the playbooks' own listener": (
        {"kafka_security": "tls", "kafka_listeners": {"CLIENT": {"protocol": "SASL_SSL"}}},
        ["protocol of CLIENT to SASL_SSL, but the playbooks use this listener with SSL"],
    ),
    "TLS with an external ensemble": (
        {"kafka_security": "tls"},
        ["kafka_zookeeper_connect '127.0.0.1:1/kafka'", "in the group 'zookeeper' of this"],
    ),
    "a setting that kafka_security computes": (
        {"kafka_security": "tls", "kafka_config": {"super.users": "User:ada"}},
        ["kafka_config sets super.users", "Set kafka_security instead"],
    ),
    "users without kafka_security": (
        {"kafka_users": [{"name": "ada", "password": "secret"}]},
        ["kafka_users names ada", "and kafka_security is plaintext"],
    ),
    "a user with the name of a certificate": (
        {"kafka_security": "tls", "kafka_users": [{"name": "CN=kafka", "password": "secret"}]},
        ["kafka_users names CN=kafka, kafka_acls nobody. Give each user once, without ',' and '='"],
    ),
    "a user name that cannot be the name of a password file": (
        {"kafka_security": "tls", "kafka_users": [{"name": "../ada"}, {"name": "bob"}]},
        ["no password for ../ada and bob. One is made and kept in a file of the user's name"],
    ),
    "a user with an empty password": (
        {"kafka_security": "tls", "kafka_users": [{"name": "ada", "password": ""}]},
        ["Give each user once", "a password that is not empty or none at all"],
    ),
    "users as one string": (
        {"kafka_users": "name=ada password=battery-staple"},
        ["kafka_users is no list of mappings. Write one, each with name."],
    ),
    "a user as a string": (
        {"kafka_users": ["name=ada password=battery-staple"]},
        ["kafka_users is no list of mappings."],
    ),
    "a user as a list": (
        {"kafka_users": [["ada", "battery-staple"]]},
        ["kafka_users is no list of mappings."],
    ),
    "topics whose metrics would collide": (
        {"kafka_topics": [{"name": name} for name in ("a.b", "lobby", "a_b")]},
        ["kafka_topics declares a.b, a_b.", "differ only in '.' and '_'"],
    ),
    "a misspelt variable": (
        {"kafka_heep": "1g"},
        ["kafka_heep (did you mean kafka_heap?)"],
    ),
    "a setting that has its own variable": (
        {"kafka_config": {"advertised.listeners": "PLAINTEXT://192.0.2.1:9092"}},
        ["kafka_config sets advertised.listeners, which has its own variable. Set kafka_listeners"],
    ),
    "a listener that the playbooks cannot use": (
        {"kafka_listeners": {"CLIENT": {"protocol": "SASL_SSL"}}},
        ["CLIENT to SASL_SSL", "another listener for your clients"],
    ),
    "a directory that the unit cannot see": (
        {"kafka_data_directories": ["/home/kafka"]},
        ["'/home/kafka' (kafka_data_directories", "outside of /home"],
    ),
    "a value of the wrong type": (
        {"kafka_topics": "lobby"},
        ["'kafka_topics' is of type str"],
    ),
    "a heap larger than half of the memory": (
        {"kafka_heap": "640g"},
        ["kafka_heap", "640g", "half"],
    ),
    "an advertised name that does not resolve": (
        {"kafka_listeners": {"INTERNAL": {"advertised_host": "broker.invalid"}}},
        ["cannot reach broker.invalid:9091", "kafka_listeners"],
    ),
    "more replicas in sync than replicas": (
        {"kafka_config": {"min.insync.replicas": 4}},
        ["min.insync.replicas is 4, more than default.replication.factor, 1"],
    ),
    "a default replication factor larger than the number of brokers": (
        {"kafka_config": {"default.replication.factor": 4}},
        ["default.replication.factor is 4", "has 1 brokers"],
    ),
    "an id out of range": (
        {"kafka_broker_id": 1001},
        ["has kafka_broker_id 1001, which is not in 0 to 1000"],
    ),
    "another broker's id": (
        {"kafka_group": "two_brokers", "kafka_broker_id": 7},
        ["has kafka_broker_id 7, as has broker."],
    ),
    "two listeners on one port": (
        {"kafka_listeners": {"CLIENT": {"port": 9091}}},
        ["kafka_listeners makes", "'CLIENT': {'port': 9091}", "a port of its own"],
    ),
    "a listener on the metrics' port": (
        {"kafka_metrics_enabled": True, "kafka_listeners": {"CLIENT": {"port": 9404}}},
        ["the metrics have kafka_metrics_port 9404", "a port of its own"],
    ),
    "a listener on a port of the member on the same host": (
        {
            "zookeeper_endpoints": {"client": "192.0.2.11:2181", "peer": "192.0.2.11:2888:3888"},
            "kafka_listeners": {"CLIENT": {"port": 2888}},
        },
        ["ZooKeeper has 2181, 2888, 3888. Give each", "a port of its own"],
    ),
    "a host with too little memory": (
        {"kafka_min_memory_mb": 16_001},
        ["has 16000 MB of memory, but its services need", "kafka_min_memory_mb 16001"],
    ),
    "a host with memory for only one of its services": (
        {"host_memory_needed": {"zookeeper_min_memory_mb": 700}, "kafka_min_memory_mb": 15_400},
        ["kafka_min_memory_mb 15400, zookeeper_min_memory_mb 700", "fewer services on this one"],
    ),
    "a small disk beside one with data": (
        {"kafka_data_directories": ["{{ disk }}/kafka", "/srv/b/kafka"]}
        | {"kafka_min_disk_mb": 10**9},
        ["MB free for /srv/b/kafka", "kafka_min_disk_mb"],
    ),
}

ZOOKEEPER: Cases = {
    "a member's id with a leading zero": (
        {"zookeeper_id": "02"},
        ["zookeeper_id is '02': write 2"],
    ),
    "a member's path that is not absolute": (
        {"zookeeper_log_directory": "logs"},
        ["'logs' (zookeeper_data_directory, zookeeper_log_directory,", "an absolute path"],
    ),
    "a blank in a member's path": (
        {"zookeeper_data_directory": "/srv/data disk/zookeeper"},
        ["'/srv/data disk/zookeeper' (zookeeper_data_directory,", "of the characters"],
    ),
    "a member's id out of range": (
        {"zookeeper_id": 256},
        ["has zookeeper_id 256, which is not in 1 to 255"],
    ),
    "another member's id": (
        {"zookeeper_group": "two_members", "zookeeper_id": 7},
        ["has zookeeper_id 7, as has member."],
    ),
    "a member's port twice": (
        {"zookeeper_peer_port": 3888},
        ["zookeeper_client_port is 2181, zookeeper_peer_port 3888", "zookeeper_election_port 3888"],
    ),
    "a member's port that its metrics use": (
        {"zookeeper_metrics_enabled": True, "zookeeper_peer_port": 9405},
        ["zookeeper_peer_port 9405", "and zookeeper_metrics_port 9405. Give each a port"],
    ),
    "a member's port out of range": (
        {"zookeeper_peer_port": 70_000},
        ["zookeeper_peer_port 70000", "a port of its own, 1 to 65535"],
    ),
    "a member's data in somebody else's directory": (
        {"zookeeper_config": {"dataLogDir": "/etc"}},
        ["/etc (zookeeper_data_directory, or dataLogDir in", "holds", "no data of a member"],
    ),
    "a member's directory in somebody's home": (
        {"zookeeper_log_directory": "/home/zookeeper"},
        ["'/home/zookeeper' (zookeeper_data_directory,", "outside of /home, /root and /tmp"],
    ),
    "a member's directory in /tmp": (
        {"zookeeper_data_directory": "/tmp/zookeeper"},
        ["'/tmp/zookeeper' (zookeeper_data_directory,", "outside of /home, /root and /tmp"],
    ),
    "a setting of ZooKeeper that has its own variable": (
        {"zookeeper_config": {"clientPort": 2182}},
        ["zookeeper_config sets clientPort, which has its own variable. Set zookeeper_client_port"],
    ),
    "a member that cannot be reached": (
        {"zookeeper_address": "member.invalid"},
        ["cannot reach member.invalid:3888", "zookeeper_address"],
    ),
}

KAFKA_TLS: Cases = {
    "a relative path for the authority": (
        {"kafka_tls_directory": "kafka-tls"},
        ["kafka_tls_directory is 'kafka-tls'.", "give the absolute path of a folder"],
    ),
    "certificates that would be renewed at every run": (
        {"kafka_tls_days": 30},
        ["kafka_tls_days is 30, kafka_tls_renew_days 90. A certificate is renewed before"],
    ),
    "an IPv6 address that certificates write differently": (
        {"kafka_tls_names": ["broker1.example.org", "FD00:0::1"]},
        ["in kafka_tls_names, FD00:0::1: write fd00::1."],
    ),
    "a new authority in a run with --limit": (
        {"ansible_limit": "chat4"},
        ["has no authority, and the hosts that --limit chat4 leaves out may trust one."],
    ),
    "a run for a new host, of a cluster whose other hosts are not in the run": (
        {"kafka_security_unasked": ["chat1", "chat2"]},
        [
            "kafka_security is not set, and no host",
            "chat1, chat2 may have, and are not in this run",
        ],
    ),
    "a folder that does not exist yet": ({}, [NOTHING]),
}

# The group has running brokers, which use PLAINTEXT among each other.
RUNNING: Cases = {
    "another protocol between brokers": (
        {"kafka_listeners": {"INTERNAL": {"protocol": "SSL"}}},
        ["INTERNAL speak SSL, and the running broker speaks PLAINTEXT", "stop kafka on all hosts"],
    ),
    "the current protocol between brokers": (
        {"kafka_listeners": {"CLUSTER": {"protocol": "SSL"}}},
        [NOTHING],
    ),
    "an interrupted move to TLS in which another broker already has its final settings": (
        {"found": "tls", "kafka_security": "tls", "kafka_security_moves": True},
        [NOTHING],
    ),
    "another protocol for a single broker": (
        {"kafka_listeners": {"INTERNAL": {"protocol": "SSL"}}, "kafka_group": "only_running0"},
        [NOTHING],
    ),
}

# __microk8s_cluster: the cluster's nodes with their addresses.
MICROK8S: Cases = {
    "a host that was renamed after it joined": (
        {
            "checks": "renamed",
            "__microk8s_cluster": cluster(["chat0", "192.0.2.1"], ["before", "127.0.0.1"]),
        },
        [
            "has the host name 'chat1', and the node with its address 127.0.0.1 is called before.",
            "hostnamectl set-hostname before",
            "microk8s remove-node before",
        ],
    ),
    "a host that kept its name": (
        {
            "checks": "renamed",
            "__microk8s_cluster": cluster(["chat1", "127.0.0.1"], ["chat0", "192.0.2.1"]),
        },
        [NOTHING],
    ),
    "workers only": (
        {"microk8s_worker": True},
        ["have microk8s_worker: true.", "Set it to false for one host, or for three"],
    ),
    "two control planes": (
        {"microk8s_group": "two_control_planes"},
        [
            "and companion would be the cluster's only control planes",
            "Set microk8s_worker: true for companion, or add a third host",
        ],
    ),
    "two hosts of which one is a worker": (
        {"microk8s_group": "one_worker", "microk8s_min_memory_mb": 10**9},
        ["microk8s_min_memory_mb"],
    ),
}


VIRTUAL_IP: Cases = {
    "a name as the virtual IP": (
        {"virtual_ip_address": "chat.example.org"},
        ["virtual_ip_address='chat.example.org'", "192.0.2.0/255.255.255.0 (eth-0)"],
    ),
    "a virtual IP in another network": (
        {"virtual_ip_address": "198.51.100.9"},
        ["virtual_ip_address='198.51.100.9': give a free IPv4 address in the network of"],
    ),
    "a broadcast address as the virtual IP": (
        {"virtual_ip_address": "192.0.2.255"},
        ["virtual_ip_address='192.0.2.255'"],
    ),
    "a host's own address as the virtual IP": (
        {"virtual_ip_address": "192.0.2.11"},
        ["virtual_ip_address=192.0.2.11 is the address of virtual_ip"],
    ),
    "an interface without an address": (
        {"virtual_ip_interface": "eth9"},
        ["virtual_ip_interface=eth9 is no interface with an IPv4 address. It has eth-0"],
    ),
    "a password too long for VRRP": (
        {"virtual_ip_password": "ninechars"},
        ["virtual_ip_password with 9 characters"],
    ),
    "a password that would inject settings": (
        {"virtual_ip_password": "a\n}"},
        ["virtual_ip_password with 3 characters"],
    ),
    "a keepalived configuration that is not the role's": (
        {"configuration": "{{ disk }}/keepalived.conf"},
        ["/keepalived.conf is not this role's", "docs/operations/way-in.md"],
    ),
    "a valid virtual IP": ({}, [NOTHING]),
}

FILES = "/run/secrets/chat/"
HOOK = {
    "name": "hook",
    "room": "lobby",
    "url": "https://hooks.example.org/path",
    "secret": "whsec_YmF0dGVyeSBzdGFwbGUgY29ycmVjdCBob3JzZQ==",
}

# Case does not count.
GROUPS = {
    "CHAT_AUTH": "required",
    "CHAT_AUTH_ISSUERS": [{"issuer": "edge", "audience": "chat", "groups_claim": "groups"}],
}
AUDIT = {"chat_audit_room": "Audit", "chat_config": GROUPS}
AUDITED = {"rooms": "audit", "read": ["desk"], "write": []}

CHAT: Cases = {
    "an image without a registry in its name": (
        {"chat_image": f"library/redis@sha256:{'0' * 64}"},
        ["chat_image='library/redis@sha256:", "for example docker.io/library/..."],
    ),
    "an image by tag": (
        {"chat_image": "registry.example.org/chat:1.0"},
        ["chat_image='registry.example.org/chat:1.0'", "HOST/NAME@sha256:..."],
    ),
    "chat_tls with a URL of plain HTTP": (
        {"chat_url": "http://chat.example.org/"},
        ["chat_tls=True, chat_url='http://chat.example.org/'.", "set chat_tls to false"],
    ),
    "a certificate without chat_tls": (
        {"chat_tls": False, "chat_tls_certificate": "-----BEGIN CERTIFICATE-----"}
        | {"chat_tls_key": "-----BEGIN PRIVATE KEY-----"},
        ["chat_tls=False", "with chat_tls_certificate", "leave chat_tls_certificate empty"],
    ),
    "a chat behind a balancer that ends TLS": (
        {"chat_tls": False, "chat_url": "https://chat.example.org/", "chat_tls_ca_file": ""},
        [NOTHING],
    ),
    "ACME for an IP address": (
        {"chat_acme": True, "chat_url": "https://192.0.2.10/"},
        ["chat_acme=true", "chat_acme_names=[]", "a host name (give chat_url with it)"],
    ),
    "ACME together with a certificate of the site": (
        {"chat_acme": True, "chat_url": "https://chat.example.org/"}
        | {"chat_tls_certificate": "-----BEGIN CERTIFICATE-----"}
        | {"chat_tls_key": "-----BEGIN PRIVATE KEY-----"},
        ["ACME needs chat_tls, no certificate of your own"],
    ),
    "ACME's production directory without ACME": (
        {"chat_acme_production": True},
        ["chat_acme_production=true, chat_acme=false: set both"],
    ),
    "sign-in without HTTPS": (
        {"chat_tls": False, "chat_tls_ca_file": "", "chat_config": {"CHAT_AUTH": "required"}},
        ["CHAT_AUTH=required with chat_url='http://", "whoever reads a token can use it"],
    ),
    "sign-in of browsers to a chat without sign-in": (
        {"chat_sign_in": True},
        ["chat_sign_in=true with CHAT_AUTH=off in chat_config: set CHAT_AUTH to required"],
    ),
    "rules for rooms without sign-in": (
        {"chat_rooms": [{"rooms": "*", "read": []}]},
        ["chat_rooms has 1 rules, and chat_config: CHAT_AUTH=off: without sign-in, nobody"],
    ),
    "a rule for rooms with a misspelt field": (
        {"chat_rooms": [{"rooms": "*", "reads": ["staff"]}]},
        ["reads", "Supported parameters include: moderate, read, rooms, slow, write"],
    ),
    "a slow mode of more than a day": (
        {
            "chat_rooms": [{"rooms": "*", "slow": 86_401}],
            "chat_config": {"CHAT_AUTH": "required"},
        },
        ["chat_rooms: rooms=*, slow=86401: give the seconds"],
    ),
    "a password in addition to the one that role kafka generates": (
        {
            "chat_kafka_group": "{{ own_group }}",
            "kafka_client": {"ca_file": "/nowhere/ca.crt"},
            "kafka_passwords_made": ["chat"],
            "chat_kafka_sasl_password": "battery staple",
        },
        ["chat_kafka_sasl_password is set, and kafka_users has chat without a password"],
    ),
    "a Kafka user whose password role kafka generates later": (
        {
            "chat_kafka_group": "{{ own_group }}",
            "kafka_client": {"ca_file": "/nowhere/ca.crt"},
            "kafka_passwords_made": ["chat"],
        },
        [NOTHING],
    ),
    "brokers that do not answer, and an inventory without kafka_security": (
        {
            "chat_kafka_group": "{{ own_group }}",
            "kafka_security_unasked": ["chat1", "{{ inventory_hostname }}"],
        },
        ["Not asked: chat", "Set kafka_security to what the brokers have, tls or plaintext"],
    ),
    "sanctions without sign-in": (
        {"chat_sanctions": True},
        ["chat_sanctions=true with CHAT_AUTH=off in chat_config, and 0 rules", "set CHAT_AUTH"],
    ),
    "sanctions without sign-in, in chat_config": (
        {"chat_config": {"CHAT_SANCTIONS": "true"}},
        ["CHAT_SANCTIONS=true with CHAT_AUTH=off in chat_config, and 0 rules", "set CHAT_AUTH"],
    ),
    "sanctions without a rule that has moderators": (
        {
            "chat_sanctions": True,
            "chat_rooms": [{"rooms": "*", "moderate": []}],
            "chat_config": {"CHAT_AUTH": "required"},
        },
        ["chat_sanctions=true with CHAT_AUTH=required in chat_config, and 0 rules of chat_rooms"],
    ),
    "sanctions with moderators": (
        {
            "chat_sanctions": True,
            "chat_rooms": [{"rooms": "*"}, {"rooms": "news", "moderate": ["desk"]}],
            "chat_config": GROUPS,
        },
        [NOTHING],
    ),
    "moderators of the whole chat without sanctions": (
        {"chat_moderators": ["heads"], "chat_config": {"CHAT_AUTH": "required"}},
        ["chat_moderators=heads with chat_sanctions=false: set chat_sanctions to true"],
    ),
    "moderators of the whole chat, and of no room": (
        {"chat_moderators": ["heads"], "chat_sanctions": True, "chat_config": GROUPS},
        [NOTHING],
    ),
    "moderators of the whole chat without sanctions, in chat_config": (
        {"chat_config": GROUPS | {"CHAT_MODERATORS": '["heads"]'}},
        ["CHAT_MODERATORS=heads with chat_sanctions=false: set chat_sanctions to true"],
    ),
    "moderators of the whole chat, in chat_config": (
        {"chat_config": GROUPS | {"CHAT_MODERATORS": '["heads"]', "CHAT_SANCTIONS": "true"}},
        [NOTHING],
    ),
    "moderators of the whole chat, and no issuer that says who is in a group": (
        {"chat_moderators": ["heads"], "chat_sanctions": True}
        | {"chat_config": GROUPS | {"CHAT_AUTH_ISSUERS": [{"issuer": "edge", "audience": "chat"}]}},
        ["names heads, and no issuer of CHAT_AUTH_ISSUERS in chat_config has groups_claim"],
    ),
    "rules with groups, and no issuer that says who is in one": (
        {"chat_rooms": [{"rooms": "*", "read": ["staff"], "write": []}]}
        | {"chat_config": {"CHAT_AUTH": "required"}},
        ["names staff, and no issuer of CHAT_AUTH_ISSUERS in chat_config has groups_claim"],
    ),
    "an audit room without sign-in": (
        {"chat_audit_room": "audit"},
        ["chat_audit_room=audit with CHAT_AUTH=off in chat_config", "everybody would read it"],
    ),
    "an audit room without a rule": (
        {
            "chat_config": GROUPS | {"CHAT_AUDIT_ROOM": "audit"},
            "chat_rooms": [{"rooms": "*", "read": ["desk"], "write": []}],
        },
        ["CHAT_AUDIT_ROOM=audit: give", "rule {rooms: audit, read: [GROUP]", "none for this name"],
    ),
    "an audit room that everybody reads": (
        AUDIT | {"chat_rooms": [{"rooms": "audit", "write": []}, {"rooms": "*"}]},
        ["chat_audit_room=Audit: give", "There is {'rooms': 'audit', 'write': []}"],
    ),
    "an audit room in which its readers write": (
        AUDIT | {"chat_rooms": [{"rooms": "audit", "read": ["desk"]}, {"rooms": "*"}]},
        ["chat_audit_room=Audit: give", "There is {'rooms': 'audit', 'read': ['desk']}"],
    ),
    "an audit room in which its readers delete": (
        AUDIT | {"chat_rooms": [AUDITED | {"moderate": ["desk"]}, {"rooms": "*"}]},
        ["chat_audit_room=Audit: give", "'moderate': ['desk']}."],
    ),
    "an audit room whose name is none": (
        AUDIT | {"chat_audit_room": "an audit", "chat_rooms": [AUDITED, {"rooms": "*"}]},
        ["chat_audit_room=an audit: give the name of a room"],
    ),
    "an audit room for a group": (
        AUDIT | {"chat_rooms": [AUDITED, {"rooms": "audit-log"}, {"rooms": "*"}]},
        [NOTHING],
    ),
    "private rooms without sign-in": (
        {"chat_private_rooms": True},
        ["chat_private_rooms=true with CHAT_AUTH=off in chat_config: set CHAT_AUTH to required"],
    ),
    "private rooms without sign-in, in chat_config": (
        {"chat_config": {"CHAT_PRIVATE_ROOMS": "true"}},
        ["CHAT_PRIVATE_ROOMS=true with CHAT_AUTH=off in chat_config: set CHAT_AUTH to required"],
    ),
    "private rooms with sign-in": (
        {"chat_private_rooms": True, "chat_config": {"CHAT_AUTH": "required"}},
        [NOTHING],
    ),
    "a chat certificate that would be renewed at every run": (
        {"chat_tls_days": 30},
        ["chat_tls_days=30, chat_tls_renew_days=90: a certificate is renewed before it ends"],
    ),
    "a relative path for the authority's certificate": (
        {"chat_tls_ca_file": "chat-ca.crt"},
        ["chat_tls_ca_file='chat-ca.crt'", "Give the absolute path"],
    ),
    "a path for the authority's certificate in a missing directory": (
        {"chat_tls_ca_file": "/no/such/chat-ca.crt"},
        ["chat_tls_ca_file='/no/such/chat-ca.crt'", "in a directory where you may write"],
    ),
    "an image in the cluster's registry": (
        {"chat_image": f"localhost:32000/chat@sha256:{'0' * 64}"},
        [NOTHING],
    ),
    "zero replicas": ({"chat_replicas": 0}, ["chat_replicas=0", "at least 1"]),
    "a CA that is not in chat_files": (
        {"chat_files": {"ca.crt": "PEM"}, "chat_config": {"CHAT_AUTH_CA_FILE": f"{FILES}my.crt"}},
        ["chat_files has ca.crt, and chat_config names my.crt of /run/secrets/chat/"],
    ),
    "a JWKS that is not in chat_files": (
        {"chat_config": {"CHAT_AUTH_ISSUERS": [{"issuer": "bots", "jwks": f"{FILES}bots.json"}]}},
        ["chat_files has no file, and chat_config names bots.json of /run/secrets/chat/"],
    ),
    "a file whose content is not a string": (
        {"chat_files": {"bots.json": {"keys": []}}},
        ["chat_files has bots.json", "Give each of these its content, a text"],
    ),
    "a file outside of the folder": (
        {"chat_files": {"../bots.json": "{}"}},
        ["chat_files has ../bots.json", "under a name of A-Z a-z 0-9"],
    ),
    "a file with a name that Kubernetes refuses": (
        {"chat_files": {"..bots.json": "{}"}},
        ["chat_files has ..bots.json", "that begins with no dot"],
    ),
    "files that are too large for a Secret": (
        {"chat_files": {"bots.json": "x" * 900_000}},
        ["chat_files has bots.json", "900 kB in all"],
    ),
    "a file with the reserved name of Kafka's password": (
        {"chat_files": {"kafka-password": "x"}},
        ["chat_files has kafka-password", "Kafka's own are set by chat_kafka_ca"],
    ),
    "webhooks that can work": (
        {
            "chat_webhooks": [
                HOOK,
                HOOK | {"name": "other", "room": "a", "events": ["message.deleted"]},
            ]
        },
        [NOTHING],
    ),
    "more webhooks than the Secret has room for": (
        {"chat_webhooks": [HOOK | {"name": f"hook{n}", "room": f"r{n}"} for n in range(65)]},
        ["65 webhooks keep up to 16240 bytes each", "a Secret has 1048576: give 64 at most"],
    ),
    "a webhook to an address that others can read": (
        {"chat_webhooks": [HOOK | {"url": "http://hooks.example.org/path"}]},
        ["chat_webhooks, chat_webhooks_config: webhooks.toml: webhook 'hook': url: give an https"],
    ),
    "a webhook of a room that cannot be": (
        {"chat_webhooks": [HOOK | {"room": "staff-*"}]},
        ["webhook 'hook': room = 'staff-*': give 1 to 64 of A-Z a-z 0-9 - _ ."],
    ),
    "a webhook with a secret that is too short": (
        {"chat_webhooks": [HOOK | {"secret": "whsec_YmF0dGVyeSBzdGFwbGU="}]},
        ["webhook 'hook': secret_file: secret-0: give whsec_ and 24 to 64 bytes in base64"],
    ),
    "webhooks without a token where one is required": (
        {"chat_webhooks": [HOOK], "chat_config": {"CHAT_AUTH": "required"}},
        ["chat_webhooks has 1 webhooks, and chat_webhooks_token is empty with CHAT_AUTH=required"],
    ),
    "a webhook without a secret": (
        {"chat_webhooks": [{"name": "hook", "room": "lobby", "url": "https://example.org/"}]},
        ["secret"],
    ),
    "a Kafka password without a user": (
        {"chat_kafka_sasl_password": "battery staple"},
        ["KAFKA_SECURITY_PROTOCOL=PLAINTEXT", "chat_kafka_sasl_password"],
    ),
    "several replicas without Kafka": (
        {"chat_config": {"KAFKA_ENABLED": False}},
        ["KAFKA_ENABLED=false", "would not see each other"],
    ),
}

OAUTH2_PROXY: Cases = {
    "valid variables for sign-in": ({}, [NOTHING]),
    "an oauth2-proxy image by tag": (
        {"oauth2_proxy_image": "quay.io/oauth2-proxy/oauth2-proxy:v7.15.6"},
        ["oauth2_proxy_image='quay.io/oauth2-proxy/oauth2-proxy:v7.15.6': name the image by its"],
    ),
    "oauth2-proxy without HTTPS": (
        {"chat_url": "http://chat.example.org/"},
        ["oauth2_proxy_url='http://chat.example.org/': give the chat's address with https://"],
    ),
    "an issuer whose tokens the chat refuses": (
        {"oauth2_proxy_issuer": "https://other.example.org"},
        ["oauth2_proxy_issuer='https://other.example.org'", "name this issuer"],
    ),
    "a client id that is not the chat's audience": (
        {"oauth2_proxy_client_id": "mail"},
        ["oauth2_proxy_client_id='mail'", "https://id.example.org", "as its audience this client"],
    ),
    "a cookie secret with a wrong length": (
        {"oauth2_proxy_cookie_secret": "abc"},
        ["oauth2_proxy_cookie_secret has 3", "openssl rand -base64 32"],
    ),
    "no client secret": (
        {"oauth2_proxy_client_secret": ""},
        ["oauth2_proxy_client_secret has 0 characters", "from the provider"],
    ),
    "an end-session URL without HTTPS": (
        {"oauth2_proxy_end_session_url": "http://id.example.org/logout"},
        ["oauth2_proxy_end_session_url='http://id.example.org/logout'", "an https address or"],
    ),
}

# By group: a case, and hosts that form a cluster with the host of this case. No tasks run on them.
COMPANIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "two_brokers": ("another broker's id", {"broker": {"kafka_broker_id": "7"}}),
    "two_members": ("another member's id", {"member": {"zookeeper_id": "7"}}),
    "two_control_planes": ("two control planes", {"companion": {}}),
    "one_worker": (
        "two hosts of which one is a worker",
        {"worker": {"microk8s_worker": True}},
    ),
}

# Facts of each host, so that no case depends on this machine.
FACTS = {
    "default_ipv4": {"address": "127.0.0.1"},
    "memtotal_mb": 16000,
    "virtualization_type": "podman",
    "nodename": "chat1",
    "distribution": "Debian",
    "distribution_version": "12",
    "service_mgr": "systemd",
    # In names of facts, '-' is '_'.
    "interfaces": ["eth-0"],
    "eth_0": {
        "ipv4": {"address": "192.0.2.11", "network": "192.0.2.0", "netmask": "255.255.255.0"}
    },
}
# Variables for each role. Nothing listens on port 1: a refused connection counts as reachable.
SITE: dict[str, dict[str, Any]] = {
    "kafka": {
        "kafka_group": "{{ own_group }}",
        "kafka_broker_id": 1,
        "kafka_zookeeper_connect": "127.0.0.1:1/kafka",
        "kafka_security": "plaintext",
    },
    "zookeeper": {
        "zookeeper_group": "{{ own_group }}",
        "zookeeper_id": 1,
        "kafka_security": "plaintext",
    },
    "kafka_tls": {"kafka_tls_directory": "{{ disk }}/kafka-tls"},
    "microk8s": {"microk8s_group": "{{ own_group }}"},
    "virtual_ip": {
        "virtual_ip_group": "{{ own_group }}",
        "virtual_ip_address": "192.0.2.10",
        "virtual_ip_interface": "eth-0",
        "configuration": "{{ disk }}/none",
    },
    "chat": {"chat_kafka_bootstrap_servers": "192.0.2.11:9094"},
    "oauth2_proxy": {
        "chat_url": "https://chat.example.org/",
        "chat_config": {
            "CHAT_AUTH": "required",
            "CHAT_AUTH_ISSUERS": '[{"issuer": "https://id.example.org", "audience": "chat"}]',
        },
        "oauth2_proxy_image": f"registry.example.org/oauth2-proxy@sha256:{'0' * 64}",
        "oauth2_proxy_client_secret": "secret",
        "oauth2_proxy_cookie_secret": 43 * "A" + "=",
    },
    "running": {
        "role": "kafka",
        "checks": "internal",
        "kafka_group": "all",
        "kafka_security": "plaintext",
        "__kafka_written": {
            "stdout_lines": ["listener.security.protocol.map=CLIENT:SSL,INTERNAL:PLAINTEXT"]
        },
    },
}
CASES = {
    "kafka": KAFKA,
    "zookeeper": ZOOKEEPER,
    "kafka_tls": KAFKA_TLS,
    "microk8s": MICROK8S,
    "virtual_ip": VIRTUAL_IP,
    "chat": CHAT,
    "oauth2_proxy": OAUTH2_PROXY,
    "running": RUNNING,
}


@pytest.fixture(scope="module")
def disk() -> Iterator[str]:
    """A directory with a broker's data. It is not in /tmp, which the unit cannot see."""
    with tempfile.TemporaryDirectory(prefix="preflight-", dir="/var/lib") as disk:
        data = Path(disk) / "kafka"
        data.mkdir()
        (data / "meta.properties").write_text("broker.id=1\ncluster.id=cluster-of-the-data\n")
        (Path(disk) / "keepalived.conf").write_text("vrrp_instance theirs {\n}\n")
        yield disk


@pytest.fixture(scope="module")
def ensemble() -> Iterator[str]:
    """A stand-in for ZooKeeper with one Kafka cluster, at /kafka; yields its address."""

    def respond(listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            # Clients that only test the connection have closed it by now.
            with connection, contextlib.suppress(OSError):
                connection.recv(1024)
                connection.sendall(struct.pack(">i36s", 36, b""))
                known = b"/kafka/cluster/id" in connection.recv(1024)
                found = b'{"version":"1","id":"cluster-of-zookeeper"}' if known else b""
                answer = struct.pack(">iqii", 1, 7, 0 if known else -101, len(found)) + found
                connection.sendall(struct.pack(">i", len(answer)) + answer)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=respond, args=[listener], daemon=True).start()
        try:
            yield f"127.0.0.1:{listener.getsockname()[1]}"
        finally:
            # `close` does not wake a thread that waits in accept.
            listener.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def broker() -> Iterator[None]:
    """A process with the command line of a broker."""
    name = "java -cp /opt/kafka_2.13-3.9.2/libs/* kafka.Kafka /etc/kafka/server.properties"
    with subprocess.Popen([name, "600"], executable="/bin/sleep") as process:
        try:
            yield
        finally:
            process.kill()


@pytest.fixture(scope="module")
def ports() -> Iterator[dict[str, int]]:
    """A port of this machine with a connected client, and a higher open port."""
    with contextlib.ExitStack() as stack:
        open_ones = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(2)]
        lower, higher = sorted(open_ones, key=lambda listener: listener.getsockname()[1])
        stack.enter_context(socket.create_connection(lower.getsockname()))
        stack.enter_context(lower.accept()[0])
        yield {"connected_port": lower.getsockname()[1], "open_port": higher.getsockname()[1]}


@pytest.fixture(scope="module")
def said(
    disk: str, ensemble: str, ports: dict[str, int], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    """The error of each case's host, or NOTHING."""
    folder = tmp_path_factory.mktemp("preflight")
    names: dict[str, str] = {}
    groups: dict[str, Any] = {}
    for kind, cases in CASES.items():
        for number, (case, (changed, _)) in enumerate(cases.items()):
            names[case] = f"{kind}{number}"
            usual = {"role": kind, "own_group": f"only_{names[case]}"}
            host = usual | SITE[kind] | changed
            groups[f"only_{names[case]}"] = {"hosts": {names[case]: host}}
    for group, (case, companions) in COMPANIONS.items():
        groups[group] = {"hosts": {names[case]: {}, **companions}}
    variables = {
        "ansible_connection": "local",
        "disk": disk,
        "ensemble": ensemble,
        **ports,
    }
    site = {"children": groups, "vars": variables}
    (folder / "hosts.json").write_text(json.dumps({"all": site}))
    tasks = [
        {"ansible.builtin.set_fact": FACTS | {"cacheable": True}},
        # The directories of the last run.
        {
            "ansible.builtin.set_fact": {"__kafka_data_before": "{{ before }}"},
            "when": "before is defined",
        },
        {
            "ansible.builtin.set_fact": {"__kafka_told": "{{ told }}"},
            "when": "told is defined",
        },
        {
            "ansible.builtin.set_fact": {"__kafka_stage_found": "{{ found }}"},
            "when": "found is defined",
        },
        {
            "ansible.builtin.set_fact": {"__virtual_ip_configuration": "{{ configuration }}"},
            "when": "configuration is defined",
        },
    ]
    tasks += [
        {
            "ansible.builtin.include_role": {
                "name": "baremetal_chat.platform.{{ role }}",
                "tasks_from": f"{checks}.yml",
            },
            "when": f"checks | default('preflight') == '{checks}'",
        }
        for checks in ("preflight", "renamed", "internal")
    ]
    play = {"hosts": ":".join(names.values()), "gather_facts": False, "tasks": tasks}
    (folder / "play.json").write_text(json.dumps([play]))
    with broker():
        done = ansible_playbook(
            f"--inventory={folder / 'hosts.json'}",
            folder / "play.json",
            ANSIBLE_FORCE_COLOR="false",
        )
    print(done.stdout, done.stderr)
    assert set(re.findall(r" changed=(\d+)", done.stdout)) == {"0"}
    # Passwords of the cases.
    assert not re.search("battery.staple", done.stdout + done.stderr)
    failed = re.findall(r"^(?:fatal|failed): \[(\w+)\].*? => (.*)$", done.stdout, re.MULTILINE)
    return {
        case: " ".join(
            " ".join(json.loads(said)["msg"] for host, said in failed if host == name).split()
        )
        or NOTHING
        for case, name in names.items()
    }


@pytest.mark.parametrize("case", [case for cases in CASES.values() for case in cases])
def test_wrong_variables_are_refused_before_anything_changes(
    case: str, said: dict[str, str]
) -> None:
    (words,) = [cases[case][1] for cases in CASES.values() if case in cases]
    for each in words:
        assert each in said[case]


def test_brokers_and_zookeeper_members_with_different_security_are_refused(tmp_path: Path) -> None:
    """For example if kafka_security is set for only one of the two groups."""
    members = {"zk1": ("192.0.2.11:2181", {}), "zk2": ("192.0.2.12:2181", {"ca_file": "/ca.crt"})}
    groups: dict[str, Any] = {
        "zookeeper": {
            "hosts": {
                name: {"zookeeper_endpoints": {"client": address}, "zookeeper_client": client}
                for name, (address, client) in members.items()
            }
        }
    }
    for name, security in {"chat1": "tls", "chat2": "plaintext"}.items():
        broker = {
            "kafka_security": security,
            "kafka_group": f"only_{name}",
            "kafka_broker_id": 1,
            "kafka_zookeeper_connect": "192.0.2.11:2181,192.0.2.12:2181/kafka",
            "ansible_connection": "local",
        }
        groups[f"only_{name}"] = {"hosts": {name: broker}}
    (tmp_path / "hosts.json").write_text(json.dumps({"all": {"children": groups}}))
    role = {"name": "baremetal_chat.platform.kafka", "tasks_from": "preflight.yml"}
    tasks = [{"ansible.builtin.import_role": role}]
    play = [{"hosts": "all:!zookeeper", "gather_facts": False, "tasks": tasks}]
    (tmp_path / "play.json").write_text(json.dumps(play))
    done = ansible_playbook(f"--inventory={tmp_path / 'hosts.json'}", tmp_path / "play.json")
    words = dict(re.findall(r"fatal: \[(\w+)\](.*?)\n(?=\n)", done.stdout, re.DOTALL))
    assert "zookeeper_security is plaintext on zk1." in words["chat1"], done.stdout + done.stderr
    assert "zookeeper_security is tls on zk2." in words["chat2"], done.stdout


def test_two_authority_folders_in_one_run_are_refused(tmp_path: Path) -> None:
    """For example with two inventories, each with its own default folder."""
    inventories = []
    for name, host in {"zookeeper": "zk1", "kafka": "chat1"}.items():
        folder = tmp_path / f"of-{name}"
        folder.mkdir()
        groups = {name: {"hosts": {host: {"ansible_connection": "local"}}}}
        (folder / "hosts.json").write_text(json.dumps({"all": {"children": groups}}))
        inventories.append(f"--inventory={folder}")
    role = {"name": "baremetal_chat.platform.kafka_tls", "tasks_from": "preflight.yml"}
    tasks = [{"ansible.builtin.import_role": role}]
    play = [{"hosts": "zookeeper:kafka", "gather_facts": False, "tasks": tasks}]
    (tmp_path / "play.json").write_text(json.dumps(play))
    done = ansible_playbook(*inventories, tmp_path / "play.json")
    for each in ("/of-zookeeper-kafka-tls on zk1", "/of-kafka-kafka-tls on chat1"):
        assert each in done.stdout, done.stdout + done.stderr
    # And if only one group has certificates of the site's own authority.
    shared = f"--extra-vars=kafka_tls_directory={tmp_path}/made"
    given = tmp_path / "of-zookeeper" / "group_vars" / "zookeeper.yml"
    given.parent.mkdir()
    given.write_text(f"kafka_tls_site_directory: {tmp_path}/given\n")
    done = ansible_playbook(*inventories, shared, tmp_path / "play.json")
    for each in ("/given on zk1", "/made on chat1"):
        assert each in done.stdout, done.stdout + done.stderr
