"""Commands for who may do what: ACLs, users and their passwords, quotas."""
