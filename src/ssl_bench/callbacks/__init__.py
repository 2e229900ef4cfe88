"""What watches a method train and never touches its gradient."""
