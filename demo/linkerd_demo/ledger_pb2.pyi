from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

class BookRequest(_message.Message):
    __slots__ = ("cents",)
    CENTS_FIELD_NUMBER: _ClassVar[int]
    cents: int
    def __init__(self, cents: _Optional[int] = ...) -> None: ...

class BookReply(_message.Message):
    __slots__ = ("entry",)
    ENTRY_FIELD_NUMBER: _ClassVar[int]
    entry: int
    def __init__(self, entry: _Optional[int] = ...) -> None: ...

class BalanceRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class BalanceReply(_message.Message):
    __slots__ = ("cents",)
    CENTS_FIELD_NUMBER: _ClassVar[int]
    cents: int
    def __init__(self, cents: _Optional[int] = ...) -> None: ...
