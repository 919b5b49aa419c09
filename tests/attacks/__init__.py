"""The sandbox, proved by attacking it: a list of attempts, each made in a fresh session, each of which must fail."""
