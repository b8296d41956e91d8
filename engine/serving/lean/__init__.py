"""A gRPC server without grpcio: one thread that reads, decides and answers."""
