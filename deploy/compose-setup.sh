#!/bin/sh
# Makes what three nodes of compose.yaml need, once: agent CA, certificates, seal key, configurations. Never replaces.
#   compose-setup.sh DIRECTORY [SEEN-AS]    SEEN-AS: where the nodes find the directory
set -eu
directory=$1
seen_as=${2:-$1}
nodes="ca-1 ca-2 ca-3"
umask 077
cd "$directory"
[ -e consul-agent-ca.pem ] || quorumca tls ca create
[ -e seal.key ] || quorumca seal init > /dev/null
for node in $nodes; do
  [ -e "$node/node.toml" ] && continue
  rm -rf "$node"
  mkdir "$node"
  (cd "$node" && quorumca tls cert create -server -node "$node" -days 1825 \
    -ca ../consul-agent-ca.pem -key ../consul-agent-ca-key.pem > /dev/null)
  {
    cat << END
node_name = "$node"
data_dir = "/var/lib/quorumca"

[tls]
ca_file = "$seen_as/consul-agent-ca.pem"
cert_file = "$seen_as/$node/dc1-server-consul-0.pem"
key_file = "$seen_as/$node/dc1-server-consul-0-key.pem"

[seal]
key_file = "$seen_as/seal.key"

# In clear within the network of the containers; compose.yaml publishes it on the host's loopback address only.
[http]
address = "0.0.0.0:8500"
allow_plaintext_off_loopback = true
# As the others, and Prometheus, call it.
allowed_hosts = ["$node"]

[rpc]
address = "0.0.0.0:8400"
advertise = "$node:8400"

[raft]
address = "0.0.0.0:8300"
advertise = "$node:8300"
END
    for server in $nodes; do
      printf '\n[[servers]]\nname = "%s"\nraft = "%s:8300"\nrpc = "%s:8400"\n' "$server" "$server" "$server"
    done
  } > "$node/node.toml.new"
  mv "$node/node.toml.new" "$node/node.toml"
done
