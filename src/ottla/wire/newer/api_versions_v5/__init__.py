"""ApiVersions v5: a client says which node of which cluster it means (KIP-1242)."""
