"""Who may do what: ACLs, users' credentials, clients' quotas."""
