"""WebSocket connections: frames without I/O, a connection over them, and the bytes' way out."""
