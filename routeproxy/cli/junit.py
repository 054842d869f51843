"""A report in JUnit's XML, as CI systems read it."""

from collections.abc import Mapping
from xml.etree import ElementTree


class JUnitSuite:
    """`str` of it is the whole document."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._cases: list[ElementTree.Element] = []
        self._failures = 0

    def add(self, attributes: Mapping[str, str], output: str | None = None) -> None:
        """A case that passed. `attributes`: `classname`, `name`, `file`, `line`."""
        case = self._add_case(attributes)
        if output is not None:
            ElementTree.SubElement(case, "system-out").text = output

    def add_failure(self, attributes: Mapping[str, str], message: str, text: str | None = None) -> None:
        ElementTree.SubElement(self._add_case(attributes), "failure", {"message": message}).text = text
        self._failures += 1

    def _add_case(self, attributes: Mapping[str, str]) -> ElementTree.Element:
        case = ElementTree.Element("testcase", dict(attributes))
        self._cases.append(case)
        return case

    def __str__(self) -> str:
        counts = {
            "tests": str(len(self._cases)),
            "failures": str(self._failures),
            "errors": "0",
            "skipped": "0",
        }
        root = ElementTree.Element("testsuites", counts)
        ElementTree.SubElement(root, "testsuite", {"name": self._name, **counts}).extend(self._cases)
        ElementTree.indent(root)
        return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"
