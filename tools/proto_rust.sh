#!/bin/sh
# Regenerates crates/linkerd-proto/src/gen from proto/. Needs a protoc: grpcio-tools' or the system's.
set -eu
cd "$(dirname "$0")/.."
set_file=$(mktemp)
trap 'rm -f "$set_file"' EXIT
if .venv/bin/python -c 'import grpc_tools' 2>/dev/null; then
    protoc() { .venv/bin/python -m grpc_tools.protoc "$@"; }
fi
protoc -I proto --include_imports --descriptor_set_out="$set_file" \
    proto/linkerd/proto/identity.proto proto/linkerd/proto/destination.proto proto/linkerd/proto/inbound.proto \
    proto/linkerd/proto/outbound.proto proto/linkerd/proto/tap.proto proto/linkerd/proto/transport_header.proto
cargo run -q -p linkerd-proto --features generate --bin linkerd-proto-generate -- "$set_file" crates/linkerd-proto/src/gen
