#!/bin/bash
# Run a class of this distribution: kafka-run-class.sh [-name NAME] [-loggc] CLASS [ARGUMENT...]
#
# Every other script here ends in this one. The environment is the contract of Kafka's own scripts:
#   JAVA_HOME                   the Java to use; otherwise `java` on the PATH
#   KAFKA_HEAP_OPTS             heap
#   KAFKA_JVM_PERFORMANCE_OPTS  garbage collector and the like
#   KAFKA_GC_LOG_OPTS           garbage collection log; -loggc: 10 files of 100 MB in LOG_DIR
#   KAFKA_JMX_OPTS, JMX_PORT    remote monitoring; no port is opened without JMX_PORT
#   KAFKA_LOG4J_OPTS            logging; otherwise config/tools-log4j.properties
#   KAFKA_OPTS                  anything else: agents, JAAS
#   LOG_DIR                     where servers write their logs; otherwise logs/ beside bin/
set -euo pipefail

if (($# == 0)); then
  echo "USAGE: $0 [-name NAME] [-loggc] CLASS [ARGUMENT...]" >&2
  exit 1
fi

# The real path, not a symlink's: jars are opened lazily, and a JVM that outlives an upgrade must
# go on finding those it was started with.
base=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
log_dir=${LOG_DIR:-$base/logs}

name=kafka
gc_log=${KAFKA_GC_LOG_OPTS:-}
while (($# > 0)); do
  case $1 in
    -name)
      name=${2:?-name needs a value}
      shift 2
      ;;
    -loggc)
      gc_log="-Xlog:gc*:file=$log_dir/$name-gc.log:time,tags:filecount=10,filesize=100M"
      shift
      ;;
    *) break ;;
  esac
done

if [[ -z ${KAFKA_LOG4J_OPTS:-} ]]; then
  KAFKA_LOG4J_OPTS="-Dlog4j.configuration=file:$base/config/tools-log4j.properties"
elif [[ ! -d $log_dir ]]; then
  mkdir -p "$log_dir"
fi

jmx=${KAFKA_JMX_OPTS:-"-Dcom.sun.management.jmxremote
  -Dcom.sun.management.jmxremote.authenticate=false -Dcom.sun.management.jmxremote.ssl=false"}
if [[ -n ${JMX_PORT:-} ]]; then
  jmx+=" -Dcom.sun.management.jmxremote.port=$JMX_PORT"
fi

heap=${KAFKA_HEAP_OPTS:--Xmx256M}
performance=${KAFKA_JVM_PERFORMANCE_OPTS:-"-server -XX:+UseG1GC -XX:MaxGCPauseMillis=20
  -XX:InitiatingHeapOccupancyPercent=35 -XX:+ExplicitGCInvokesConcurrent
  -XX:MaxInlineLevel=15 -Djava.awt.headless=true"}

# Each of these is a list of options separated by blanks, hence no quotes.
# shellcheck disable=SC2086
exec "${JAVA_HOME:+$JAVA_HOME/bin/}java" $heap $performance $gc_log $jmx \
  "-Dkafka.logs.dir=$log_dir" $KAFKA_LOG4J_OPTS \
  -cp "${CLASSPATH:+$CLASSPATH:}$base/libs/*" ${KAFKA_OPTS:-} "$@"
