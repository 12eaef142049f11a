"""Not tests: `make test-live` looks at a real tenant, and says where it differs from the simulator and the schemas."""
