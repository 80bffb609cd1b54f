"""What a test needs around a proxy, and nothing else should use."""

from ._core import Ca

__all__ = ["Ca"]
