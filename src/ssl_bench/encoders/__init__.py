"""What is done with a finished encoder, of a run or from anywhere: scored, and asked for features."""
