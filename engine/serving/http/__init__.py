"""The HTTP/JSON face of the serving core; see docs/http.md."""
