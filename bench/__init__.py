"""The chat and its peers, measured side by side. See README.md."""
