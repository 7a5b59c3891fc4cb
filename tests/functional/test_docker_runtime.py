"""The Docker runtime on a real engine."""

from __future__ import annotations

from twisted.trial.unittest import TestCase

from mcpgate.testing.runtime_contract import RuntimeFixture, make_runtime_tests
from tests.functional.docker_bed import DockerBed


def fixture(test: TestCase) -> RuntimeFixture:
    """Make a `DockerBed`."""
    return DockerBed(test)


class DockerRuntimeContractTests(make_runtime_tests(fixture)):  # type: ignore[misc]  # a made class
    """`DockerRuntime` keeps the contract."""
