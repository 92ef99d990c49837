"""Elements of a page: made as a tree, so that whatever a user's text holds, it is text.

Owns the form. Must not know what a page shows.
"""

import re
from typing import Final
from xml.etree.ElementTree import Element, tostring

_ESCAPE_SEQUENCES: Final = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")
_NOT_TEXT: Final = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def element(tag: str, *content: Element | str, **attributes: str) -> Element:
    """Return an element with its content; `class_` is the attribute class, `stroke_width` is stroke-width."""
    made = Element(tag, {name.rstrip("_").replace("_", "-"): value for name, value in attributes.items()})
    for each in content:
        if isinstance(each, Element):
            made.append(each)
        elif len(made):
            made[-1].tail = (made[-1].tail or "") + visible(each)
        else:
            made.text = (made.text or "") + visible(each)
    return made


def visible(text: str) -> str:
    """Return text without colours of a terminal; what no page may hold is shown as �."""
    return _NOT_TEXT.sub("\ufffd", _ESCAPE_SEQUENCES.sub("", text))


def to_html(root: Element) -> str:
    """Return a whole page."""
    return f"<!DOCTYPE html>\n{tostring(root, encoding='unicode', method='html')}\n"
