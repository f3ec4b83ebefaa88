"""The footer of a Parquet file as fields that can be read, changed and written back.

A footer is Thrift's compact protocol (parquet-format, parquet.thrift): structs of numbered fields. Nothing is
interpreted here but the encoding, so a field that this code does not know survives unchanged. A struct is a dict from
field number to (type, value); a list is (element type, values).
"""

from __future__ import annotations

from typing import Any, NamedTuple

Struct = dict[int, tuple[int, Any]]

TRUE, FALSE, BYTE, I16, I32, I64, DOUBLE, BINARY, LIST, STRUCT = 1, 2, 3, 4, 5, 6, 7, 8, 9, 12

NUM_ROWS, ROW_GROUPS = 3, 4
"""FileMetaData."""
COLUMNS, TOTAL_BYTES, GROUP_ROWS, FILE_OFFSET, COMPRESSED_BYTES = 1, 2, 3, 5, 6
"""RowGroup."""
META_DATA = 3
"""ColumnChunk."""
PATH, UNCOMPRESSED_SIZE, COMPRESSED_SIZE, DATA_PAGE, DICTIONARY_PAGE = 3, 6, 7, 9, 11
"""ColumnMetaData."""

MAGIC = b"PAR1"
_LENGTH = 4


class Footer(NamedTuple):
    """The fields, and where the footer begins in the file."""

    fields: Struct
    begin: int


def read_footer(data: memoryview | bytes) -> Footer:
    """The footer of a whole file. Raises ValueError when the file does not end in one."""
    end = len(data) - len(MAGIC) - _LENGTH
    if end <= 0 or bytes(data[-len(MAGIC) :]) != MAGIC:
        raise ValueError("does not end as a Parquet file does")
    begin = end - int.from_bytes(data[end : end + _LENGTH], "little")
    if begin < len(MAGIC):
        raise ValueError("its footer is longer than the file")
    return Footer(_Reader(bytes(data[begin:end])).struct(), begin)


def write_footer(fields: Struct) -> bytes:
    """The bytes that end a file: footer, its length, magic."""
    out = bytearray()
    _write_struct(out, fields)
    return bytes(out) + len(out).to_bytes(_LENGTH, "little") + MAGIC


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def struct(self) -> Struct:
        fields: Struct = {}
        number = 0
        while header := self._byte():
            kind, step = header & 15, header >> 4
            number = number + step if step else _signed(self._varint())
            fields[number] = (kind, kind == TRUE if kind in (TRUE, FALSE) else self._value(kind))
        return fields

    def _value(self, kind: int) -> Any:
        if kind in (I16, I32, I64):
            return _signed(self._varint())
        if kind == BINARY:
            return self._take(self._varint())
        if kind == STRUCT:
            return self.struct()
        if kind == LIST:
            header = self._byte()
            size, element = header >> 4, header & 15
            size = self._varint() if size == 15 else size
            return element, [self._value(element) for _ in range(size)]
        if kind == DOUBLE:
            return self._take(8)
        if kind in (TRUE, FALSE, BYTE):  # in a list a truth value takes a byte, like a number of one byte
            return self._byte()
        raise ValueError(f"footer with a field of type {kind}, which Parquet does not use")

    def _take(self, size: int) -> bytes:
        taken = self._data[self._at : self._at + size]
        self._at += size
        if len(taken) < size:
            raise ValueError("its footer is cut off")
        return taken

    def _byte(self) -> int:
        return self._take(1)[0]

    def _varint(self) -> int:
        value = shift = 0
        while True:
            byte = self._byte()
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value


def _signed(value: int) -> int:
    return (value >> 1) ^ -(value & 1)


def _write_struct(out: bytearray, fields: Struct) -> None:
    before = 0
    for number, (kind, value) in fields.items():
        kind = (TRUE if value else FALSE) if kind in (TRUE, FALSE) else kind
        if 0 < number - before < 16:
            out.append((number - before) << 4 | kind)
        else:
            out.append(kind)
            _write_signed(out, number)
        before = number
        if kind not in (TRUE, FALSE):
            _write_value(out, kind, value)
    out.append(0)


def _write_value(out: bytearray, kind: int, value: Any) -> None:
    if kind in (I16, I32, I64):
        _write_signed(out, value)
    elif kind == BINARY:
        _write_varint(out, len(value))
        out += value
    elif kind == STRUCT:
        _write_struct(out, value)
    elif kind == LIST:
        element, values = value
        if len(values) < 15:
            out.append(len(values) << 4 | element)
        else:
            out.append(15 << 4 | element)
            _write_varint(out, len(values))
        for each in values:
            _write_value(out, element, each)
    elif kind == DOUBLE:
        out += value
    else:
        out.append(value)


def _write_signed(out: bytearray, value: int) -> None:
    _write_varint(out, value << 1 if value >= 0 else (-value << 1) - 1)


def _write_varint(out: bytearray, value: int) -> None:
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
