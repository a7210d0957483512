"""Logins, and who may do what: ACLs, users' credentials, clients' quotas."""
