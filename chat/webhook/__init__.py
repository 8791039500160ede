"""Outgoing webhooks: POSTs what happens in rooms to a site's URLs. docs/webhooks.md."""
