"""grpcio's server, whose calls are answered by the thread that polls it."""
