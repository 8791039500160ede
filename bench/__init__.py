"""Measurements of the chat and its peers, side by side. See README.md."""
