"""One entry of an XML source, watched: its own values and attributes, and its groups of values by tag."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from adapters.fields import Fields

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

    from adapters.adapter import SourceReport


class XmlEntry:
    """An element two levels deep: children with text are values of `top`, children with children are groups.

    Attributes count as values (`@name`); what lies deeper than a group's children is reported as having no home.
    """

    def __init__(self, entry: Element, report: SourceReport) -> None:
        own: dict[str, list[str]] = defaultdict(list, {f"@{name}": [value] for name, value in entry.attrib.items()})
        self._groups: dict[str, list[Fields]] = defaultdict(list)
        for child in entry:
            if len(child) or child.attrib:
                self._groups[child.tag].append(Fields(_values(child), report, f"{entry.tag}/{child.tag}/"))
            else:
                own[child.tag].append(child.text or "")
        self.top = Fields(own, report, f"{entry.tag}/")

    def each(self, tag: str) -> list[Fields]:
        """Give all groups of one tag."""
        return self._groups.get(tag, [])

    def values(self, tag: str) -> list[str]:
        """Give all VALUEs of one tag."""
        return [value for group in self.each(tag) for value in group.take_all("VALUE")]

    def close(self) -> None:
        """Report what is left over. Raises FieldError if that would restrict."""
        for each in (self.top, *(group for groups in self._groups.values() for group in groups)):
            each.close()


def _values(group: Element) -> dict[str, list[str]]:
    """Give what a group holds by path: `child`, `@name`, `child/@name`, `child/grandchild`; `.` is its own text."""
    held: dict[str, list[str]] = defaultdict(list)
    open_ = [("", group)]
    while open_:
        path, each = open_.pop()
        held[path or "."].append(" ".join((each.text or "").split()))
        inner = f"{path}/" if path else ""
        for name, value in each.attrib.items():
            held[f"{inner}@{name}"].append(value)
        open_ += [(f"{inner}{child.tag}", child) for child in reversed(each)]
    return held
