"""What code showed: folded, bounded, made harmless, and put into words."""
