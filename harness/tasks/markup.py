"""Rows of XML: the elements with one name, wherever they stand."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element


def rows(content: bytes, name: str) -> list[dict[str, Any]]:
    """Each element called ``name`` as an object: its attributes, and its children by their names.

    Children with one name are a list. An element without attributes and children is its text; the text of one with
    attributes or children stands under 'text', with that of its children where it is a text with marks in it: where
    any element of that name, in the whole file, goes on behind a child. Entities that the file declares are not read:
    a few lines of them fill a memory. Raises ValueError for what is no XML, for entities, where no element has that
    name, and where two of an attribute, a child and a text share one.
    """
    from defusedxml import EntitiesForbidden
    from defusedxml.ElementTree import ParseError, fromstring

    try:
        root: Element = fromstring(content)
    except ParseError as error:
        raise ValueError(f"it is no XML: {error}") from error
    except EntitiesForbidden as error:
        raise ValueError(f"it declares the entity '{error.name}', which is not read; write its text instead") from error
    marked = {element.tag for element in root.iter() if any((child.tail or "").strip() for child in element)}
    values = [_value(element, marked) for element in root.iter(name)]
    if not values:
        names = sorted({element.tag for element in root.iter()})[:20]
        raise ValueError(f"reader.records: no element is called '{name}'; there are {', '.join(names)}")
    return [value if isinstance(value, dict) else {"text": value} for value in values]


def _value(element: Element, marked: Collection[str]) -> dict[str, Any] | str:
    # An element of children alone is a record, also where others of its name are texts with marks in them.
    is_marked = element.tag in marked and (element.text or "").strip()
    goes_on = is_marked or any((child.tail or "").strip() for child in element)
    text = "".join(element.itertext() if goes_on else [element.text or ""]).strip()
    if not len(element) and not element.attrib:
        return text
    several: dict[str, list[Any]] = {}
    for child in element:
        several.setdefault(child.tag, []).append(_value(child, marked))
    for twice in element.attrib.keys() & several.keys():
        raise ValueError(f"an element '{element.tag}' has '{twice}' twice, as an attribute and as a child")
    if text and ("text" in element.attrib or "text" in several):
        raise ValueError(f"an element '{element.tag}' has 'text' twice, as its own text and as an attribute or a child")
    own: dict[str, Any] = {**element.attrib, **({"text": text} if text else {})}
    return own | {tag: values[0] if len(values) == 1 else values for tag, values in several.items()}
