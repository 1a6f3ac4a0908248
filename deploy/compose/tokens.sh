#!/bin/sh
# Runs once, in InfluxDB's own image: the second bucket, the InfluxQL names, and a token each for agents (they may only
# write) and for Grafana (it may only read), as files in a volume that nothing else is in. May run again.
# INFLUX_HOST, INFLUX_ORG and INFLUX_TOKEN, the admin's, come from compose.yaml; the two tokens made here do not.
set -eu
umask 027
folder=${TOKENS:-/tokens}

bucket() { # name -> id; nothing where there is none
    influx bucket list --name "$1" --json 2>/dev/null | sed -n 's/.*"id": *"\([0-9a-f]\{16\}\)".*/\1/p' | head -n 1
}

mapped() { # name: has it a name in InfluxQL that somebody made? InfluxDB's own ("virtual") may go
    case $(influx v1 dbrp list --db "$1" --json 2>/dev/null) in
    *'"virtual": true'*) return 1 ;;
    *'"database"'*) return 0 ;;
    *) return 1 ;;
    esac
}

ready() { # name, retention -> id
    id=$(bucket "$1")
    if [ -z "$id" ]; then
        influx bucket create --name "$1" --retention "$2" >/dev/null
        id=$(bucket "$1")
    fi
    mapped "$1" || influx v1 dbrp create --bucket-id "$id" --db "$1" --rp autogen --default >/dev/null
    echo "$id"
}

token() { # name, rights ...: made unless it is there
    name=$1
    shift
    [ -s "$folder/$name" ] && return
    influx auth create --description "rooflight-$name" "$@" --json \
        | sed -n 's/.*"token": *"\([^"]*\)".*/\1/p' | head -n 1 >"$folder/$name.new"
    [ -s "$folder/$name.new" ] || { echo "tokens.sh: no token for $name" >&2; exit 1; }
    mv "$folder/$name.new" "$folder/$name"
}

metrics=$(ready rooflight 90d)
jobs=$(ready rooflight_jobs 1095d)
token agent --write-bucket "$metrics" --write-bucket "$jobs"
token grafana --read-bucket "$metrics" --read-bucket "$jobs"
echo "tokens.sh: buckets and tokens are there"
