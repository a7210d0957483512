"""TxnOffsetCommit v6: topics are named by their ids (KIP-1319)."""
