"""A program for each host. Each runs in the environment of its library, which has nothing else of ours."""
