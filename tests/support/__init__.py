"""What several tests work with."""
