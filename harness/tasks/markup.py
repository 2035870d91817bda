"""Rows of XML: the elements with one name, wherever they stand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element


def rows(content: bytes, name: str) -> list[dict[str, Any]]:
    """Each element called ``name`` as an object: its attributes, and its children by their names.

    Children with one name are a list. An element without attributes and children is its text; the text of one with
    attributes stands under 'text', with that of its children where it goes on behind one of them. Entities that the
    file declares are not read: a few lines of them fill a memory. Raises ValueError for what is no XML, for entities,
    where no element has that name, and where an attribute and a child share one.
    """
    from defusedxml import EntitiesForbidden
    from defusedxml.ElementTree import ParseError, fromstring

    try:
        root: Element = fromstring(content)
    except ParseError as error:
        raise ValueError(f"it is no XML: {error}") from error
    except EntitiesForbidden as error:
        raise ValueError(f"it declares the entity '{error.name}', which is not read; write its text instead") from error
    values = [_value(element) for element in root.iter(name)]
    if not values:
        names = sorted({element.tag for element in root.iter()})[:20]
        raise ValueError(f"reader.records: no element is called '{name}'; there are {', '.join(names)}")
    return [value if isinstance(value, dict) else {"text": value} for value in values]


def _value(element: Element) -> dict[str, Any] | str:
    goes_on = any((child.tail or "").strip() for child in element)
    text = "".join(element.itertext() if goes_on else [element.text or ""]).strip()
    if not len(element) and not element.attrib:
        return text
    several: dict[str, list[Any]] = {}
    for child in element:
        several.setdefault(child.tag, []).append(_value(child))
    for twice in element.attrib.keys() & several.keys():
        raise ValueError(f"an element '{element.tag}' has '{twice}' twice, as an attribute and as a child")
    own: dict[str, Any] = {**element.attrib, **({"text": text} if text else {})}
    return own | {tag: values[0] if len(values) == 1 else values for tag, values in several.items()}
