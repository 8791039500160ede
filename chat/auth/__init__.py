"""Who a client is: tokens of the site's identity providers, which every replica verifies itself."""
