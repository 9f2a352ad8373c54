#!/bin/sh
# A snapshot from each node of a Docker Swarm, by a job that runs once on every node there is:
#
#   MESHDOCTOR_IMAGE=registry.example/meshdoctor docs/fleet/swarm.sh
#
# The image is one of yours with meshdoctor in it. The file is on each node then, in the folder
# /srv/meshdoctor, which must be there, under the node's name and id. Further options of
# `docker service create` may follow, as --constraint or --env CONSUL_HTTP_TOKEN_FILE=...
# On the host's network, Consul's agent on each node answers at 127.0.0.1:8500. Sidecars are read by
# `docker exec`: Swarm starts nothing in the host's process namespace, from which theirs can be
# entered. A node without any part of a mesh ends with exit code 3, which its line in the log says.
set -eu
name=${MESHDOCTOR_NAME:-meshdoctor-snapshot}
trap 'docker service rm "$name" >/dev/null' EXIT
docker service create --quiet --detach --name "$name" \
  --mode global-job --restart-condition none \
  --network host \
  --env 'NODE={{.Node.Hostname}}-{{.Node.ID}}' \
  --mount "type=bind,source=${MESHDOCTOR_SOCKET:-/var/run/docker.sock},target=/var/run/docker.sock" \
  --mount "type=bind,source=${MESHDOCTOR_FOLDER:-/srv/meshdoctor},target=/snapshots" \
  "$@" \
  "${MESHDOCTOR_IMAGE:-meshdoctor}" \
  sh -c 'exec meshdoctor snapshot --force -o "/snapshots/$NODE.tgz"' >/dev/null

# Until no node has it still to do.
while docker service ps --format '{{.CurrentState}}' "$name" |
  grep -Eqv '^(Complete|Failed|Rejected|Shutdown|Orphaned|Remove)'; do
  sleep 1
done
docker service ps --no-trunc --format '{{.Node}}: {{.CurrentState}} {{.Error}}' "$name"
docker service logs --raw "$name"
