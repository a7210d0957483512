"""Who may do what: TLS, SASL, ACLs and quotas. Nothing is here yet; a node trusts its network."""
