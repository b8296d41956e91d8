"""What Leeway is run with: nothing of this is in the wheel."""
