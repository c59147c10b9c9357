"""The command line: each command is one library call."""

from lighten.cli import advising, comparing, costs, jobs, networks  # their commands
from lighten.cli.app import main

__all__ = ["advising", "comparing", "costs", "jobs", "main", "networks"]
