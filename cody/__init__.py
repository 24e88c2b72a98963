"""Cody: supervise coding agents that work unattended for hours."""

__version__ = "0.1.0"
