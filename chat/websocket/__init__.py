"""WebSocket connections: frames (without I/O), connections, and transports for their bytes."""
