"""The server and its client."""
