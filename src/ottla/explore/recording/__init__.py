"""What a run did, as data: what its story and its picture are made of."""
