#!/usr/bin/env bash
# A real Kafka broker for development and tests; see README.md beside this file.
set -euo pipefail

readonly HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
readonly ROOT=$(cd "$HERE/../.." && pwd)
readonly JARS=$ROOT/.kafka/jars
readonly DIR=$(realpath --canonicalize-missing -- "${LEEWAY_KAFKA_DIR:-$ROOT/.kafka}")
readonly PORT=${LEEWAY_KAFKA_PORT:-9092}
readonly SASL=${LEEWAY_KAFKA_SASL:-}
readonly HEAP=512m
readonly OLDEST_JAVA=17
readonly START_SECONDS=120
readonly STOP_SECONDS=60
readonly CLUSTER_ID=LeewayDevelopmentKafka # the 22 characters of a base64 UUID

# Exit codes. UNAVAILABLE (as in sysexits.h) means that this machine lacks something, not that the broker is broken:
# tests skip on it.
readonly FAILED=1 USAGE=2 NOT_RUNNING=3 UNAVAILABLE=69

usage() {
    cat <<'TEXT'
usage: kafka.sh start [--nodes 1|3] | stop | status | clean

  start    fetch the jars if need be, start the broker (or three), return when it answers; does nothing if it runs
  stop     stop whatever runs, and wait for its end
  status   say what runs; exit code 0: all nodes answer, 1: some do not, 3: none runs
  clean    stop, and delete data and logs; the jars stay

environment
  LEEWAY_KAFKA_PORT   port of the first node on 127.0.0.1 (9092); node i has PORT+i-1, its controller PORT+i+19
  LEEWAY_KAFKA_DIR    folder of data, logs and process ids (.kafka in the project)
  LEEWAY_KAFKA_SASL   USER:PASSWORD; node i answers that user (SASL/PLAIN, no TLS) at PORT+i+39 as well
  JAVA_HOME           the Java to use (otherwise the one on the PATH)
TEXT
}

say() { printf 'kafka: %s\n' "$*"; }

die() { # die CODE MESSAGE...
    printf 'kafka: %s\n' "${@:2}" >&2
    exit "$1"
}

# --- what the machine must have ---------------------------------------------------------------------------------

