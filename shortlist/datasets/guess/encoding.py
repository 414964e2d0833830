"""Guesses the encoding of a text file."""

from collections import Counter

from shortlist.datasets.errors import DatasetError
from shortlist.datasets.files.locate import SourceFile
from shortlist.datasets.files.readers import head_bytes

LIKELY = (
    *("cp1252", "cp1251", "koi8_r", "cp1250", "cp1253", "cp1254", "shift_jis", "euc_jp"),
    *("gb18030", "big5", "euc_kr", "cp866"),
)
LATIN = ("cp1252", "cp1250", "cp1254")
"""Western, Central European and Turkish: most bytes are letters in each of them."""
CENTRAL = "\u0161\u0160\u017e\u017d\u0153\u0152\u0178"
CENTRAL += "\u00b3\u00b9\u00bf\u00a3\u00a5\u00af\u00be\u00bc"
"""cp1252's reading of frequent cp1250 letters that are symbols or rare in cp1252."""
HUNGARIAN = "\u00e1\u00e9\u00ed\u00f3\u00f6\u00f5\u00fa\u00fc\u00fb"
"""cp1252's reading of the Hungarian letters in cp1250."""
TURKISH, ICELANDIC = "\u00fe\u00f0\u00fd\u00dd\u00de\u00d0", "\u00e1\u00ed\u00fa\u00f3\u00e6"
"""cp1252's reading of cp1254 letters, and letters that go with them in Icelandic."""
MUCH = 0.1
"""Share of the non-ASCII characters in CENTRAL from which a text is Central European."""


def guess_encoding(file: SourceFile) -> str:
    """Guess the encoding from the beginning of a file.

    It is utf-8 unless most lines with non-ASCII bytes are invalid UTF-8; then `charset_normalizer`
    and the letters decide. An encoding that has all bytes of the file is preferred.

    Raises:
        DatasetError: the file is utf-32, utf-16 without a byte order mark, or no text.
    """
    head = head_bytes(file)
    if head[:4] in (b"\xff\xfe\0\0", b"\0\0\xfe\xff"):
        raise DatasetError(f"{file.name}: is utf-32; want utf-8 or utf-16: convert it")
    if head[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return "utf-16"
    zeros = max(head[::2].count(0), head[1::2].count(0))
    if zeros > len(head) / 4 and head.count(0) < len(head) * 0.6:
        raise DatasetError(
            f"{file.name}: is utf-16 without the two bytes (FF FE) that say so; want utf-8, or"
            " utf-16 with these bytes"
        )
    if head.count(0) > len(head) / 100:
        raise DatasetError(f"{file.name}: has zero bytes, so it is no text; want CSV or JSON Lines")
    lines = [line for line in head.split(b"\n")[:-1] or [head] if not line.isascii()]
    broken = [line for line in lines if not _fits(line, "utf-8")]
    if len(broken) <= len(lines) / 2:
        return "utf-8"
    from charset_normalizer import from_bytes

    text = b"\n".join(broken)[:200_000]
    found = [match.encoding for match in from_bytes(text, cp_isolation=list(LIKELY))]
    if not found or found[0] in LATIN:
        found = [*_latin(text, turkish=found[:1] == ["cp1254"]), *found]
    return next((encoding for encoding in found if _fits(text, encoding)), found[0])


def _latin(text: bytes, *, turkish: bool) -> list[str]:
    """Return cp1252 and cp1250, or cp1254, the best first, by the letters that are frequent."""
    western = text.decode("cp1252", errors="replace")
    letters = Counter(
        one
        for before, one, after in zip(" " + western, western, western[1:] + " ", strict=False)
        if not one.isascii() and (before.isalpha() or after.isalpha())
    )
    central = {one: rows for one, rows in letters.items() if one in CENTRAL}
    if turkish and len(set(letters) & set(TURKISH)) > 1 and not set(letters) & set(ICELANDIC):
        return ["cp1254", "cp1252"]
    hungarian = set(letters) <= set(HUNGARIAN) and len(set(letters) & set("\u00f5\u00fb")) > 1
    if hungarian or (len(central) > 1 and sum(central.values()) > MUCH * letters.total()):
        return ["cp1250", "cp1252"]
    return ["cp1252", "cp1250", "latin-1"]


def _fits(text: bytes, encoding: str) -> bool:
    try:
        text.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True
