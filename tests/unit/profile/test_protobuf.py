"""Routes from Protocol Buffers files."""

from __future__ import annotations

import pytest
from linkerd.profile.protobuf import routes_from_proto
from linkerd.profile.routes import ProfileError

LEDGER = """
syntax = "proto3"; // rpc Commented(A) returns (B);
package shop.ledger.v1;
import "google/protobuf/empty.proto";

/* service Hidden { rpc Nothing(A) returns (B); } */
message Entry {
  string text = 1 [default = "rpc Quoted(A) returns (B); }"];
  message Inner { int32 service = 2; }
}

service Ledger {
  option deprecated = true;
  rpc Book(Entry) returns (google.protobuf.Empty);
  rpc Read (Query) returns (stream Entry) {
    option (google.api.http) = { get: "/v1/{name=entries/*}" additional_bindings { get: "/x" } };
    option idempotency_level = NO_SIDE_EFFECTS;
  }
  rpc Put(stream Entry) returns (Sum) { option idempotency_level = IDEMPOTENT; }
  rpc Unsure(Entry) returns (Sum) { option idempotency_level = IDEMPOTENCY_UNKNOWN; }
}
"""


def test_a_route_for_each_rpc_in_the_files_order():
    found = routes_from_proto(LEDGER)
    assert [(route.name, route.is_retryable) for route in found] == [
        ("Book", False),
        ("Read", True),
        ("Put", True),
        ("Unsure", False),
    ]
    assert (found[0].method, found[0].path_regex) == ("POST", r"/shop\.ledger\.v1\.Ledger/Book")


def test_a_file_without_a_package():
    assert routes_from_proto("service S { rpc R(A) returns (B); }")[0].path_regex == "/S/R"


@pytest.mark.parametrize("text", ["", "message A {}", "service Empty {}", "service S { rpc R(A)", "service S rpc"])
def test_what_has_no_routes_is_refused(text):
    with pytest.raises(ProfileError):
        routes_from_proto(text)
