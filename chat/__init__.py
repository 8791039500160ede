"""A chat service: WebSocket clients in rooms, with a log that gives every message its one place."""
