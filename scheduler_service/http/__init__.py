"""The reference's HTTP paths: a JSON face of the rpcs, so that both give the same answers by the same code."""
