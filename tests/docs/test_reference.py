"""Tests that the reference is complete: nothing missing, nothing invented."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator

from twisted.trial.unittest import SynchronousTestCase
from typing_extensions import override

from mcpgate import errors
from mcpgate.cli import make_parser
from mcpgate.errors import GateError
from mcpgate.telemetry.meters import Meters
from mcpgate.telemetry.metrics import KNOWN_EVENTS, GateCollector
from mcpgate.web.pages.tree import GateTree
from tests.docs.pages import reference, sections


def _errors() -> dict[str, type[GateError]]:
    return {
        found.reason: found
        for found in vars(errors).values()
        if isinstance(found, type) and issubclass(found, GateError)
    }


class ErrorPageTests(SynchronousTestCase):
    """``docs/reference/errors.rst`` and ``mcpgate.errors``."""

    @override
    def setUp(self) -> None:
        self.text = reference("errors")
        self.sections = sections(self.text, "-")

    def test_every_reason_has_its_section(self) -> None:
        """A client's error can be looked up by its reason, and no section is about nothing."""
        self.assertEqual(set(_errors()), set(self.sections))

    def test_sections_tell_status_and_code(self) -> None:
        """Status and code on the page are those on the wire."""
        for reason, found in _errors().items():
            section = self.sections[reason]
            self.assertIn(f":Status: {found.status}\n", section, reason)
            self.assertIn(f":Code: {found.code}\n", section, reason)

    def test_sections_tell_a_remedy(self) -> None:
        """Every section says what can be done."""
        for reason, section in self.sections.items():
            self.assertIn("*Remedy:*", section, reason)

    def test_sections_have_anchors(self) -> None:
        """Every section can be linked to by its reason."""
        for reason in _errors():
            self.assertIn(f".. _error-{reason}:\n", self.text)


class EndpointPageTests(SynchronousTestCase):
    """``docs/reference/endpoints.rst`` and the tree of pages."""

    def test_every_route_is_listed(self) -> None:
        """Every page the gate answers itself is on the list, and no other."""
        listed = re.findall(r"^   \* - ``(/\S*)``$", reference("endpoints"), re.MULTILINE)
        routes = {rule.rule for rule in GateTree.app.url_map.iter_rules()}
        self.assertEqual(routes, set(listed))


class MetricPageTests(SynchronousTestCase):
    """``docs/reference/metrics.rst`` and the exporter."""

    def test_every_metric_is_listed(self) -> None:
        """Every name that is exported is explained, and no other."""
        collector = GateCollector(
            Meters(), version="1", servers=lambda: ["notes"], instances=tuple, sessions=dict
        )
        exported = {(family.name, family.kind) for family in collector.collect()}
        listed = re.findall(
            r"^   \* - ``(mcpgate_\w+)``\n     - (\w+)$", reference("metrics"), re.MULTILINE
        )
        self.assertEqual(exported, set(listed))

    def test_every_known_event_is_explained(self) -> None:
        """Every event that is exported from the start is explained, and no other."""
        lines = re.findall(r"^   \* - (``[a-z_]+``.*)$", reference("metrics"), re.MULTILINE)
        names = {name for line in lines for name in re.findall(r"``(\w+)``", line)}
        metrics = {name for name in names if name.startswith("mcpgate_")}
        self.assertEqual(set(KNOWN_EVENTS), names - metrics)


def _commands(
    parser: argparse.ArgumentParser, path: str = ""
) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, inner in action.choices.items():
                yield f"{path}{name}", inner
                yield from _commands(inner, f"{path}{name} ")


class CommandPageTests(SynchronousTestCase):
    """``docs/reference/command-line.rst`` and the parsers."""

    @override
    def setUp(self) -> None:
        self.text = reference("command-line")
        self.sections = sections(self.text, "-")
        self.commands = dict(_commands(make_parser()))

    def test_every_command_has_its_section(self) -> None:
        """Every command is on the page, and no other."""
        first = {f"mcpgate {name}" for name in self.commands if " " not in name}
        self.assertEqual(first, set(self.sections))

    def test_commands_below_a_command_are_told(self) -> None:
        """``keys add`` and its like are on the page."""
        for name in self.commands:
            self.assertIn(f"mcpgate {name}", self.text)

    def test_every_option_is_told(self) -> None:
        """Every option and positional argument of a command is in its section."""
        for name, parser in self.commands.items():
            section = self.sections[f"mcpgate {name.partition(' ')[0]}"]
            for action in parser._actions:
                if isinstance(action, argparse._HelpAction | argparse._SubParsersAction):
                    continue
                shown = action.option_strings or [str(action.metavar or action.dest)]
                for text in shown:
                    self.assertIn(text, section, f"{name} {text}")
                for choice in action.choices or ():
                    self.assertIn(choice, section, f"{name} {shown}")
