"""Token formats and rules: no clock, no input or output; times are arguments."""
