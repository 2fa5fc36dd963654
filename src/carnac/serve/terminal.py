"""Text that came from the web or out of a model, made safe to print: it must not steer the terminal it is shown in."""

from __future__ import annotations

REPLACEMENT = 0xFFFD
# C0 and C1 controls (ESC begins an escape sequence; BEL, backspace ...) and the marks that turn the reading direction,
# with which a text can be made to read otherwise than it is (Boucher and Anderson 2021, arXiv 2111.00169).
STEERING = {
    **dict.fromkeys([*range(0x20), *range(0x7F, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A)], REPLACEMENT),
    ord("\t"): "\t",
    ord("\n"): "\n",
    ord("\r"): None,
}


def printable(text: str) -> str:
    """Return `text` with U+FFFD for what steers a terminal; a carriage return, which overwrites, is left out."""
    return text.translate(STEERING)
