"""The source of the tests of composites serves the audit, too."""

from tests.composites.conftest import source

__all__ = ["source"]
