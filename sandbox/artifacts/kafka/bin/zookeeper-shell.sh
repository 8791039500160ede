#!/bin/bash
# ZooKeeper's shell: zookeeper-shell.sh HOST:PORT[/PATH] [-zk-tls-config-file FILE] [COMMAND...]
set -euo pipefail

if (($# == 0)); then
  echo "USAGE: $0 HOST:PORT[/PATH] [-zk-tls-config-file FILE] [COMMAND...]" >&2
  exit 1
fi
exec "$(dirname "${BASH_SOURCE[0]}")/kafka-run-class.sh" \
  org.apache.zookeeper.ZooKeeperMainWithTlsSupportForKafka -server "$@"
