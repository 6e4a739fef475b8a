"""Protobuf messages as Linkerd's CLI dumps them: the JSON of Go's structs.

Fields go by their proto names, unset ones are left out, and each oneof is an object named after the oneof that holds
one field (`"Kind": {"Http1": {…}}`), both in Go's spelling.
"""

from __future__ import annotations

import base64
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message


def go_struct(message: Message) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for field, content in message.ListFields():
        oneof = field.containing_oneof
        if oneof is None:
            value[field.name] = _field(field, content)
        else:
            value[_camel(oneof.name)] = {_camel(field.name): _field(field, content)}
    return value


def _field(field: FieldDescriptor, content: Any) -> Any:
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        entry = field.message_type.fields_by_name["value"]
        return {str(key): _one(entry, content[key]) for key in sorted(content)}
    if field.is_repeated:
        return [_one(field, item) for item in content]
    return _one(field, content)


def _one(field: FieldDescriptor, content: Any) -> Any:
    if field.message_type is not None:
        return go_struct(content)
    return base64.b64encode(content).decode() if isinstance(content, bytes) else content


def _camel(name: str) -> str:
    """As protoc-gen-go spells it."""
    return "".join(part[:1].upper() + part[1:] for part in name.split("_"))
