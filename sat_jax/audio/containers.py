"""Recognises sound files by their first bytes."""

import re
from collections.abc import Callable

_SIGNATURES = {
    "WAV": rb"(RIFF|RIFX|RF64|BW64)....WAVE|riff\x2e\x91\xcf\x11",
    "AIFF": rb"FORM....(AIFF|AIFC|8SVX|16SV)",
    "AU": rb"\.snd|dns\.",
    "CAF": rb"caff\0\x01",
    "FLAC": rb"fLaC",
    "Ogg": rb"OggS\0",
    "MP3": rb"ID3[\x02-\x04][^\xff].[\0-\x7f]{4}",
    "MP4": rb"....(ftyp|moov|moof|mdat|wide|free|skip|styp)",
    "Matroska": rb"\x1a\x45\xdf\xa3",
    "AVI": rb"RIFF....AVI ",
    "ASF": rb"\x30\x26\xb2\x75\x8e\x66\xcf\x11",
    "FLV": rb"FLV\x01",
    "MPEG": rb"\0\0\x01\xba",
    "AMR": rb"#!AMR",
    "WavPack": rb"wvpk",
    "Monkey's Audio": rb"MAC ",
    "Musepack": rb"MPCK|MP\+\x07",
    "TrueAudio": rb"TTA[12]",
    "DSD": rb"DSD |FRM8",
    "SPHERE": rb"NIST_1A",
    "VOC": rb"Creative Voi",
    "NUT": rb"nut/multimed",
    "DTS": rb"\x7f\xfe\x80\x01",
    "RealMedia": rb"\.RMF\0\0\0",
    "SoX": rb"\.SoX|XoS\.",
    "TrueHD": rb".{4}\xf8\x72\x6f[\xba\xbb]",
    "ADX": rb"\x80\0..[\x02-\x04]\x12\x04[\x01-\x08]",
    "old": rb"PVF1\n| paf|fap |2BIT|ALawSoundFi|MATLAB|.{20}samplerate\0",
    "SDS": rb"\xf0\x7e\0\x01",
    "IRCAM": rb"\x64\xa3[\0-\x04]\0|\0[\0-\x04]\xa3\x64",
}
_SIGNATURE_BYTES = 32
_COMPILED = {name: re.compile(pattern, re.DOTALL) for name, pattern in _SIGNATURES.items()}
_STARTS = re.compile(
    rb"\xff[\xe2-\xff]|ID3|RI[FX][FX]|RF64|FORM|fLaC|OggS|caff|\.snd|FLV|wvpk|TTA|riff\x2e|nut/"
    rb"|Creative|\x1a\x45\xdf\xa3|\x30\x26\xb2\x75|(?s:....)(?:ftyp|wide|moov|mdat)"
)
_FRAMES = 4  # Samples may look like the header of one frame, or of two.
_HEADER_BYTES = 6

# Of MPEG 1 and 2, layers II and III.
_BIT_RATES = {
    (3, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (3, 1): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (2, 1): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_SAMPLE_RATES = (44_100, 48_000, 32_000)
_AC3_KILOBITS = (*_BIT_RATES[3, 1], 384, 448, 512, 576, 640)
_AC3_RATES = (48_000, 44_100, 32_000)


def find_container(peek: Callable[[int], bytes]) -> str | None:
    """Returns the name of the format that a stream begins with; None for anything else.

    Args:
      peek: returns that many bytes from the beginning, or all if there are fewer. It is asked for
        few if these are enough.
    """
    start = peek(_SIGNATURE_BYTES)
    for name, pattern in _COMPILED.items():
        if pattern.match(start):
            return name
    for name, frame_bytes in _FRAME_BYTES.items():
        if _frames_follow(peek, frame_bytes):
            return name
    return None


def container_of(content: bytes) -> str | None:
    """Returns the name of the format that bytes begin with; see `find_container`."""
    return find_container(lambda size: content[:size])


def find_start(content: bytes, first: int = 0) -> int | None:
    """Returns where a sound begins in bytes, from index `first` on; None if none does."""
    for match in _STARTS.finditer(content, first):
        start = match.start()
        if find_container(lambda size: content[start : start + size]):  # noqa: B023
            return start
    return None


def _frames_follow(peek: Callable[[int], bytes], frame_bytes: Callable[[bytes], int]) -> bool:
    """Whether frames follow each other, up to the end or several of them."""
    position = 0
    for number in range(_FRAMES):
        header = peek(position + _HEADER_BYTES)[position:]
        if len(header) < _HEADER_BYTES:
            return number > 1
        size = frame_bytes(header)
        if not size:
            return False
        position += size
    return True


def _mpeg_bytes(header: bytes) -> int:
    """Returns the length of an MP3 or MP2 frame; 0 if it is none."""
    version, layer = header[1] >> 3 & 3, header[1] >> 1 & 3
    bit_rate, sample_rate, padding = header[2] >> 4, header[2] >> 2 & 3, header[2] >> 1 & 1
    is_frame = header[0] == 0xFF and header[1] >= 0xE0 and version != 1 and layer in (1, 2)
    if not is_frame or not 0 < bit_rate < 15 or sample_rate == 3:
        return 0
    kilobits = _BIT_RATES[(3, layer) if version == 3 else (2, 1)][bit_rate - 1]
    rate = _SAMPLE_RATES[sample_rate] >> (3 - version if version else 2)
    return (72 if version != 3 and layer == 1 else 144) * kilobits * 1_000 // rate + padding


def _adts_bytes(header: bytes) -> int:
    """Returns the length of an AAC frame; 0 if it is none."""
    size = (header[3] & 3) << 11 | header[4] << 3 | header[5] >> 5
    is_frame = header[0] == 0xFF and header[1] & 0xF6 == 0xF0 and (header[2] >> 2 & 15) < 13
    return size if is_frame and size > 7 else 0


def _ts_bytes(header: bytes) -> int:
    """Returns the length of a packet of an MPEG transport stream; 0 if it is none."""
    return 188 if header[0] == 0x47 and not header[1] & 0x80 and header[3] & 0x30 else 0


def _ac3_bytes(header: bytes) -> int:
    """Returns the length of an AC-3 or E-AC-3 frame; 0 if it is none."""
    rate, code, version = header[4] >> 6, header[4] & 63, header[5] >> 3
    if header[:2] != b"\x0b\x77":
        return 0
    if version == 16:
        return 2 * ((header[2] & 7) << 8 | header[3]) + 2
    if version > 10 or rate == 3 or code >> 1 >= len(_AC3_KILOBITS):
        return 0
    # 1536 samples, in words of 16 bits.
    words = _AC3_KILOBITS[code >> 1] * 96_000 // _AC3_RATES[rate]
    return 2 * (words + (code & 1 if rate == 1 else 0))


_FRAME_BYTES = {
    "MP3": _mpeg_bytes,
    "AAC": _adts_bytes,
    "MPEG-TS": _ts_bytes,
    "AC-3": _ac3_bytes,
}
