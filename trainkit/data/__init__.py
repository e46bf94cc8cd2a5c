"""Data that ships with trainkit."""

from trainkit.data.digits import Digits

__all__ = ["Digits"]
