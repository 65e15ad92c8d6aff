"""The headers of an AV1 stream: as large as its frames can be, and how many there are.

After the AV1 Bitstream and Decoding Process Specification, sections 5.3 to 5.9.
"""

from __future__ import annotations

from ember.worker.images.claims import corrupt, unsupported

__all__ = ["Av1Stream"]

_MOST_UNITS = 1024
_SEQUENCE, _FRAME_HEADER, _FRAME = 1, 3, 6
_SELECT = 2
_SWITCH = 3


class Av1Stream:
    """area: pixels of the largest frame that a sequence header allows. frames: that are decoded.

    Raises RowError for damaged streams, and for frames that may be larger than the header says.
    """

    def __init__(self, data: bytes) -> None:
        self.area = 0
        self.frames = 0
        self._sequence: _Sequence | None = None
        position = 0
        for _ in range(_MOST_UNITS):
            if position >= len(data):
                return
            header = data[position]
            kind = header >> 3 & 15
            position += 2 if header & 4 else 1
            size = len(data) - position
            if header & 2:
                size, position = _leb128(data, position)
            self._unit(kind, data[position : position + size])
            position += size
        raise corrupt("the AV1 stream has too many units")

    def _unit(self, kind: int, body: bytes) -> None:
        if kind == _SEQUENCE:
            self._sequence = _Sequence(_Bits(body))
            self.area = max(self.area, self._sequence.width * self._sequence.height)
        elif kind in (_FRAME_HEADER, _FRAME):
            if self._sequence is None:
                raise corrupt("the AV1 stream has a frame before its header")
            self.frames += 1
            if _has_own_size(_Bits(body), self._sequence):
                raise unsupported("an AVIF whose frame has a size of its own is not read")


class _Bits:
    def __init__(self, data: bytes) -> None:
        self._value = int.from_bytes(data[:64].ljust(64, b"\0"))  # no header here is longer
        self._left = 512

    def take(self, count: int) -> int:
        self._left -= count
        if self._left < 0:
            raise corrupt("a header of the AV1 stream is too long")
        return self._value >> self._left & ((1 << count) - 1)

    def skip_uvlc(self) -> None:
        zeros = 0
        while not self.take(1):
            zeros += 1
        self.take(min(zeros, 32))


class _Sequence:
    """The sequence header, as far as what decides a frame's size."""

    def __init__(self, bits: _Bits) -> None:
        take = bits.take
        take(4)  # profile, still picture
        self.reduced = bool(take(1))
        self.time_bits = 0
        self.equal_interval = False
        if self.reduced:
            take(5)
        else:
            self._skip_operating_points(bits)
        width_bits, height_bits = take(4) + 1, take(4) + 1
        self.width, self.height = take(width_bits) + 1, take(height_bits) + 1
        self.id_bits = 0
        if not self.reduced and take(1):
            self.id_bits = take(4) + 2
            self.id_bits += take(3) + 1
        take(3)
        self.screen = self.integer = _SELECT
        if not self.reduced:
            take(4)
            if take(1):  # order hints
                take(2)
            self.screen = _SELECT if take(1) else take(1)
            if self.screen:
                self.integer = _SELECT if take(1) else take(1)

    def _skip_operating_points(self, bits: _Bits) -> None:
        take = bits.take
        delay_bits = 0
        if take(1):  # timing
            take(32)
            take(32)
            self.equal_interval = bool(take(1))
            if self.equal_interval:
                bits.skip_uvlc()
            if take(1):  # decoder model
                delay_bits = take(5) + 1
                take(32)
                take(5)
                self.time_bits = take(5) + 1
        delays = take(1)
        for _ in range(take(5) + 1):
            take(12)
            if take(5) > 7:
                take(1)
            if delay_bits and take(1):
                take(delay_bits)
                take(delay_bits)
                take(1)
            if delays and take(1):
                take(4)


def _has_own_size(bits: _Bits, sequence: _Sequence) -> bool:
    """Does a frame header say another size than the sequence's?"""
    take = bits.take
    if sequence.reduced or take(1):  # one that shows an earlier frame
        return False
    kind, shown = take(2), take(1)
    if not shown:
        take(1)
    elif sequence.time_bits and not sequence.equal_interval:
        take(sequence.time_bits)
    if not (kind == _SWITCH or (kind == 0 and shown)):
        take(1)
    take(1)
    screen = take(1) if sequence.screen == _SELECT else sequence.screen
    if screen and sequence.integer == _SELECT:
        take(1)
    take(sequence.id_bits)
    return kind == _SWITCH or bool(take(1))


def _leb128(data: bytes, position: int) -> tuple[int, int]:
    value = 0
    for number in range(8):
        if position >= len(data):
            break
        byte = data[position]
        position += 1
        value |= (byte & 127) << 7 * number
        if not byte & 128:
            break
    return value, position
