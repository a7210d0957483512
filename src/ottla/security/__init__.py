"""Who somebody is, and what may be done: principals, SASL, delegation tokens. All of it pure."""
