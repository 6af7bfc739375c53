"""What people see of a run: one file per format."""