find_java() { # sets JAVA
    if [[ -n ${JAVA_HOME:-} ]]; then
        JAVA=$JAVA_HOME/bin/java
        [[ -x $JAVA ]] || die $UNAVAILABLE "JAVA_HOME is '$JAVA_HOME', but there is no bin/java in it;" \
            "unset it or point it to a JDK of version $OLDEST_JAVA or newer."
    else
        JAVA=$(command -v java) || die $UNAVAILABLE \
            "no 'java' on the PATH; install a JDK of version $OLDEST_JAVA or newer, or set JAVA_HOME."
    fi
    local banner
    banner=$("$JAVA" -version 2>&1) || die $UNAVAILABLE "'$JAVA -version' fails:" "$banner"
    [[ $banner =~ version\ \"([0-9]+) ]] || die $UNAVAILABLE "cannot read a version from '$JAVA -version':" "$banner"
    ((BASH_REMATCH[1] >= OLDEST_JAVA)) || die $UNAVAILABLE \
        "$JAVA is too old, Kafka needs Java $OLDEST_JAVA or newer: ${banner%%$'\n'*}" \
        "install a newer JDK, or set JAVA_HOME to one."
}

fetch_jars() {
    # The copy of the pom is written last: with it the jars are complete and belong to this version.
    cmp -s "$HERE/pom.xml" "$JARS/pom.xml" && return
    command -v mvn >/dev/null || die $UNAVAILABLE \
        "no 'mvn' on the PATH; install Maven (3.6.3 or newer): it fetches the broker's jars, once."
    mkdir -p "$ROOT/.kafka"
    exec 8>"$ROOT/.kafka/jars.lock"
    flock 8
    if ! cmp -s "$HERE/pom.xml" "$JARS/pom.xml"; then
        say "fetching the broker's jars with Maven (about 45 MB, once)"
        rm -rf "$JARS"
        local output
        output=$(mvn --batch-mode --quiet --strict-checksums -Dstyle.color=never --file "$HERE/pom.xml" \
            org.apache.maven.plugins:maven-dependency-plugin:copy-dependencies "-Djars=$JARS" 2>&1) || {
            rm -rf "$JARS"
            die $UNAVAILABLE "Maven could not fetch the broker's jars:" \
                "$(grep -o -m 1 '\[ERROR\].*' <<<"$output" || echo "$output")" \
                "check the network, or the proxy and mirror in ~/.m2/settings.xml, and start again;" \
                "on a machine without network copy .kafka/jars from one where it worked."
        }
        cp "$HERE/pom.xml" "$JARS/pom.xml"
    fi
    exec 8>&-
}

# --- nodes: one folder each, DIR/cluster-of-N/node-I ------------------------------------------------------------

pid_of() { # pid_of NODE: the process id, if that process still is this node's broker and not a later one's
    local pid
    [[ -s $1/pid ]] && pid=$(<"$1/pid") || return
    tr '\0' '\n' 2>/dev/null <"/proc/$pid/cmdline" | grep -qxF "$1/server.properties" || return
    echo "$pid"
}

port_of() { # port_of NODE
    sed -n 's|^listeners=BROKER://127.0.0.1:\([0-9]*\),.*|\1|p' "$1/server.properties"
}

running() { # the nodes that run, one a line
    local node
    for node in "$DIR"/cluster-of-[13]/node-[123]; do
        if pid_of "$node" >/dev/null; then echo "$node"; fi
    done
}

listening() { # listening PORT
    (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null
}

brokers_seen_at() { # brokers_seen_at PORT: how many brokers of the cluster are up, as that node answers
    # A Metadata request (key 3, version 1) for no topics, spelt out so that asking takes no further JVM:
    #   length 18 | key 3 | version 1 | correlation id 1 | client id "poll" | 0 topics
    # The answer begins: length | correlation id | number of brokers, four bytes each. A broker that is still
    # catching up with the controller is not among them.
    { timeout 5 bash -c '
        exec 3<>"/dev/tcp/127.0.0.1/$1"
        printf "\0\0\0\22\0\3\0\1\0\0\0\1\0\4poll\0\0\0\0" >&3
        head --bytes 12 <&3 | od --address-radix=n --format=u1' _ "$1" 2>/dev/null || true; } |
        awk 'NF == 12 && $8 == 1 { n = $12 } END { print n + 0 }'
}

write_configuration() { # write_configuration NODE ID NODES
    local node=$1 id=$2 nodes=$3 voters="" i
    for ((i = 1; i <= nodes; i++)); do
        voters+=${voters:+,}$i@127.0.0.1:$((PORT + i + 19))
    done
    mkdir -p "$node"
    {
        cat "$HERE/server.properties"
        echo
        echo "node.id=$id"
        echo "listeners=BROKER://127.0.0.1:$((PORT + id - 1)),CONTROLLER://127.0.0.1:$((PORT + id + 19))$(
            [[ -z $SASL ]] || echo ",SASL://127.0.0.1:$((PORT + id + 39))")"
        if [[ -n $SASL ]]; then
            echo "sasl.enabled.mechanisms=PLAIN"
            echo "listener.name.sasl.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule" \
                "required user_${SASL%%:*}=\"${SASL#*:}\";"
        fi
        echo "controller.quorum.voters=$voters"
        echo "log.dirs=$node/data"
        local copies=$nodes in_sync=$((nodes == 1 ? 1 : 2)) topic
        echo "default.replication.factor=$copies"
        echo "min.insync.replicas=$in_sync"
        echo "offsets.topic.replication.factor=$copies"
        for topic in transaction.state.log share.coordinator.state.topic; do
            echo "$topic.replication.factor=$copies"
            echo "$topic.min.isr=$in_sync"
        done
    } >"$node/server.properties"
}

java_of() { # java_of NODE CLASS ARGUMENTS...: becomes that Java process
    # A session of its own: Ctrl-C in the terminal that started it is not meant for it.
    exec setsid "$JAVA" -Xmx$HEAP -XX:+UseSerialGC -Djava.awt.headless=true \
        "-Dlog4j2.configurationFile=$HERE/log4j2.properties" -cp "$JARS/*" "${@:2}" \
        </dev/null >>"$1/server.log" 2>&1 9>&-
}

launch() { # launch NODE
    local node=$1
    : >"$node/server.log"
    [[ -s $node/data/meta.properties ]] ||
        (java_of "$node" kafka.tools.StorageTool format --ignore-formatted --cluster-id $CLUSTER_ID \
            --config "$node/server.properties") ||
        die $FAILED "formatting $node/data failed:" "$(tail -n 5 "$node/server.log")"
    java_of "$node" kafka.Kafka "$node/server.properties" &
    echo $! >"$node/pid"
    # Until the new process has become Java, pid_of would take it for a stranger.
    until pid_of "$node" >/dev/null || ! kill -0 $! 2>/dev/null; do sleep 0.01; done
}

await() { # await NODE NODES DEADLINE: until NODE answers and knows all NODES
    local node=$1 port
    port=$(port_of "$node")
    until (($(brokers_seen_at "$port") == $2)); do
        if ! pid_of "$node" >/dev/null; then
            stop >/dev/null
            die $FAILED "the broker ended while starting; the end of $node/server.log:" \
                "$(tail -n 15 "$node/server.log")"
        fi
        if ((SECONDS > $3)); then
            stop >/dev/null
            die $FAILED "no answer at 127.0.0.1:$port after $START_SECONDS s; see $node/server.log"
        fi
        sleep 0.1
    done
}

# --- commands ---------------------------------------------------------------------------------------------------

start() { # start NODES
    local nodes=$1 cluster=$DIR/cluster-of-$1 id node present others
    present=$(running)
    others=$(grep -vF "$cluster/" <<<"$present" || true)
    [[ -z $others ]] || die $FAILED "a cluster of another size is running; stop it first with '$0 stop'."
    if [[ -n $present ]]; then
        local first
        first=$(port_of "$cluster/node-1")
        ((first == PORT)) || die $FAILED "it already runs, at 127.0.0.1:$first instead of $PORT;" \
            "stop it first with '$0 stop', or set LEEWAY_KAFKA_DIR to have a second one."
    fi
    find_java
    fetch_jars
    # First look at all ports, then start: a half-started cluster is nobody's wish.
    for ((id = 1; id <= nodes; id++)); do
        node=$cluster/node-$id
        pid_of "$node" >/dev/null && continue
        local port
        for port in $((PORT + id - 1)) $((PORT + id + 19)) ${SASL:+$((PORT + id + 39))}; do
            ! listening $port || die $FAILED "port $port of 127.0.0.1 is taken by another program;" \
                "stop that one, or set LEEWAY_KAFKA_PORT to another port (node i uses PORT+i-1, PORT+i+19, and with SASL PORT+i+39)."
        done
    done
    for ((id = 1; id <= nodes; id++)); do
        node=$cluster/node-$id
        pid_of "$node" >/dev/null && continue
        write_configuration "$node" "$id" "$nodes"
        launch "$node"
    done
    local deadline=$((SECONDS + START_SECONDS)) addresses=""
    for ((id = 1; id <= nodes; id++)); do
        await "$cluster/node-$id" "$nodes" $deadline
        addresses+=${addresses:+,}127.0.0.1:$((PORT + id - 1))
    done
    say "answers at $addresses; data and logs in $cluster"
}

stop() {
    local nodes node pid deadline=$((SECONDS + STOP_SECONDS))
    mapfile -t nodes < <(running)
    # All are told before any is waited for: a node that leaves needs the others' votes only while they stand.
    for node in "${nodes[@]}"; do
        pid=$(pid_of "$node") && kill -TERM "$pid" 2>/dev/null || true  # it may end by itself just now
    done
    for node in "${nodes[@]}"; do
        while pid=$(pid_of "$node"); do
            if ((SECONDS > deadline)); then
                say "process $pid does not end within $STOP_SECONDS s of SIGTERM: killing it" >&2
                kill -KILL "$pid"
                deadline=$((SECONDS + 5))
            fi
            sleep 0.1
        done
        rm -f "$node/pid"
    done
    if ((${#nodes[@]})); then say "stopped"; else say "nothing is running below $DIR"; fi
}

status() {
    local nodes node pid port seen wanted code=0
    mapfile -t nodes < <(running)
    ((${#nodes[@]})) || { say "nothing is running below $DIR"; return $NOT_RUNNING; }
    for node in "$(dirname "${nodes[0]}")"/node-*; do
        wanted=$(basename "$(dirname "$node")")
        wanted=${wanted##*-}
        port=$(port_of "$node")
        if ! pid=$(pid_of "$node"); then
            say "$(basename "$node") is not running; see $node/server.log"
            code=1
            continue
        fi
        seen=$(brokers_seen_at "$port")
        ((seen == wanted)) || code=1
        say "$(basename "$node") at 127.0.0.1:$port, process $pid," \
            "$(awk '/^VmRSS/ { print int($2 / 1024) }' "/proc/$pid/status") MiB, sees $seen of $wanted brokers"
    done
    return $code
}

clean() {
    stop
    rm -rf "$DIR"/cluster-of-[13]
    say "data and logs are deleted"
}

main() {
    local command=${1:-} nodes=1
    case "$command:$#" in
    start:1 | stop:1 | status:1 | clean:1) ;;
    start:3) [[ $2 == --nodes && $3 == [13] ]] || { usage >&2; exit $USAGE; }; nodes=$3 ;;
    -h:1 | --help:1 | help:1) usage; exit ;;
    *) usage >&2; exit $USAGE ;;
    esac
    [[ $PORT =~ ^[0-9]{1,5}$ ]] && ((PORT >= 1 && PORT <= 65493)) || die $USAGE \
        "LEEWAY_KAFKA_PORT is '$PORT', not a port from 1 to 65493 (those up to 42 above it are used too)."
    [[ -z $SASL || $SASL =~ ^[A-Za-z0-9_]+:[^\"\\[:cntrl:]]+$ ]] || die $USAGE \
        "LEEWAY_KAFKA_SASL is not USER:PASSWORD with a user of letters, digits and _ and no quotes or \\ in the password."
    if [[ $command == status ]]; then status; exit; fi
    # One command at a time; two starts at once end in one broker.
    mkdir -p "$DIR"
    exec 9>"$DIR/lock"
    flock 9
    if [[ $command == start ]]; then start "$nodes"; else "$command"; fi
}

main "$@"
