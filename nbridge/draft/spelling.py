"""Recognises numbers in text that are not written as plain numbers, and numbers that could be codes."""

from __future__ import annotations

import re
from collections.abc import Sequence

from nbridge.common.messages import clip
from nbridge.data.texts import number_of

_NUMBER = r"[-+]?\d+(?:[.,]\d+)*"
_CURRENCY = r"(?:(?:R|US|A|C)?\$|[€£¥₹₽₩₺]|EUR|USD|GBP|CHF|JPY|CAD|AUD|BRL|CNY|INR|SEK|NOK|DKK|PLN|zł|kr\.?)"
_SCALE = r"(?: ?(?:[kKM]|bn|[Mm]io\.?|[Mm]rd\.?))"
_UNIT = r"(?: [^\W\d_]{1,4}|[ ]?(?:[kmµ]?g|[kcmµ]?m|[mµ]?l|[mµ]?s|h|K?Hz|°[CF]?|m?V|[kMG]B|px))"
SPELT = {
    r"[-+]?\d+(?:,\d+)+(?:\.\d+)?|[-+]?\d{1,3}(?:\.\d{3})+,\d+": "numbers with commas",
    r"[-+]?\d{1,3}(?:\.\d{3}){2,}|[-+]?\d{1,3}(?:[ '\u2019\u00a0\u202f_]\d{3})+(?:[.,]\d+)?": "numbers with separated thousands",
    rf"[\u2212\u2013]{_NUMBER}": "numbers with a minus sign that is not '-'",
    rf"\({_NUMBER}\)|\d+[.,]\d+-": "negative numbers as in accounts",
    rf"{_NUMBER} ?%": "numbers with percent signs",
    rf"[-+]?{_CURRENCY} ?{_NUMBER}{_SCALE}?|{_NUMBER}{_SCALE}? ?{_CURRENCY}": "amounts with a currency",
    rf"{_NUMBER}{_SCALE}": "numbers with a suffix of thousands or millions",
    r"0[xX][0-9a-fA-F]+": "hexadecimal numbers",
    rf"{_NUMBER}{_UNIT}(?:/[^\W\d_]+)?[²³]?": "numbers with a unit",
    rf"[<>≤≥~] ?{_NUMBER}": "numbers with signs such as <",
}
"""Patterns of numbers that are not written as plain numbers, with what they are called."""


def spelt_otherwise(texts: Sequence[str]) -> str:
    """Describes numbers that are not written as plain numbers; empty if the texts are something else.

    Arguments:
        texts: Distinct texts of a column.

    Example:
        >>> spelt_otherwise([f"{place},5" for place in range(20)])
        "text such as '0,5', numbers with commas; write them with a decimal point and nothing else"
        >>> spelt_otherwise(["(0.12)", "3"]), spelt_otherwise(["12k", "3.5M"]) # doctest: +ELLIPSIS
        ("text such as '(0.12)', negative numbers as in accounts; ...", "text such as '12k', numbers with a suffix ...")
        >>> spelt_otherwise(["63.5", "12"]), spelt_otherwise(["a,5", "b,6"]), spelt_otherwise(["12A", "3B"])
        ('', '', '')
    """
    others = [text for text in texts if number_of(text) is None]
    if not others or not all(map(re.compile("|".join(SPELT)).fullmatch, others)):
        return ""
    what = next(what for pattern, what in SPELT.items() if re.fullmatch(pattern, others[0]))
    return f"text such as {clip(others[0])!r}, {what}; write them with a decimal point and nothing else"


def maybe_codes(texts: Sequence[str]) -> str:
    """The doubt about a column of numbers that are written like codes; empty if they are not.

    Example:
        >>> maybe_codes(["1.1", "1.2", "1.10"])
        "could also be codes: '1.1' and '1.10' are the same number"
        >>> maybe_codes(["007.25", "110.50"]), maybe_codes(["1E5", "2E1"]), maybe_codes(["0.25", "1e-5", "-3"])
        ("could also be codes: '007.25' has leading zeros", "could also be codes: '1E5'", '')
    """
    if padded := next((text for text in texts if re.fullmatch(r"[-+]?0\d+(\.\d*)?", text)), None):
        return f"could also be codes: {clip(padded)!r} has leading zeros"
    spelt: dict[float, str] = {}
    for text in texts:
        number = number_of(text)
        # 1 and 1.0, and zeros, have several spellings in files that programs write.
        if (
            number
            and "." in text
            and "e" not in text.lower()
            and not text.endswith(".0")
            and (other := spelt.setdefault(number, text)) != text
        ):
            return f"could also be codes: {clip(other)!r} and {clip(text)!r} are the same number"
    powers = [text for text in texts if re.fullmatch(r"\d+[eE]\d+", text)]
    return f"could also be codes: {clip(powers[0])!r}" if powers else ""


def same_but_for_case(texts: Sequence[str]) -> str:
    """The doubt about classes of which two differ only in upper and lower case; empty if none do.

    Example:
        >>> same_but_for_case(["No", "yes", "no"]), same_but_for_case(["no", "yes"])
        ("'No' and 'no' differ only in case", '')
    """
    seen: dict[str, str] = {}
    for text in texts:
        if (other := seen.setdefault(text.casefold(), text)) != text:
            return f"{clip(other)!r} and {clip(text)!r} differ only in case"
    return ""
