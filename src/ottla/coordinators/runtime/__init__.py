"""Hosts any pure machine over the partitions of an internal topic; knows no group and no transaction."""
